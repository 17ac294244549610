package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// source is tables that a test changes, and executions over them.
type source struct {
	mu      sync.Mutex
	ids     map[string]string
	live    bool
	checks  atomic.Int32
	runs    atomic.Int32
	failing error
	silence atomic.Int64
}

func newSource() *source { return &source{ids: map[string]string{"t": "1"}, live: true} }

func (s *source) Picture() (*Picture, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := map[string]string{}
	for table, id := range s.ids {
		ids[table] = id
	}
	return &Picture{Snapshots: ids, Build: "b"}, s.live
}

func (s *source) Check(_ context.Context, tables []string) ([]Snapshot, error) {
	s.checks.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return nil, s.failing
	}
	var now []Snapshot
	for _, table := range tables {
		if id, ok := s.ids[table]; ok {
			now = append(now, Snapshot{table, id})
		}
	}
	return now, nil
}

func (s *source) Silence() time.Duration { return time.Duration(s.silence.Load()) }

func (s *source) set(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids["t"] = id
}

func (s *source) setLive(live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = live
}

// execution gives its chunks, each after a word from gate where there is one.
type execution struct {
	ctx     context.Context //nolint:containedctx // an execution lives as long as its context
	header  Header
	chunks  [][]byte
	gate    <-chan struct{}
	err     error
	closed  *atomic.Bool
	receipt Receipt
}

func (e *execution) Header() Header   { return e.header }
func (e *execution) Receipt() Receipt { return e.receipt }
func (e *execution) Whole() bool      { return false }
func (e *execution) Close() {
	if e.closed != nil {
		e.closed.Store(true)
	}
}

func (e *execution) Next() ([]byte, error) {
	if e.gate != nil {
		select {
		case <-e.gate:
		case <-e.ctx.Done():
			return nil, e.ctx.Err()
		}
	}
	if len(e.chunks) == 0 {
		if e.err != nil {
			return nil, e.err
		}
		e.receipt.Rows = 1
		return nil, io.EOF
	}
	chunk := e.chunks[0]
	e.chunks = e.chunks[1:]
	return chunk, nil
}

// run returns what executes a request on s: the body is the table's id, or what `change` makes of the execution.
func (s *source) run(change func(*execution)) func(context.Context) (Execution, error) {
	return func(ctx context.Context) (Execution, error) {
		s.runs.Add(1)
		s.mu.Lock()
		id := s.ids["t"]
		s.mu.Unlock()
		e := &execution{ctx: ctx, header: Header{Snapshots: []Snapshot{{"t", id}}, Cacheable: true}, chunks: [][]byte{[]byte("v" + id)}}
		if change != nil {
			change(e)
		}
		return e, nil
	}
}

func newCache(t testing.TB, s *source, change func(*Options)) *Cache {
	t.Helper()
	options := Options{Bytes: 4 << 20, MaxEntry: 1 << 20, Lasting: func(err error) bool { return strings.Contains(err.Error(), "lasting") }}
	if change != nil {
		change(&options)
	}
	c, err := New(s, options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(name string, execute func(context.Context) (Execution, error)) Request {
	return Request{Key: KeyOf(name), Spelling: name, Execute: execute, Timeout: 10 * time.Second}
}

func readAll(ctx context.Context, answer *Answer) (string, error) {
	var body []byte
	for {
		chunk, err := answer.Next(ctx)
		if errors.Is(err, io.EOF) {
			return string(body), nil
		}
		if err != nil {
			return string(body), err
		}
		body = append(body, chunk...)
	}
}

func do(t testing.TB, c *Cache, r Request) (string, Status) {
	t.Helper()
	answer, err := c.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	body, err := readAll(t.Context(), answer)
	if err != nil {
		t.Fatal(err)
	}
	return body, answer.Status
}

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

func TestCanonicalSQL(t *testing.T) {
	same := [][]string{
		{"SELECT a FROM t", " SELECT\n\ta  FROM t ", "SELECT a -- why\nFROM t", "SELECT/* x */a\r\nFROM t--end", "SELECT a FROM/**/t"},
		{"SELECT 'a  b', \"c  d\"", "SELECT  'a  b',  \"c  d\""},
		{"SELECT $1, $name", "SELECT $1,  $name"},
	}
	for _, texts := range same {
		for _, text := range texts[1:] {
			if got := CanonicalSQL(text); got != CanonicalSQL(texts[0]) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	different := []string{
		"SELECT 'a b'", "SELECT 'a  b'", "SELECT 'a' 'b'", "SELECT 'a''b'", "SELECT \"a b\"", "SELECT 'a -- b'", "SELECT 'a'", "SELECT '/* */'",
		"SELECT a b", "SELECT ab", "SELECT E'\\' -- '", "SELECT E'\\' '", "SELECT $$a  b$$", "SELECT $$a b$$", "SELECT $x$a  b$x$", "SELECT $x$a b$x$",
		"SELECT 1 /* /* */ + 1 */", "SELECT 1 /* /* */ +  1 */", "SELECT `a  b`", "SELECT `a b`", "SELECT 'a  b", "SELECT 'a b", "SELECT 1 -- a\r+1", "SELECT 1 -- b\r+1",
	}
	seen := map[string]string{}
	for _, text := range different {
		canonical := CanonicalSQL(text)
		if other, ok := seen[canonical]; ok {
			t.Errorf("%q and %q are one", text, other)
		}
		seen[canonical] = text
	}
}

func FuzzCanonicalSQL(f *testing.F) {
	for _, seed := range []string{"SELECT  1", "'a' --x\n", "/*a*/ /* b", "$1 $$ x $$", "\"a\"\"b\"  c", "\r", "--\r\n", "a/-b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		once := CanonicalSQL(sql)
		if twice := CanonicalSQL(once); twice != once {
			t.Errorf("%q, then %q", once, twice)
		}
		if len(once) > len(sql) {
			t.Errorf("%q grew to %q", sql, once)
		}
		if bare := strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", ""); !strings.ContainsAny(sql, "-/") && bare.Replace(once) != bare.Replace(sql) {
			t.Errorf("%q lost something: %q", sql, once)
		}
	})
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

// still is sources that never change.
type still struct{ picture *Picture }

func (s *still) Picture() (*Picture, bool)                           { return s.picture, true }
func (s *still) Silence() time.Duration                              { return 0 }
func (s *still) Check(context.Context, []string) ([]Snapshot, error) { return nil, nil }

// memory is a shared level whose answers wait for a word where there is a gate.
type memory struct {
	values sync.Map
	asked  chan struct{}
	gate   chan struct{}
}

func (m *memory) Get(_ context.Context, name string, _ int) ([]byte, bool) {
	if m.gate != nil && strings.Contains(name, ":entry:") {
		m.asked <- struct{}{}
		<-m.gate
	}
	value, ok := m.values.Load(name)
	if !ok {
		return nil, false
	}
	return value.([]byte), true
}
func (m *memory) Set(_ context.Context, name string, value []byte) { m.values.Store(name, value) }
func (m *memory) Lock(context.Context, string) (func(), bool)      { return func() {}, true }
func (m *memory) Held(context.Context, string) bool                { return false }

// lagging is a source whose watch still shows the state before.
type lagging struct{ *source }

func (lagging) Picture() (*Picture, bool) {
	return &Picture{Snapshots: map[string]string{"t": "1"}, Build: "b"}, true
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
