// Package sharedcache is the second level of the front cache in Redis or Valkey. It bounds the time that each of its
// calls takes, and leaves a server alone that does not answer. It knows nothing of what it stores.
package sharedcache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"github.com/sony/gobreaker/v2"
)

const (
	// callLimit bounds one call.
	callLimit = 100 * time.Millisecond
	// setLimit bounds the storing of one value, for which nobody waits.
	setLimit = 2 * time.Second
	// failuresInARow open the breaker, and restTime is how long the server is left alone then.
	failuresInARow = 3
	restTime       = time.Second
	// lease is how long a lock outlives the edge that holds it, renewed three times as often.
	lease = 2 * time.Second
	// keepFor is how long a value that nobody stores again is kept. It has nothing to do with its being right.
	keepFor = 24 * time.Hour
	// writesAtOnce bounds the values that are on their way; one more is not stored.
	writesAtOnce = 32
)

// Redis implements cache.Shared.
type Redis struct {
	option  rueidis.ClientOption
	logger  *slog.Logger
	breaker *gobreaker.CircuitBreaker[rueidis.RedisResult]
	client  atomic.Pointer[rueidis.Client]
	writes  chan struct{}
	stop    context.CancelFunc
	done    sync.WaitGroup
	// Failures counts calls that failed or were not made.
	failures atomic.Int64
	dropped  atomic.Int64
}

// errAway says that there is no connection, or that the server is left alone.
var errAway = errors.New("the shared cache is not reachable")

// Open returns the level at a redis:// or rediss:// URL. It connects in the background, as often as it takes.
func Open(url string, logger *slog.Logger) (*Redis, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		// The URL may hold a password and is not repeated.
		return nil, errors.New("--cache-redis is no redis://[user:password@]host:port[/db] URL")
	}
	option.DisableCache = true
	option.DisableRetry = true
	option.Dialer.Timeout = time.Second
	option.ConnWriteTimeout = setLimit
	ctx, stop := context.WithCancel(context.Background())
	r := &Redis{option: option, logger: logger, writes: make(chan struct{}, writesAtOnce), stop: stop}
	r.breaker = gobreaker.NewCircuitBreaker[rueidis.RedisResult](gobreaker.Settings{
		Name: "redis", MaxRequests: 1, Timeout: restTime,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= failuresInARow },
		IsSuccessful: func(err error) bool {
			// An answer is an answer, whatever it says; one who went away says nothing about the server.
			return err == nil || rueidis.IsRedisNil(err) || errors.Is(err, context.Canceled)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			logger.Warn("shared cache", "from", from.String(), "to", to.String())
		},
	})
	r.done.Go(func() { r.connect(ctx) })
	return r, nil
}

func (r *Redis) connect(ctx context.Context) {
	for said := false; ctx.Err() == nil; {
		client, err := rueidis.NewClient(r.option)
		if err == nil {
			r.client.Store(&client)
			r.logger.Info("shared cache connected")
			return
		}
		if !said {
			r.logger.Warn("shared cache can't be reached; going on without it", "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(restTime):
		}
	}
}

// Close ends the connection.
func (r *Redis) Close() {
	r.stop()
	r.done.Wait()
	if client := r.client.Load(); client != nil {
		(*client).Close()
	}
}

// Failures returns how many calls failed or were not made, and Dropped how many values were not stored.
func (r *Redis) Failures() int64 { return r.failures.Load() }

// Dropped returns how many values were not stored because too many were on their way.
func (r *Redis) Dropped() int64 { return r.dropped.Load() }

// Up says whether the server is being asked.
func (r *Redis) Up() bool { return r.client.Load() != nil && r.breaker.State() != gobreaker.StateOpen }

// call makes one bounded call.
func (r *Redis) call(ctx context.Context, limit time.Duration, command func(rueidis.Client) rueidis.Completed) (rueidis.RedisResult, error) {
	client := r.client.Load()
	if client == nil {
		r.failures.Add(1)
		return rueidis.RedisResult{}, errAway
	}
	result, err := r.breaker.Execute(func() (rueidis.RedisResult, error) {
		bounded, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		result := (*client).Do(bounded, command(*client))
		return result, result.Error()
	})
	if err != nil && !rueidis.IsRedisNil(err) {
		r.failures.Add(1)
	}
	return result, err
}

// Get implements cache.Shared. A value over the limit is not read whole.
func (r *Redis) Get(ctx context.Context, name string, limit int) ([]byte, bool) {
	result, err := r.call(ctx, callLimit, func(c rueidis.Client) rueidis.Completed {
		return c.B().Getrange().Key(name).Start(0).End(int64(limit)).Build()
	})
	if err != nil {
		return nil, false
	}
	value, err := result.AsBytes()
	return value, err == nil && len(value) > 0 && len(value) <= limit
}

// Set implements cache.Shared.
func (r *Redis) Set(ctx context.Context, name string, value []byte) {
	select {
	case r.writes <- struct{}{}:
		defer func() { <-r.writes }()
	default:
		r.dropped.Add(1)
		return
	}
	// A failure is counted; the value is made again when it is missed.
	_, _ = r.call(ctx, setLimit, func(c rueidis.Client) rueidis.Completed {
		return c.B().Set().Key(name).Value(rueidis.BinaryString(value)).ExSeconds(int64(keepFor / time.Second)).Build()
	})
}

// unlock deletes a lock, and extend renews it, only while it is the caller's.
var (
	unlock = rueidis.NewLuaScript(`if redis.call("GET",KEYS[1]) == ARGV[1] then return redis.call("DEL",KEYS[1]) end return 0`)
	extend = rueidis.NewLuaScript(`if redis.call("GET",KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE",KEYS[1],ARGV[2]) end return 0`)
)

// Lock implements cache.Shared.
func (r *Redis) Lock(ctx context.Context, name string) (func(), bool) {
	var random [16]byte
	// crypto/rand.Read never fails: it ends the process when the system has no randomness.
	_, _ = rand.Read(random[:])
	owner := hex.EncodeToString(random[:])
	_, err := r.call(ctx, callLimit, func(c rueidis.Client) rueidis.Completed {
		return c.B().Set().Key(name).Value(owner).Nx().PxMilliseconds(lease.Milliseconds()).Build()
	})
	if rueidis.IsRedisNil(err) {
		return nil, false
	}
	if err != nil {
		return func() {}, true
	}
	held, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() { r.renew(held, name, owner) })
	return func() {
		stop()
		renewing.Wait()
		r.script(context.WithoutCancel(ctx), unlock, name, owner)
	}, true
}

// renew keeps a lock while its holder lives and works.
func (r *Redis) renew(ctx context.Context, name, owner string) {
	ticker := time.NewTicker(lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.script(ctx, extend, name, owner, fmt.Sprint(lease.Milliseconds()))
		}
	}
}

// script runs a script whose answer does not matter: a lock that was not renewed or deleted runs out.
func (r *Redis) script(ctx context.Context, script *rueidis.Lua, name string, arguments ...string) {
	client := r.client.Load()
	if client == nil {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := script.Exec(bounded, *client, []string{name}, arguments).Error(); err != nil && ctx.Err() == nil {
		r.failures.Add(1)
	}
}

// Held implements cache.Shared. Where nobody can tell, the lock is taken for free.
func (r *Redis) Held(ctx context.Context, name string) bool {
	result, err := r.call(ctx, callLimit, func(c rueidis.Client) rueidis.Completed { return c.B().Exists().Key(name).Build() })
	if err != nil {
		return false
	}
	count, err := result.AsInt64()
	return err == nil && count > 0
}
