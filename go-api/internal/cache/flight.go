package cache

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// window is how far a result too large to keep may be ahead of its slowest reader.
	window = 1 << 20
	// patience is how long, in all, a slow reader of such a result may hold up the others before it is cut off.
	patience = 2 * time.Second
	// settleTime is how long a small result may take to be whole before its first bytes go out. Its receipt follows
	// them at once; without it, neither its length nor whether it is stored could be told.
	settleTime = 10 * time.Millisecond
	// settleBytes is what a result that is whole soon may have.
	settleBytes = 64 << 10
)

// ErrTooSlow ends a reader that fell too far behind the others of a result too large to keep.
var ErrTooSlow = errors.New("the reader fell too far behind the others that share the result")

// Execution is a result under way, as the engine gives it. Close must be called.
type Execution interface {
	// Header is what is known before the first byte.
	Header() Header
	// Next returns the next bytes, which are the caller's, or io.EOF after the last.
	Next() ([]byte, error)
	// Lend has Next return bytes that are the caller's only until its next call.
	Lend()
	// Receipt is set once Next has returned io.EOF.
	Receipt() Receipt
	// Whole says that the result is there already: Next returns all of it, then io.EOF, and waits for nothing.
	Whole() bool
	// Close gives the result up.
	Close()
}

// flight is one execution that any number of readers share. Its bytes are kept from the first on while they are few
// enough to be stored; of a larger result only what the slowest reader has not had, a window of it at most.
type flight struct {
	cache    *Cache
	key      Key
	spelling string
	started  time.Time
	// strict says that it looks at the sources itself.
	strict bool
	stop   context.CancelFunc

	mu sync.Mutex
	// progress is closed and replaced whenever anything below changes.
	progress chan struct{}
	header   *Header
	chunks   [][]byte
	// gone counts the chunks, and bytes the bytes, that are no longer held; size is all that came.
	gone  int
	held  int64
	size  int64
	large bool
	// abandoned says that the last reader has left and nobody may join any more.
	abandoned bool
	done      bool
	err       error
	receipt   Receipt
	entry     *Entry
	// shared says that the answer came from the shared level.
	shared  bool
	readers map[*reader]struct{}
}

// reader is one asker's place in a flight.
type reader struct {
	flight *flight
	next   int
	behind time.Duration
	cut    bool
}

// changed wakes everyone. The caller holds mu.
func (f *flight) changed() {
	close(f.progress)
	f.progress = make(chan struct{})
}

// join adds a reader; the caller knows that the flight still has its first byte.
func (f *flight) join() *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.large || f.abandoned {
		return nil
	}
	r := &reader{flight: f}
	f.readers[r] = struct{}{}
	return r
}

// leave gives a reader's place up; the last one stops the execution.
func (r *reader) leave() {
	f := r.flight
	f.mu.Lock()
	delete(f.readers, r)
	last := len(f.readers) == 0
	f.abandoned = f.abandoned || last
	f.changed()
	f.mu.Unlock()
	if last {
		f.cache.forget(f)
		f.stop()
	}
}

// run executes to the end and passes on what comes.
func (f *flight) run(ctx context.Context, request Request) {
	defer f.stop()
	defer f.cache.forget(f)
	entry, release := f.cache.consult(ctx, f.key, request.Policy == Revalidate)
	defer release()
	if entry != nil {
		f.land(entry)
		return
	}
	execution, err := request.Execute(ctx)
	if err != nil {
		f.finish(err)
		return
	}
	defer execution.Close()
	header := execution.Header()
	f.mu.Lock()
	f.header = &header
	f.changed()
	f.mu.Unlock()
	f.cache.learn(f.key, header)
	f.finish(f.pass(ctx, execution))
	f.mu.Lock()
	entry, whole := f.entry, f.err == nil
	f.mu.Unlock()
	if whole {
		f.cache.publish(ctx, f.key, header, entry)
	}
}

// pass takes an execution's chunks as they come.
func (f *flight) pass(ctx context.Context, execution Execution) error {
	for {
		chunk, err := execution.Next()
		if errors.Is(err, io.EOF) {
			f.mu.Lock()
			f.receipt = execution.Receipt()
			f.mu.Unlock()
			return nil
		}
		if err != nil {
			return err
		}
		f.add(ctx, chunk)
	}
}

// land ends the flight with an answer that another edge made.
func (f *flight) land(entry *Entry) {
	f.cache.store(f.key, entry)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.header, f.entry, f.receipt, f.shared = &entry.Header, entry, entry.Receipt, true
	f.done = true
	f.changed()
}

// add takes a chunk, and waits while the readers of a large result are behind.
func (f *flight) add(ctx context.Context, chunk []byte) {
	size := int64(len(chunk))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chunks = append(f.chunks, chunk)
	f.size += size
	f.held += size
	flying := f.cache.flying.Add(size)
	if !f.large && (f.size > f.cache.maxEntry || flying > f.cache.maxFlying) {
		f.large = true
		f.cache.tooLarge(f.key, *f.header, f.size > f.cache.maxEntry)
	}
	f.changed()
	if f.large {
		f.pace(ctx)
	}
}

// pace waits until the slowest reader is within the window. A reader that holds up another for too long is cut off.
// The caller holds mu.
func (f *flight) pace(ctx context.Context) {
	for {
		slowest, starving := f.trim()
		if slowest == nil || f.held <= window {
			return
		}
		limit := ctx
		giveUp := func() {}
		if starving {
			limit, giveUp = context.WithTimeout(ctx, patience-slowest.behind)
		}
		wake, waited := f.progress, time.Now()
		f.mu.Unlock()
		select {
		case <-wake:
		case <-limit.Done():
		}
		giveUp()
		f.mu.Lock()
		if ctx.Err() != nil {
			return
		}
		if starving {
			slowest.hold(time.Since(waited))
		}
	}
}

// hold adds to the time for which a reader held up others, and cuts it off when that is too much. The caller holds mu.
func (r *reader) hold(waited time.Duration) {
	if r.behind += waited; r.behind >= patience {
		r.cut = true
		delete(r.flight.readers, r)
		r.flight.changed()
	}
}

// trim drops what every reader has had, and returns the slowest reader and whether another one waits for more. The
// caller holds mu.
func (f *flight) trim() (*reader, bool) {
	end := f.gone + len(f.chunks)
	least, starving := end, false
	var slowest *reader
	for r := range f.readers {
		if r.next <= least {
			least, slowest = r.next, r
		}
		starving = starving || r.next == end
	}
	for ; f.gone < least; f.gone++ {
		f.release(int64(len(f.chunks[0])))
		f.chunks[0] = nil
		f.chunks = f.chunks[1:]
	}
	return slowest, starving && least < end
}

func (f *flight) release(bytes int64) {
	f.held -= bytes
	f.cache.flying.Add(-bytes)
}

// finish ends the flight. A whole result that may be kept is stored before anyone learns that it is whole, so that
// whoever asks next finds it.
func (f *flight) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if err == nil && !f.large {
		body := make([]byte, 0, f.size)
		for i, chunk := range f.chunks {
			body = append(body, chunk...)
			// Readers under way go on in the copy, so that the chunk's own memory can go.
			f.chunks[i] = body[len(body)-len(chunk):]
		}
		f.entry = newEntry(f.key, *f.header, f.receipt, body, f.started)
		f.cache.store(f.key, f.entry)
	}
	f.release(f.held)
	f.done = true
	f.changed()
}

// await waits until the flight has something to give: the first bytes, the end, or a failure.
func (r *reader) await(ctx context.Context) error {
	f := r.flight
	var settled <-chan time.Time
	for {
		f.mu.Lock()
		wake := f.progress
		began, done, err := f.header != nil && f.size > 0, f.done, f.err
		small := f.size < settleBytes && !f.large
		f.mu.Unlock()
		switch {
		case err != nil:
			return err
		case done:
			return nil
		case began && !small:
			return nil
		case began && settled == nil:
			timer := time.NewTimer(settleTime)
			defer timer.Stop()
			settled = timer.C
		}
		select {
		case <-wake:
		case <-settled:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read returns the next chunk, io.EOF after the last.
func (r *reader) read(ctx context.Context) ([]byte, error) {
	f := r.flight
	for {
		f.mu.Lock()
		wake := f.progress
		at := r.next - f.gone
		switch {
		case r.cut:
			f.mu.Unlock()
			return nil, ErrTooSlow
		case at < len(f.chunks):
			chunk := f.chunks[at]
			r.next++
			if f.large {
				f.changed()
			}
			f.mu.Unlock()
			return chunk, nil
		case f.done:
			err := f.err
			f.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
