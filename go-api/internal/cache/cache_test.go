package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestAnAnswerHoldsAsLongAsItsSnapshots(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	r := request("q", s.run(nil))
	if body, status := do(t, c, r); body != "v1" || status != (Status{Forward: Missing, Stored: true}) {
		t.Error(body, status)
	}
	if body, status := do(t, c, r); body != "v1" || status != (Status{}) || s.runs.Load() != 1 {
		t.Error(body, status)
	}
	if c.Hit(r) == nil {
		t.Error("no hit")
	}
	s.set("2")
	if c.Hit(r) != nil {
		t.Error("a hit on a snapshot that is gone")
	}
	if body, status := do(t, c, r); body != "v2" || status.Forward != Stale {
		t.Error(body, status)
	}
	// What was can come again: its answer is gone, and nothing wrong is given.
	s.set("1")
	if body, _ := do(t, c, r); body != "v1" {
		t.Error(body)
	}
}

func TestWithoutTheWatchTheSourcesAreAsked(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	r := request("q", s.run(nil))
	do(t, c, r)
	s.setLive(false)
	if c.Hit(r) != nil {
		t.Error("a hit while nobody vouches for it")
	}
	if body, status := do(t, c, r); body != "v1" || !status.Confirmed || s.checks.Load() != 1 || s.runs.Load() != 1 {
		t.Error(body, status, s.checks.Load())
	}
	s.failing = errors.New("gone")
	if _, err := c.Do(t.Context(), r); !errors.Is(err, s.failing) {
		t.Errorf("answered with %v although nobody could vouch", err)
	}
	s.failing = nil
	s.setLive(true)
	r.Policy = Revalidate
	s.set("2")
	if body, status := do(t, c, r); body != "v2" || status.Forward != Stale {
		t.Error(body, status)
	}
	if body, status := do(t, c, r); body != "v2" || status.Forward != Asked || !status.Confirmed {
		t.Error(body, status)
	}
}

func TestWhatItsOperatorToleratesIsGivenWhileNobodyCanVouch(t *testing.T) {
	s := newSource()
	c := newCache(t, s, func(o *Options) { o.Tolerance = func([]Snapshot) time.Duration { return time.Minute } })
	r := request("q", s.run(nil))
	do(t, c, r)
	s.setLive(false)
	s.failing = errors.New("gone")
	s.silence.Store(int64(5 * time.Second))
	if body, status := do(t, c, r); body != "v1" || status.Overdue != 5*time.Second {
		t.Error(body, status)
	}
	strict := r
	strict.Policy = Revalidate
	if _, err := c.Do(t.Context(), strict); !errors.Is(err, s.failing) {
		t.Error("no-cache was answered from memory:", err)
	}
	s.silence.Store(int64(time.Hour))
	if _, err := c.Do(t.Context(), r); !errors.Is(err, s.failing) {
		t.Error("tolerated for too long:", err)
	}
	// What the last picture no longer had is never given.
	s.silence.Store(0)
	s.set("2")
	if _, err := c.Do(t.Context(), r); !errors.Is(err, s.failing) {
		t.Error("an outdated answer was tolerated:", err)
	}
}

func TestPolicies(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	r := request("q", s.run(nil))
	r.Policy = OnlyStored
	if _, err := c.Do(t.Context(), r); !errors.Is(err, ErrNotStored) || s.runs.Load() != 0 {
		t.Error(err)
	}
	r.Policy = Bypass
	for range 2 {
		if _, status := do(t, c, r); status.Forward != Asked || status.Stored {
			t.Error(status)
		}
	}
	if n, _ := c.Size(); n != 0 || s.runs.Load() != 2 {
		t.Error("no-store stored", n)
	}
	r.Policy = Use
	do(t, c, r)
	r.Policy = OnlyStored
	if body, status := do(t, c, r); body != "v1" || status.Forward != NotForwarded {
		t.Error(body, status)
	}
}

func TestWhatIsNeverStored(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	cases := map[string]func(*execution){
		"volatile": func(e *execution) { e.header.Cacheable = false },
		"large":    func(e *execution) { e.chunks = slices.Repeat([][]byte{make([]byte, 256<<10)}, 5) },
		"broken": func(e *execution) {
			e.chunks, e.err = [][]byte{make([]byte, settleBytes)}, errors.New("midway")
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			before := s.runs.Load()
			for range 2 {
				answer, err := c.Do(t.Context(), request(name, s.run(change)))
				if err != nil {
					if name != "broken" {
						t.Fatal(err)
					}
					continue
				}
				if _, err := readAll(t.Context(), answer); (err != nil) != (name == "broken") {
					t.Error(err)
				}
				if answer.Status.Stored {
					t.Error("said to be stored")
				}
				answer.Close()
			}
			if n, _ := c.Size(); n != 0 || s.runs.Load() != before+2 {
				t.Errorf("%d entries, %d executions", n, s.runs.Load()-before)
			}
		})
	}
	if held := c.flying.Load(); held != 0 {
		t.Errorf("flights that are over still count %d bytes", held)
	}
}

func TestTagsAreKnownWithoutExecution(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	plans := 0
	plan := func(context.Context) (Header, error) {
		plans++
		return Header{Snapshots: []Snapshot{{"t", s.ids["t"]}}, Cacheable: true}, nil
	}
	r := request("q", s.run(nil))
	before, _, ok, err := c.Tag(t.Context(), r, plan)
	if err != nil || !ok || s.runs.Load() != 0 {
		t.Fatal(before, ok, err)
	}
	answer, err := c.Do(t.Context(), r)
	if err != nil || answer.Tag != before {
		t.Error(err, answer.Tag, before)
	}
	answer.Close()
	s.set("2")
	after, _, ok, err := c.Tag(t.Context(), r, plan)
	if err != nil || !ok || after == before || plans != 1 {
		t.Error(after, ok, err, plans)
	}
	delete(s.ids, "t")
	if _, _, ok, _ := c.Tag(t.Context(), r, plan); ok {
		t.Error("a tag for a table that is gone")
	}
	tags := map[string]bool{Identity.Tag(after): true, Gzip.Tag(after): true, Zstd.Tag(after): true}
	if len(tags) != 3 {
		t.Error(tags)
	}
}

func TestVariantsAreMadeOnceAndCounted(t *testing.T) {
	s := newSource()
	c := newCache(t, s, nil)
	text := bytes.Repeat([]byte("hello "), 10_000)
	r := request("q", s.run(func(e *execution) { e.chunks = [][]byte{text} }))
	do(t, c, r)
	_, plain := c.Size()
	for range 3 {
		for _, coding := range []Coding{Identity, Gzip, Zstd} {
			answer := c.Hit(r)
			body, err := answer.Encoded(coding)
			if err != nil || (coding == Identity) != bytes.Equal(body, text) {
				t.Error(coding, err)
			}
		}
	}
	if made := c.Counters().Encoded.Load(); made != 2 {
		t.Errorf("%d variants were made", made)
	}
	// The library weighs in the background, soon after a write.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, all := c.Size()
		if all > plain {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes with variants, %d without", all, plain)
		}
	}
}

func TestAScanNeitherEvictsTheHotSetNorPassesTheBound(t *testing.T) {
	s := newSource()
	c := newCache(t, s, func(o *Options) { o.Bytes, o.MaxEntry = 2<<20, 1<<16 })
	body := bytes.Repeat([]byte("x"), 2_000)
	ask := func(name string) Status {
		_, status := do(t, c, request(name, s.run(func(e *execution) { e.chunks = [][]byte{slices.Clone(body)} })))
		return status
	}
	hot := func() (hits int) {
		for i := range 100 {
			if ask(fmt.Sprintf("hot %d", i)).Forward == NotForwarded {
				hits++
			}
		}
		return hits
	}
	for range 20 {
		hot()
		// The policy learns of reads from a small buffer, in its own time; a burst would pass it by.
		c.entries.CleanUp()
	}
	for i := range 20_000 {
		ask(fmt.Sprintf("scan %d", i))
		if i%10 == 0 {
			// What is hot goes on being asked for, one request in eleven.
			ask(fmt.Sprintf("hot %d", i/10%100))
		}
		if i%1_000 == 0 {
			c.entries.CleanUp()
			if _, bytes := c.Size(); bytes > 2<<20 {
				t.Fatalf("%d bytes", bytes)
			}
		}
	}
	if hits := hot(); hits < 90 {
		t.Errorf("after the scan %d of 100 hot answers are left", hits)
	}
}

func BenchmarkHit(b *testing.B) {
	s := &still{picture: &Picture{Snapshots: map[string]string{"t": "1"}, Build: "b"}}
	c, err := New(s, Options{Bytes: 4 << 20, MaxEntry: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	r := request("q", newSource().run(nil))
	do(b, c, r)
	b.ReportAllocs()
	for b.Loop() {
		if c.Hit(r) == nil {
			b.Fatal("no hit")
		}
	}
}
