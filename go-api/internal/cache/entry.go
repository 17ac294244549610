package cache

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// entryOverhead is what an entry takes in memory beside its bytes and names: the structures here and the library's
// node and table slot, rounded up.
const entryOverhead = 768

// Entry is a complete answer in memory. It is never changed but for the encoded variants that are added to it.
type Entry struct {
	// Header is what the answer was made from.
	Header Header
	// Receipt is what it is.
	Receipt Receipt
	// Body is the answer without a content coding. Nobody writes to it.
	Body []byte
	// Tag names the answer.
	Tag Tag

	came     time.Time
	fixed    int
	variants [codings]variant
}

// variant is the body in one coding, made when it is first asked for.
type variant struct {
	once sync.Once
	body atomic.Pointer[[]byte]
	err  error
}

func newEntry(key Key, header Header, receipt Receipt, body []byte, came time.Time) *Entry {
	entry := &Entry{Header: header, Receipt: receipt, Body: body, Tag: tagOf(key, header.Snapshots), came: came}
	entry.fixed = entryOverhead + cap(body) + len(entry.Tag) + len(header.NextPageToken) + 4*cap(header.Missing)
	for _, snapshot := range header.Snapshots {
		entry.fixed += len(snapshot.Table) + len(snapshot.ID) + 2*16
	}
	return entry
}

// weight is the entry's memory in bytes, all that is held counted.
func (e *Entry) weight() uint32 {
	total := e.fixed
	for i := range e.variants {
		if body := e.variants[i].body.Load(); body != nil {
			total += cap(*body)
		}
	}
	return saturated(total)
}

// saturated narrows a size to what weights are counted in.
func saturated(size int) uint32 {
	return uint32(min(max(size, 0), math.MaxUint32)) //nolint:gosec // it is within the range
}

// encoded returns the body in a coding, and whether this call made it.
func (e *Entry) encoded(coding Coding) ([]byte, bool, error) {
	if coding == Identity {
		return e.Body, false, nil
	}
	variant, made := &e.variants[coding], false
	variant.once.Do(func() {
		made = true
		body, err := encode(e.Body, coding)
		if variant.err = err; err == nil {
			variant.body.Store(&body)
		}
	})
	if variant.err != nil {
		return nil, false, variant.err
	}
	return *variant.body.Load(), made, nil
}

func encode(body []byte, coding Coding) ([]byte, error) {
	var out bytes.Buffer
	encoder, err := coding.NewEncoder(&out)
	if err == nil {
		_, err = encoder.Write(body)
	}
	if err == nil {
		err = encoder.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encode an answer as %s: %w", coding, err)
	}
	// The buffer grew by doubling; what is kept must not hold the slack.
	return slices.Clip(bytes.Clone(out.Bytes())), nil
}
