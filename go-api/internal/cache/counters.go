package cache

import "sync/atomic"

// Counters count since the start.
type Counters struct {
	// Hits were answered from memory, Misses found nothing there, Stale found an answer that no longer holds.
	Hits, Misses, Stale atomic.Int64
	// Collapsed shared another request's execution; Flights is how many of those there were.
	Collapsed, Flights atomic.Int64
	// Bypassed neither read nor stored.
	Bypassed atomic.Int64
	// Revalidations asked the sources.
	Revalidations atomic.Int64
	// Overdue were answered from memory while nobody could vouch for it, by their operator's word.
	Overdue atomic.Int64
	// Volatile and TooLarge answers were not stored.
	Volatile, TooLarge atomic.Int64
	// Evictions made room.
	Evictions atomic.Int64
	// SharedHits, SharedMisses and SharedDamaged count what the shared level gave.
	SharedHits, SharedMisses, SharedDamaged atomic.Int64
	// Encoded variants were made.
	Encoded atomic.Int64
}

// Counters returns the cache's counters, to be read only.
func (c *Cache) Counters() *Counters { return &c.counters }

// Size returns how many entries there are and how many bytes they take.
func (c *Cache) Size() (entries int, bytes uint64) {
	return c.entries.EstimatedSize(), c.entries.WeightedSize()
}
