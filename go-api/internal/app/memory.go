package app

import (
	"math"
	"runtime/debug"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/quern-data/quern/go-api/internal/config"
)

// gcPercent lets garbage grow to three times what is live. Exports make garbage fast, a chunk at a time, while little is
// live: with Go's default of 100, collecting took two fifths of the edge's CPU time; with this, eight exports at once
// still fit into 100 MB.
const gcPercent = 300

// memoryBase is what the edge takes beside the front cache before it collects more often.
const memoryBase = 64 << 20

// What a connection takes, about, and how many file handles there must be beside connections.
const (
	connectionBytes = 32 << 10
	otherFiles      = 128
)

// memory is how much the edge may use, in bytes.
type memory struct {
	// cache bounds the front cache.
	cache int64
	// limit is where Go collects more often.
	limit int64
	// connections is how many callers may be connected to a port.
	connections int
}

// planMemory divides what a container gives: available is its limit, MaxInt64 where there is none. A local engine lives
// in the same container and takes 60 % by its own defaults. A cache that the operator has sized stays as it is.
func planMemory(cfg *config.Config, available int64) memory {
	share := available / 10 * 9
	if cfg.Engine == "" {
		share = available / 4
	}
	plan := memory{cache: cfg.CacheBytes}
	if !cfg.CacheSized() {
		plan.cache = min(plan.cache, share/2)
	}
	plan.limit = min(plan.cache+plan.cache/16+memoryBase, share)
	// Both ports together may take a quarter of the memory, and not the last file handles.
	plan.connections = max(int(min(int64(cfg.MaxConnections), share/8/connectionBytes, (fileHandles()-otherFiles)/2)), 1)
	return plan
}

// fileHandles returns how many files and connections this process may have open. Go has raised that as far as it can.
func fileHandles() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(limit.Cur)
}

// available returns the limit of the control groups around this process, version 1 or 2.
func available() int64 {
	limit, err := memlimit.FromCgroup()
	if err != nil || limit > math.MaxInt64 {
		// No limit, no control groups, or no Linux: what the operator has set holds alone.
		return math.MaxInt64
	}
	return int64(limit)
}

// tuneCollector leaves an operator's GOGC and GOMEMLIMIT in force. As the cache fills, the limit keeps garbage from
// growing with it: what is live then is mostly answers, which are cheap to collect around.
func tuneCollector(limit int64) {
	const unset = 100
	if before := debug.SetGCPercent(gcPercent); before != unset {
		debug.SetGCPercent(before)
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(limit)
	}
}
