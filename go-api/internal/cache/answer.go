package cache

import (
	"context"
	"io"

	"github.com/maypok86/otter/v2"
)

// Answer is an answer under way. Close must be called.
type Answer struct {
	// Status says how it came about.
	Status Status
	// Header is what it is made from.
	Header Header
	// Tag names it; empty where it can't be named.
	Tag Tag

	cache     *Cache
	key       Key
	entry     *Entry
	given     bool
	reader    *reader
	execution Execution
}

// Entry returns the whole answer where it is in memory, nil otherwise.
func (a *Answer) Entry() *Entry { return a.entry }

// Encoded returns the whole answer in a coding. The answer has an Entry.
func (a *Answer) Encoded(coding Coding) ([]byte, error) {
	body, made, err := a.entry.encoded(coding)
	if made && err == nil {
		a.cache.counters.Encoded.Add(1)
		// What is held has grown; to set it again is to weigh it again.
		a.cache.entries.ComputeIfPresent(a.key, func(old *Entry) (*Entry, otter.ComputeOp) {
			if old != a.entry {
				return old, otter.CancelOp
			}
			return old, otter.WriteOp
		})
	}
	return body, err
}

// Next returns the next bytes, or io.EOF after the last. Nobody writes to them before its next call.
func (a *Answer) Next(ctx context.Context) ([]byte, error) {
	switch {
	case a.entry != nil:
		if a.given || len(a.entry.Body) == 0 {
			return nil, io.EOF
		}
		a.given = true
		return a.entry.Body, nil
	case a.execution != nil:
		return a.execution.Next()
	default:
		return a.reader.read(ctx)
	}
}

// Receipt returns the receipt of an answer that was read to its end, or is whole.
func (a *Answer) Receipt() Receipt {
	switch {
	case a.entry != nil:
		return a.entry.Receipt
	case a.execution != nil:
		return a.execution.Receipt()
	default:
		a.reader.flight.mu.Lock()
		defer a.reader.flight.mu.Unlock()
		return a.reader.flight.receipt
	}
}

// Close gives the answer up.
func (a *Answer) Close() {
	if a.execution != nil {
		a.execution.Close()
	}
	if a.reader != nil {
		a.reader.leave()
	}
}
