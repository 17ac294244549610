// Package cache is the front cache: complete answers in memory, each with the snapshots that it was made from. Nothing
// is ever invalidated: an answer is given only while each of those tables still has that snapshot, so there is no race
// to lose. It knows neither HTTP nor gRPC, neither SQL nor formats.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Policy is how a request lets itself be answered, after the request directives of RFC 9111, 5.2.1.
type Policy int

// The policies.
const (
	// Use takes what is in memory where the watch vouches for it.
	Use Policy = iota
	// Revalidate asks the sources first (no-cache, max-age=0).
	Revalidate
	// Bypass neither reads nor stores (no-store).
	Bypass
	// OnlyStored never executes (only-if-cached).
	OnlyStored
)

// ErrNotStored answers OnlyStored where nothing in memory may be given.
var ErrNotStored = errors.New("nothing stored may be given")

// Forward is why a request was not answered from memory, in the words of RFC 9211, 2.2.
type Forward string

// The reasons.
const (
	NotForwarded Forward = ""
	Missing      Forward = "uri-miss"
	Stale        Forward = "stale"
	Asked        Forward = "request"
	Passed       Forward = "bypass"
)

// Status says how an answer came about.
type Status struct {
	// Forward is why it is not a hit.
	Forward Forward
	// Confirmed says that the stored answer was given after the sources were asked.
	Confirmed bool
	// Collapsed says that it shares another request's execution.
	Collapsed bool
	// Stored says that it was stored.
	Stored bool
	// Shared says that the shared level had it.
	Shared bool
	// Overdue is how long nobody has vouched for a stored answer that was given all the same.
	Overdue time.Duration
}

// Request is one request for an answer.
type Request struct {
	// Key names it.
	Key Key
	// Spelling is the text that its failures may refer to: only requests of one spelling share them.
	Spelling string
	// Policy is how it may be answered.
	Policy Policy
	// Execute starts it. The context is not the request's own: the execution may outlive it.
	Execute func(ctx context.Context) (Execution, error)
	// Timeout bounds the execution.
	Timeout time.Duration
}

// Options bound a cache.
type Options struct {
	// Bytes is how much memory all entries may take together.
	Bytes int64
	// MaxEntry is how much one answer may have and still be stored.
	MaxEntry int64
	// Shared is the level that a fleet has together, nil where there is none.
	Shared Shared
	// Tolerance says for how long answers that read these snapshots may be given while nobody can vouch for them, by
	// their operator's word; nil and 0 say not at all.
	Tolerance func([]Snapshot) time.Duration
	// Lasting says whether a failure lies in the request, so that everyone who asks the same shares it, and not in the
	// asker's time or the state of the system.
	Lasting func(error) bool
}

// Cache is the front cache.
type Cache struct {
	sources   Sources
	shared    Shared
	entries   *otter.Cache[Key, *Entry]
	headers   *otter.Cache[Key, known]
	lasting   func(error) bool
	tolerance func([]Snapshot) time.Duration
	maxEntry  int64
	maxFlying int64
	// flying is how many bytes the flights hold.
	flying   atomic.Int64
	counters Counters

	mu      sync.Mutex
	flights map[Key]*flight
}

// known is what is remembered of a request: which tables it reads, and on which snapshots its answer was too large.
type known struct {
	tables    []string
	cacheable bool
	large     []Snapshot
}

const (
	// knownBytes bounds what is remembered of requests.
	knownBytes = 8 << 20
	// knownOverhead is one memory of a request without its names.
	knownOverhead = 256
	// smallEntry is what a small entry takes; the tables are made for a cache full of such.
	smallEntry = 4 << 10
	// flyingShare is the part of the cache's size that flights may hold together.
	flyingShare = 16
)

// New returns an empty cache.
func New(sources Sources, options Options) (*Cache, error) {
	c := &Cache{
		sources:   sources,
		shared:    options.Shared,
		lasting:   options.Lasting,
		tolerance: options.Tolerance,
		maxEntry:  min(options.MaxEntry, options.Bytes),
		maxFlying: max(options.Bytes/flyingShare, options.MaxEntry),
		flights:   map[Key]*flight{},
	}
	var err error
	c.entries, err = otter.New(&otter.Options[Key, *Entry]{
		MaximumWeight: uint64(max(options.Bytes, 0)),
		// How often each key is asked for is counted from the start then, not only once the cache is half full: a
		// scan could drive out what was hot before.
		InitialCapacity: int(max(options.Bytes/smallEntry, 1)),
		Weigher:         func(_ Key, entry *Entry) uint32 { return entry.weight() },
		OnDeletion: func(event otter.DeletionEvent[Key, *Entry]) {
			if event.WasEvicted() {
				c.counters.Evictions.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("set up the cache: %w", err)
	}
	c.headers, err = otter.New(&otter.Options[Key, known]{
		MaximumWeight: knownBytes,
		Weigher:       func(_ Key, k known) uint32 { return k.weight() },
	})
	if err != nil {
		return nil, fmt.Errorf("set up the cache: %w", err)
	}
	return c, nil
}

func (k known) weight() uint32 {
	total := knownOverhead
	for _, table := range k.tables {
		total += len(table) + 16
	}
	for _, snapshot := range k.large {
		total += len(snapshot.ID) + 2*16
	}
	return saturated(total)
}

// Hit returns an answer from memory where the watch vouches for it, else nil. It asks nobody and waits for nothing.
func (c *Cache) Hit(request Request) *Answer {
	if request.Policy != Use && request.Policy != OnlyStored {
		return nil
	}
	picture, live := c.sources.Picture()
	if !live {
		return nil
	}
	key := request.Key.with(picture.Build)
	entry, ok := c.entries.GetIfPresent(key)
	if !ok || !picture.holds(entry.Header.Snapshots) {
		return nil
	}
	c.counters.Hits.Add(1)
	return &Answer{cache: c, key: key, Header: entry.Header, Tag: entry.Tag, entry: entry}
}

// Do answers a request. It returns once there is something to give; what fails before that is an error.
func (c *Cache) Do(ctx context.Context, request Request) (*Answer, error) {
	if picture, _ := c.sources.Picture(); picture != nil {
		request.Key = request.Key.with(picture.Build)
	}
	if request.Policy == Bypass {
		c.counters.Bypassed.Add(1)
		return c.direct(ctx, request, Asked)
	}
	arrived := time.Now()
	status := Status{Forward: Missing}
	if entry, ok := c.entries.GetIfPresent(request.Key); ok {
		tolerance := c.tolerated(request, entry)
		found, err := c.judgeWithin(ctx, entry, request.Policy == Revalidate, tolerance)
		if overdue := c.sources.Silence(); err != nil && overdue < tolerance {
			c.counters.Overdue.Add(1)
			answer := c.hit(request, entry, current)
			answer.Status.Overdue = overdue
			return answer, nil
		}
		if err != nil {
			return nil, err
		}
		if found != outdated {
			return c.hit(request, entry, found), nil
		}
		c.counters.Stale.Add(1)
		status.Forward = Stale
	} else {
		c.counters.Misses.Add(1)
	}
	if request.Policy == OnlyStored {
		return nil, ErrNotStored
	}
	if c.isAlone(request.Key) {
		c.counters.Bypassed.Add(1)
		return c.direct(ctx, request, Passed)
	}
	return c.fly(ctx, request, status, arrived)
}

// tolerantWait is how long a request waits for a verdict that it can do without.
const tolerantWait = 500 * time.Millisecond

// tolerated returns for how long an entry may be given while nobody can vouch for it: not at all where the caller wants
// the sources asked, or where the last picture had another state.
func (c *Cache) tolerated(request Request, entry *Entry) time.Duration {
	if c.tolerance == nil || request.Policy == Revalidate {
		return 0
	}
	picture, _ := c.sources.Picture()
	if picture == nil || !picture.holds(entry.Header.Snapshots) {
		return 0
	}
	return c.tolerance(entry.Header.Snapshots)
}

func (c *Cache) judgeWithin(ctx context.Context, entry *Entry, strict bool, tolerance time.Duration) (verdict, error) {
	if tolerance > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tolerantWait)
		defer cancel()
	}
	return c.judge(ctx, entry.Header.Snapshots, entry.came, strict)
}

func (c *Cache) hit(request Request, entry *Entry, found verdict) *Answer {
	c.counters.Hits.Add(1)
	status := Status{Confirmed: found == confirmed}
	switch {
	case !status.Confirmed:
	case request.Policy == Revalidate:
		status.Forward = Asked
	default:
		status.Forward = Stale
	}
	return &Answer{cache: c, key: request.Key, Status: status, Header: entry.Header, Tag: entry.Tag, entry: entry}
}

// direct executes for one asker alone.
func (c *Cache) direct(ctx context.Context, request Request, why Forward) (*Answer, error) {
	execution, err := request.Execute(ctx)
	if err != nil {
		return nil, err
	}
	answer := &Answer{cache: c, key: request.Key, Status: Status{Forward: why}, Header: execution.Header(), execution: execution}
	if execution.Whole() {
		body, err := execution.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		answer.entry = newEntry(request.Key, answer.Header, execution.Receipt(), body, time.Now())
		if answer.Header.Cacheable {
			answer.Tag = answer.entry.Tag
		}
		return answer, nil
	}
	execution.Lend()
	if answer.Header.Cacheable {
		answer.Tag = tagOf(request.Key, answer.Header.Snapshots)
	}
	return answer, nil
}

// tooLarge counts a flight whose answer will not be stored. One that is too large, and not only now, is remembered as
// long as its snapshots stay.
func (c *Cache) tooLarge(key Key, header Header, always bool) {
	c.counters.TooLarge.Add(1)
	if always {
		c.headers.Set(key, known{tables: tables(header.Snapshots), cacheable: header.Cacheable, large: header.Snapshots})
	}
}

// isAlone says that a request's answer can't be stored, so that it is executed for its asker alone.
func (c *Cache) isAlone(key Key) bool {
	k, ok := c.headers.GetIfPresent(key)
	if !ok {
		return false
	}
	if !k.cacheable {
		return true
	}
	picture, live := c.sources.Picture()
	return k.large != nil && live && picture.holds(k.large)
}

func (c *Cache) learn(key Key, header Header) {
	c.headers.Set(key, known{tables: tables(header.Snapshots), cacheable: header.Cacheable})
}

func (c *Cache) store(key Key, entry *Entry) {
	if !entry.Header.Cacheable {
		c.counters.Volatile.Add(1)
		return
	}
	c.entries.Set(key, entry)
}

// Tag returns the tag that the answer to a request would have now and what it would be made from, without executing it;
// false where that can't be told. plan asks the engine what the request reads, where that is not known yet.
func (c *Cache) Tag(ctx context.Context, request Request, plan func(context.Context) (Header, error)) (Tag, []Snapshot, bool, error) {
	key := request.Key
	if picture, _ := c.sources.Picture(); picture != nil {
		key = key.with(picture.Build)
	}
	k, ok := c.headers.GetIfPresent(key)
	if !ok {
		header, err := plan(ctx)
		if err != nil {
			return "", nil, false, err
		}
		c.learn(key, header)
		return tagOf(key, header.Snapshots), header.Snapshots, header.Cacheable, nil
	}
	if !k.cacheable {
		return "", nil, false, nil
	}
	snapshots, ok := c.present(ctx, k.tables, request.Policy == Revalidate)
	return tagOf(key, snapshots), snapshots, ok, nil
}
