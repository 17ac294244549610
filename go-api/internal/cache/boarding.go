package cache

import (
	"context"
	"errors"
	"time"
)

// fly joins a flight or starts one. What a flight gives to one who joined it late was current at some time after that
// one arrived; otherwise, and when it fails for a reason that is not theirs, they get a flight of their own.
func (c *Cache) fly(ctx context.Context, request Request, status Status, arrived time.Time) (*Answer, error) {
	picture, live := c.sources.Picture()
	if !live {
		picture = nil
	}
	strict := request.Policy == Revalidate
	place := boarding{arrived: arrived, strict: strict}
	if strict {
		place.notBefore = arrived
	}
	for {
		flight, reader, joined := c.board(ctx, request, place)
		if flight == nil {
			// It ended, and stored what it had, just now.
			if entry, ok := c.stored(request, arrived); ok {
				status.Collapsed = true
				c.counters.Collapsed.Add(1)
				return &Answer{cache: c, key: request.Key, Status: status, Header: entry.Header, Tag: entry.Tag, entry: entry}, nil
			}
			continue
		}
		err := reader.await(ctx)
		if err == nil && joined {
			err = c.share(ctx, flight, picture, arrived)
		}
		if err == nil {
			status.Collapsed = joined
			if joined {
				c.counters.Collapsed.Add(1)
			}
			return c.aboard(request.Key, flight, reader, status), nil
		}
		reader.leave()
		if errors.Is(err, errVolatile) {
			return c.direct(ctx, request, Passed)
		}
		if !joined || ctx.Err() != nil || (!errors.Is(err, errOutdated) && flight.concerns(request, err)) {
			return nil, err
		}
		// Whatever began after they asked will do for all who are turned away here: they share the next one.
		place = boarding{arrived: arrived, strict: strict, notBefore: arrived, not: flight}
	}
}

// boarding says which flights may be joined.
type boarding struct {
	// arrived is when the request came.
	arrived time.Time
	// notBefore is when it must have begun at the earliest.
	notBefore time.Time
	// not is one that has been tried.
	not *flight
	// strict asks for one that looks at the sources, and takes nothing that the watch alone vouches for.
	strict bool
}

// stored returns an entry that a flight has stored since the request looked for one, and that it may have: one that came
// about after it asked, or that the watch vouches for.
func (c *Cache) stored(request Request, arrived time.Time) (*Entry, bool) {
	entry, ok := c.entries.GetIfPresent(request.Key)
	if !ok || !entry.came.Before(arrived) || request.Policy == Revalidate {
		return entry, ok && !entry.came.Before(arrived)
	}
	picture, live := c.sources.Picture()
	return entry, live && picture.holds(entry.Header.Snapshots)
}

func (b boarding) allows(f *flight) bool {
	return f != nil && f != b.not && !f.started.Before(b.notBefore) && (f.strict || !b.strict)
}

var (
	// errOutdated says that a flight's snapshots were replaced before its reader asked.
	errOutdated = errors.New("the flight is older than the change")
	// errVolatile says that each asker must get an answer of their own.
	errVolatile = errors.New("the answer differs from call to call")
)

// share fails with errVolatile or errOutdated where one who joined a flight may not have what it gives. arrival is the
// picture that was relied on when they asked, or nil.
func (c *Cache) share(ctx context.Context, f *flight, arrival *Picture, arrived time.Time) error {
	f.mu.Lock()
	header := *f.header
	f.mu.Unlock()
	if !header.Cacheable {
		return errVolatile
	}
	// What began after they asked has looked at the sources after they asked.
	if !f.started.Before(arrived) || arrival != nil && arrival.holds(header.Snapshots) {
		return nil
	}
	found, err := c.judge(ctx, header.Snapshots, f.started, false)
	if err == nil && found == outdated {
		return errOutdated
	}
	return err
}

// concerns says whether a flight's failure is that of everyone who asks the same. One who ran out of time or went away
// speaks for nobody else.
func (f *flight) concerns(request Request, err error) bool {
	return f.spelling == request.Spelling && f.cache.lasting(err)
}

func (c *Cache) aboard(key Key, f *flight, r *reader, status Status) *Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &Answer{cache: c, key: key, Status: status, Header: *f.header, entry: f.entry, reader: r}
	answer.Status.Stored = f.entry != nil && answer.Header.Cacheable
	answer.Status.Shared = f.shared
	if answer.Header.Cacheable {
		answer.Tag = tagOf(key, answer.Header.Snapshots)
	}
	return answer
}

// board returns a place in a flight, and whether another asker began it; no flight where none is needed any more.
func (c *Cache) board(ctx context.Context, request Request, place boarding) (*flight, *reader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.flights[request.Key]; place.allows(known) {
		if reader := known.join(); reader != nil {
			return known, reader, true
		}
	}
	// A flight leaves the list after it has stored its answer, so that one of the two is always found.
	if _, ok := c.stored(request, place.arrived); ok {
		return nil, nil, false
	}
	// The execution keeps the request's identity for the logs, and not its end: others may still be reading.
	run, stop := context.WithTimeout(context.WithoutCancel(ctx), request.Timeout)
	f := &flight{
		cache: c, key: request.Key, spelling: request.Spelling, started: time.Now(), stop: stop,
		// Without a shared level a flight always executes, and an execution looks at the sources.
		strict:   request.Policy == Revalidate || c.shared == nil,
		progress: make(chan struct{}), readers: map[*reader]struct{}{},
	}
	reader := f.join()
	c.flights[request.Key] = f
	c.counters.Flights.Add(1)
	go f.run(run, request)
	return f, reader, false
}

// forget takes a flight off the list of those that can be joined.
func (c *Cache) forget(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.key] == f {
		delete(c.flights, f.key)
	}
}
