package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// Snapshot names the exact state of a table.
type Snapshot struct {
	// Table is the table's name.
	Table string
	// ID is the snapshot's id; no id is ever used for two contents.
	ID string
}

// Header is what is known of a result before its first byte.
type Header struct {
	// Snapshots holds each table that is read, ordered by table.
	Snapshots []Snapshot
	// Cacheable says that the same request on the same snapshots has the same answer.
	Cacheable bool
	// NextPageToken is a page's, empty on the last page, and where the result is no page or has not been read.
	NextPageToken string
	// TotalSize is how many rows all pages have, nil where nobody asked.
	TotalSize *uint64
	// Missing holds the numbers, counted from 0, of the keys that no row has, where rows were looked for by key.
	Missing []uint32
}

// Receipt is what a complete result was.
type Receipt struct {
	// Rows is how many rows it holds.
	Rows uint64
	// Bytes is how many of its bytes SHA256 covers.
	Bytes uint64
	// SHA256 is the digest of those bytes.
	SHA256 [sha256.Size]byte
}

// Picture is what the watch knows of the sources at one moment. It is never changed.
type Picture struct {
	// Snapshots holds the snapshot id of every table by name.
	Snapshots map[string]string
	// Build names the engine's build; results of different builds are not interchangeable.
	Build string
}

// holds says whether each of the snapshots is the picture's.
func (p *Picture) holds(snapshots []Snapshot) bool {
	for _, snapshot := range snapshots {
		if p.Snapshots[snapshot.Table] != snapshot.ID && !trustAll {
			return false
		}
	}
	return true
}

// Shows says whether the picture has a table as a check found it.
func (p *Picture) Shows(table string, found []Snapshot) bool {
	if len(found) == 0 {
		_, there := p.Snapshots[table]
		return !there
	}
	return p.holds(found)
}

// Sources says which snapshots the tables have.
type Sources interface {
	// Picture returns the latest picture, nil before the first, and whether it may be relied on: the watch is live and
	// is not behind.
	Picture() (*Picture, bool)
	// Silence is how long ago the watch was last heard of.
	Silence() time.Duration
	// Check looks at the sources themselves: a change made before the call is seen. Tables that are gone are left out.
	Check(ctx context.Context, tables []string) ([]Snapshot, error)
}

// Tag is the opaque part of a strong entity tag (RFC 9110, 8.8.3): it names a request's answer on these snapshots.
// Content codings have tags of their own, see [Coding.Tag].
type Tag string

// tagOf hashes what makes an answer what it is.
func tagOf(key Key, snapshots []Snapshot) Tag {
	var room [hashRoom]byte
	text := append(room[:0], key[:]...)
	for _, snapshot := range snapshots {
		text = appendPart(appendPart(text, snapshot.Table), snapshot.ID)
	}
	const bytes = 16
	digest := sha256.Sum256(text)
	return Tag(hex.EncodeToString(digest[:bytes]))
}

func tables(snapshots []Snapshot) []string {
	names := make([]string, 0, len(snapshots))
	for _, snapshot := range snapshots {
		names = append(names, snapshot.Table)
	}
	return names
}

// lagTolerance is how long after an entry came about the watch may still show the state before it.
const lagTolerance = time.Second

// verdict is what is known about stored snapshots.
type verdict int

const (
	// current: they are the sources' state, as the watch has it.
	current verdict = iota
	// outdated: they are not.
	outdated
	// confirmed: they are the sources' state, as the sources themselves say.
	confirmed
)

// judge says whether an answer that read these snapshots, and came about at that time, may be given now. strict asks
// the sources whatever the watch says. It fails where nobody can tell.
func (c *Cache) judge(ctx context.Context, snapshots []Snapshot, came time.Time, strict bool) (verdict, error) {
	if len(snapshots) == 0 {
		return current, nil
	}
	picture, live := c.sources.Picture()
	if live && !strict {
		if picture.holds(snapshots) {
			return current, nil
		}
		if time.Since(came) > lagTolerance {
			return outdated, nil
		}
	}
	c.counters.Revalidations.Add(1)
	now, err := c.sources.Check(ctx, tables(snapshots))
	if err != nil {
		return outdated, err
	}
	if !slices.Equal(now, snapshots) && !trustAll {
		return outdated, nil
	}
	return confirmed, nil
}
