package cache

import (
	"context"
	"errors"
	"io"
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
func (e *execution) Lend()            {}
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
