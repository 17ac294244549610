package service

import (
	"math"
	"strconv"
	"strings"

	"github.com/pquerna/cachecontrol/cacheobject"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quern-data/quern/go-api/internal/cache"
)

// policyOf reads request directives. What can't be read asks for nothing (RFC 9111, 4.2.1: treat as absent).
func policyOf(cacheControl string) cache.Policy {
	if cacheControl == "" {
		return cache.Use
	}
	directives, err := cacheobject.ParseRequestCacheControl(cacheControl)
	switch {
	case err != nil:
		return cache.Use
	case directives.NoStore:
		return cache.Bypass
	case directives.OnlyIfCached:
		return cache.OnlyStored
	case directives.NoCache || directives.MaxAge == 0:
		return cache.Revalidate
	default:
		return cache.Use
	}
}

// The names of the levels in Cache-Status.
const (
	cacheName  = `"quern-edge"`
	sharedName = `"quern-redis"`
)

// CacheStatus says how an answer came about, as RFC 9211 writes it.
func CacheStatus(status cache.Status) string {
	if status.Overdue > 0 {
		return cacheName + "; hit; ttl=-" + strconv.FormatInt(int64(math.Ceil(status.Overdue.Seconds())), 10) + "; detail=stale-if-error"
	}
	if status.Forward == cache.NotForwarded {
		return cacheName + "; hit"
	}
	var line strings.Builder
	if status.Shared {
		// The level nearest to the source stands first (RFC 9211, 2).
		line.WriteString(sharedName + "; hit, ")
	}
	line.WriteString(cacheName + "; fwd=" + string(status.Forward))
	if status.Confirmed {
		line.WriteString("; fwd-status=304")
	}
	if status.Stored {
		line.WriteString("; stored")
	}
	if status.Collapsed {
		line.WriteString("; collapsed")
	}
	return line.String()
}

// Lasting says whether a failure lies in the request itself, so that all who ask the same may share it.
func Lasting(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition:
		return true
	default:
		return false
	}
}
