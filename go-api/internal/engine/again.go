package engine

import (
	"context"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// mostTries bounds how often a call is made: one retry, and one more for a call whose second engine goes too, as when engines
// are replaced one after the other. A changed file is worth one more.
const mostTries = 3

// again makes a call, and makes it again where that can succeed: on another engine, if there is one. Whatever call returns
// with an error, nobody must have seen anything of.
func again[T any](ctx context.Context, c *Client, call func(context.Context) (T, error)) (T, error) {
	var none T
	path := &trail{}
	ctx = context.WithValue(ctx, trailKey{}, path)
	for tries, changed := 0, false; ; {
		if err := c.reach(ctx); err != nil {
			return none, err
		}
		answer, err := call(ctx)
		if err == nil {
			c.retries.earn()
			return answer, nil
		}
		if ctx.Err() != nil || !retryable(err, path) {
			return none, err
		}
		if path.same {
			// A change is worth one try, however many engines went before and go after.
			if changed {
				return none, err
			}
			changed = true
		} else if tries++; tries == mostTries || tries > 1 && status.Code(err) != codes.Unavailable || !c.retries.spend() {
			// Only an engine that went is worth a third try: what else failed twice will again.
			return none, err
		}
		telemetry.Logger(ctx).InfoContext(ctx, "retrying a call of which nothing was sent", "error", err)
		if status.Code(err) == codes.Unavailable && len(path.members) <= 1 {
			c.settle(ctx)
		}
	}
}

// settle lets the transport notice that the connection of a call that failed is dead, before its state is asked.
func (c *Client) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	c.conn.WaitForStateChange(ctx, connectivity.Ready)
}

// retryable says whether another try can succeed, and notes on the call's path where.
func retryable(err error, path *trail) bool {
	st := status.Convert(err)
	why := apierr.Info(st).GetReason()
	// The engine that has seen the change knows the new snapshot.
	path.same = st.Code() == codes.Aborted
	switch st.Code() {
	case codes.Unavailable:
		// The edge's own verdict comes after the wait, and the engine has asked a bucket again and again; waiting twice
		// would double it.
		return why != string(apierr.EngineUnavailable) && why != reasonSourceUnavailable
	case codes.ResourceExhausted:
		return why == reasonTooManyQueries && len(path.members) > 1
	case codes.Aborted:
		return why == reasonSnapshotChanged
	default:
		return false
	}
}

// trail is where a call went before, for the next try.
type trail struct {
	last *member
	// members are the engines that served then.
	members []*member
	// same asks for the same engine again.
	same bool
}

type trailKey struct{}

// trailOf returns a call's trail, or nil.
func trailOf(ctx context.Context) *trail {
	path, _ := ctx.Value(trailKey{}).(*trail)
	return path
}

func (t *trail) lastIn(members []*member) bool {
	return slices.Contains(members, t.last) && !t.last.out()
}

// budget bounds retries in all, so that engines in trouble are not asked twice as much: so many at once, and then one for
// ten calls that succeed. Retries for files that have changed cost nothing: no engine is in trouble, and each call has one.
type budget struct {
	// tenths of retries that were not earned back.
	tenths atomic.Int64
}

const maxRetries = 1000

func (b *budget) spend() bool {
	if b.tenths.Add(10) <= 10*maxRetries {
		return true
	}
	b.tenths.Add(-10)
	return false
}

func (b *budget) earn() {
	if b.tenths.Load() > 0 {
		b.tenths.Add(-1)
	}
}
