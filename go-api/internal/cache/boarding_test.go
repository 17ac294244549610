package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOneExecutionForMany(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	gate := make(chan struct{})
	r := request("q", s.run(func(e *execution) {
		e.gate, e.chunks = gate, [][]byte{bytes.Repeat([]byte("a"), settleBytes), []byte("b")}
	}))
	const many = 200
	var group sync.WaitGroup
	var collapsed, began atomic.Int32
	for range many {
		group.Go(func() {
			answer, err := c.Do(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Close()
			began.Add(1)
			if answer.Status.Collapsed {
				collapsed.Add(1)
			}
			if body, err := readAll(t.Context(), answer); err != nil || len(body) != settleBytes+1 {
				t.Error(len(body), err)
			}
		})
	}
	gate <- struct{}{}
	// The first bytes reach everyone before the last are there.
	waitFor(t, func() bool { return began.Load() == many })
	close(gate)
	group.Wait()
	if s.runs.Load() != 1 || collapsed.Load() != many-1 {
		t.Errorf("%d executions, %d collapsed", s.runs.Load(), collapsed.Load())
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not come about within 10 s")
		}
	}
}

func TestAFlightGoesOnWhileAnyoneReads(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	gate := make(chan struct{})
	closed := &atomic.Bool{}
	r := request("q", s.run(func(e *execution) { e.gate, e.closed = gate, closed }))
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Do(first, r)
		gone <- err
	}()
	waitFor(t, func() bool { return s.runs.Load() == 1 })
	stays := make(chan string)
	go func() {
		answer, err := c.Do(t.Context(), r)
		if err != nil {
			t.Error(err)
			stays <- ""
			return
		}
		defer answer.Close()
		body, _ := readAll(t.Context(), answer)
		stays <- body
	}()
	waitFor(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range c.flights {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.readers) == 2
		}
		return false
	})
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	if body := <-stays; body != "v1" || s.runs.Load() != 1 {
		t.Error(body)
	}

	alone, leave := context.WithCancel(t.Context())
	closed.Store(false)
	r = request("other", s.run(func(e *execution) { e.gate, e.closed = make(chan struct{}), closed }))
	go func() { waitFor(t, func() bool { return s.runs.Load() == 2 }); leave() }()
	if _, err := c.Do(alone, r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	waitFor(t, closed.Load)
}

func TestOneWhoAskedAfterAChangeNeverGetsTheOlderFlight(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	gate := make(chan struct{})
	r := request("q", s.run(func(e *execution) { e.gate = gate }))
	bodies := make(chan string, 2)
	ask := func() {
		answer, err := c.Do(t.Context(), r)
		if err != nil {
			t.Error(err)
			bodies <- ""
			return
		}
		defer answer.Close()
		body, _ := readAll(t.Context(), answer)
		bodies <- body
	}
	go ask()
	waitFor(t, func() bool { return s.runs.Load() == 1 })
	s.set("2")
	go ask()
	// Both join the one flight, and only the second one refuses what it gives.
	for range 2 {
		gate <- struct{}{}
	}
	if body := <-bodies; body != "v1" {
		t.Error("the first asker got", body)
	}
	close(gate)
	if body := <-bodies; body != "v2" || s.runs.Load() != 2 {
		t.Error("the second asker got", body)
	}
}

func TestAllWhoAreTurnedAwayShareTheNextFlight(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	gate := make(chan struct{})
	r := request("q", s.run(func(e *execution) { e.gate = gate }))
	var group sync.WaitGroup
	ask := func(want string) {
		group.Go(func() {
			if body, _ := do(t, c, r); body != want {
				t.Errorf("%q, want %q", body, want)
			}
		})
	}
	ask("v1")
	waitFor(t, func() bool { return s.runs.Load() == 1 })
	s.set("2")
	const many = 100
	for range many {
		ask("v2")
	}
	waitFor(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range c.flights {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.readers) == many+1
		}
		return false
	})
	close(gate)
	group.Wait()
	if s.runs.Load() != 2 {
		t.Errorf("%d executions", s.runs.Load())
	}
}

func TestVolatileAnswersAreNotShared(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	gate := make(chan struct{})
	var number atomic.Int32
	r := request("q", s.run(func(e *execution) {
		e.header.Cacheable, e.gate = false, gate
		e.chunks = [][]byte{fmt.Appendf(nil, "%d", number.Add(1))}
	}))
	var mu sync.Mutex
	seen := map[string]bool{}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			body, _ := do(t, c, r)
			mu.Lock()
			defer mu.Unlock()
			seen[body] = true
		})
	}
	close(gate)
	group.Wait()
	if len(seen) != 20 {
		t.Errorf("20 askers got %d answers", len(seen))
	}
}

func TestFailures(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	for _, text := range []string{"lasting", "passing"} {
		gate := make(chan struct{})
		var runs atomic.Int32
		r := request(text, func(context.Context) (Execution, error) {
			runs.Add(1)
			<-gate
			return nil, errors.New(text)
		})
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() {
				if _, err := c.Do(t.Context(), r); err == nil || err.Error() != text {
					t.Error(err)
				}
			})
		}
		waitFor(t, func() bool { return runs.Load() == 1 })
		time.Sleep(20 * time.Millisecond)
		close(gate)
		group.Wait()
		if text == "lasting" && runs.Load() != 1 {
			t.Errorf("a failure of the request itself was executed %d times", runs.Load())
		}
	}
}

func TestASlowReaderOfALargeResult(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	const chunk, count = 128 << 10, 64
	r := request("q", s.run(func(e *execution) { e.chunks = slices.Repeat([][]byte{make([]byte, chunk)}, count) }))
	slow, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	// Alone, a slow reader is waited for, and holds no more than the limit and the window.
	waitFor(t, func() bool { return c.flying.Load() >= c.maxEntry })
	time.Sleep(20 * time.Millisecond)
	if held := c.flying.Load(); held > c.maxEntry+window+chunk {
		t.Errorf("a slow reader makes the flight hold %d bytes", held)
	}
	if body, err := readAll(t.Context(), slow); err != nil || len(body) != chunk*count {
		t.Error(len(body), err)
	}
}

func TestASlowReaderDoesNotHoldTheOthersUp(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	const chunk, count = 128 << 10, 64
	gate := make(chan struct{})
	r := request("q", s.run(func(e *execution) {
		e.gate, e.chunks = gate, slices.Repeat([][]byte{make([]byte, chunk)}, count)
	}))
	answers := make(chan *Answer, 2)
	for range 2 {
		go func() {
			answer, err := c.Do(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			answers <- answer
		}()
	}
	gate <- struct{}{}
	slow, fast := <-answers, <-answers
	defer slow.Close()
	defer fast.Close()
	close(gate)
	if body, err := readAll(t.Context(), fast); err != nil || len(body) != chunk*count {
		t.Error(len(body), err)
	}
	if body, err := readAll(t.Context(), slow); !errors.Is(err, ErrTooSlow) || len(body) == chunk*count {
		t.Error("the slow reader got", len(body), err)
	}
	if s.runs.Load() != 1 {
		t.Error(s.runs.Load())
	}
}

// What the shared level has for the watch's picture may be older than a request that wants the sources asked, whoever's
// flight brings it.
func TestStrictRequestsTakeNothingThatTheWatchAloneVouchesFor(t *testing.T) {
	shared := &memory{}
	s := newSource()
	do(t, newCache(t, s, func(o *Options) { o.Shared = shared }), request("q", s.run(nil)))
	// The answer is there before the shared level has all of it; its tables come last.
	waitFor(t, func() bool {
		whole := false
		shared.values.Range(func(name, _ any) bool {
			whole = strings.Contains(name.(string), ":tables:")
			return !whole
		})
		return whole
	})

	s.set("2")
	shared.asked, shared.gate = make(chan struct{}, 9), make(chan struct{})
	c, err := New(lagging{s}, Options{Bytes: 1 << 20, MaxEntry: 1 << 20, Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	lax := request("q", s.run(nil))
	strict := lax
	strict.Key, strict.Policy = lax.Key.with("b"), Revalidate
	arrived := time.Now()
	landed := make(chan *Answer)
	go func() {
		answer, err := c.Do(t.Context(), lax)
		if err != nil {
			t.Error(err)
		}
		landed <- answer
	}()
	<-shared.asked
	asked := make(chan *Answer, 1)
	go func() {
		answer, err := c.fly(t.Context(), strict, Status{}, arrived)
		if err != nil {
			t.Error(err)
		}
		asked <- answer
	}()
	// It asks the shared level for itself, of what the sources say.
	select {
	case <-shared.asked:
	case <-time.After(2 * time.Second):
		t.Error("a strict request shares a flight that the watch alone vouches for")
	}
	close(shared.gate)
	if answer := <-asked; answer.Header.Snapshots[0].ID != "2" {
		t.Errorf("a strict request was answered from %v", answer.Header.Snapshots)
	}
	if answer := <-landed; !answer.Status.Shared {
		t.Errorf("the other one was not answered by the shared level: %+v", answer.Status)
	}
	lone, err := New(lagging{s}, Options{Bytes: 1 << 20, MaxEntry: 1 << 20, Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	shared.gate = nil
	if _, err := lone.Do(t.Context(), lax); err != nil {
		t.Fatal(err)
	}
	if entry, ok := lone.stored(strict, arrived); ok {
		t.Errorf("a strict request may have %v", entry.Header.Snapshots)
	}
}
