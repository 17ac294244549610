package cache

import (
	"context"
	"encoding/hex"
	"slices"
	"time"
)

// Shared is a second level that a fleet of edges has together. What it gives is checked, what it does not give is made:
// its failures cost time that it bounds itself, and nothing else.
type Shared interface {
	// Get returns what is stored under a name, at most limit bytes of it.
	Get(ctx context.Context, name string, limit int) ([]byte, bool)
	// Set stores a value.
	Set(ctx context.Context, name string, value []byte)
	// Lock makes the caller the only one of the fleet that does something, until release or its death. false says
	// that another one does. Where nobody can tell, everyone is told to go on.
	Lock(ctx context.Context, name string) (release func(), alone bool)
	// Held says whether someone has the lock.
	Held(ctx context.Context, name string) bool
}

const (
	// sharedPoll is how often one who waits for another edge's execution looks.
	sharedPoll = 10 * time.Millisecond
	// sharedTables is the longest record of a request's tables that is read.
	sharedTables = 64 << 10
	// sharedOverhead is what a record has beside its body at most.
	sharedOverhead = 64 << 10
)

func nothing() {}

// nameOf names a record. The form's version and the engine's build are part of what is named.
func nameOf(kind, id string) string { return "quern:1:" + kind + ":" + id }

// consult looks for a flight's answer in the shared level. Where another edge is executing the same, it waits for that.
// It returns an entry; or none, and what to call when the execution that is then due has ended.
func (c *Cache) consult(ctx context.Context, key Key, strict bool) (*Entry, func()) {
	if c.shared == nil {
		return nil, nothing
	}
	id := hex.EncodeToString(key[:])
	for {
		entry, alone := c.fetch(ctx, key, id, strict)
		if entry != nil || alone {
			return entry, nothing
		}
		release, mine := c.shared.Lock(ctx, nameOf("lock", id))
		if mine {
			// Whoever had the lock before may have stored it since.
			if entry, _ := c.fetch(ctx, key, id, strict); entry != nil {
				release()
				return entry, nothing
			}
			return nil, release
		}
		for c.shared.Held(ctx, nameOf("lock", id)) {
			select {
			case <-ctx.Done():
				return nil, nothing
			case <-time.After(sharedPoll):
			}
		}
	}
}

// fetch reads an answer from the shared level. alone says that there will never be one there: it varies or is too large.
func (c *Cache) fetch(ctx context.Context, key Key, id string, strict bool) (entry *Entry, alone bool) {
	k, ok := c.headers.GetIfPresent(key)
	if !ok {
		record, found := c.shared.Get(ctx, nameOf("tables", id), sharedTables)
		if !found {
			return nil, false
		}
		var err error
		if k, err = decodeTables(record); err != nil {
			c.counters.SharedDamaged.Add(1)
			return nil, false
		}
		c.headers.Set(key, k)
	}
	if !k.cacheable {
		return nil, true
	}
	// Only what the sources themselves have said now is as good as an execution that begins now.
	var came time.Time
	if strict {
		came = time.Now()
	}
	snapshots, ok := c.present(ctx, k.tables, strict)
	if !ok {
		return nil, false
	}
	record, found := c.shared.Get(ctx, nameOf("entry", string(tagOf(key, snapshots))), int(c.maxEntry)+sharedOverhead)
	if !found {
		c.counters.SharedMisses.Add(1)
		return nil, false
	}
	entry, err := decodeRecord(record, key, snapshots, came)
	if err != nil {
		c.counters.SharedDamaged.Add(1)
		return nil, false
	}
	if entry == nil {
		return nil, true
	}
	c.counters.SharedHits.Add(1)
	return entry, false
}

// present returns the snapshots that tables have now; false where one has none, or nobody can tell.
func (c *Cache) present(ctx context.Context, tables []string, strict bool) ([]Snapshot, bool) {
	if len(tables) == 0 {
		return nil, true
	}
	picture, live := c.sources.Picture()
	if !live || strict {
		snapshots, err := c.sources.Check(ctx, tables)
		return snapshots, err == nil && len(snapshots) == len(tables)
	}
	snapshots := make([]Snapshot, 0, len(tables))
	for _, table := range tables {
		snapshots = append(snapshots, Snapshot{Table: table, ID: picture.Snapshots[table]})
	}
	return snapshots, !slices.ContainsFunc(snapshots, func(s Snapshot) bool { return s.ID == "" })
}

// publish gives the fleet what an execution came to; entry is nil where the answer is too large to keep.
func (c *Cache) publish(ctx context.Context, key Key, header Header, entry *Entry) {
	if c.shared == nil {
		return
	}
	// The answer is there; that its asker has gone meanwhile must not lose it for the others.
	ctx = context.WithoutCancel(ctx)
	id := hex.EncodeToString(key[:])
	if header.Cacheable {
		c.shared.Set(ctx, nameOf("entry", string(tagOf(key, header.Snapshots))), encodeRecord(key, header.Snapshots, entry))
	}
	c.shared.Set(ctx, nameOf("tables", id), encodeTables(known{tables: tables(header.Snapshots), cacheable: header.Cacheable}))
}
