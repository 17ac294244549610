package engine

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/status"
)

const (
	// fleetPolicy names the load balancing policy of this file: any of the engines that serve, by chance, without those
	// that are silent or fail again and again. Turns (round_robin) can fall in step with callers whose requests
	// take turns too; grpc-go's outlier_detection takes a caller's mistake for the engine's failure.
	fleetPolicy = "quern_engines"
	// ejectAfter is how many failures in a row have an engine left out for ejectFor; one more after that does again.
	ejectAfter = 3
	ejectFor   = 5 * time.Second
	// probeEvery is how often an engine among several is asked whether it is there, and probeTimeout how long it may take.
	probeEvery   = 500 * time.Millisecond
	probeTimeout = time.Second
	// resolveEvery is how often the engines' name is resolved. grpc-go itself does only when a connection breaks.
	resolveEvery = 5 * time.Second
)

func init() {
	balancer.Register(fleetBuilder{})
	dns.SetMinResolutionInterval(time.Second)
}

// ejections counts the times that an engine was left out, of all clients of this process.
var ejections atomic.Int64

// Ejections returns how often an engine was left out because it failed or was silent.
func Ejections() int64 { return ejections.Load() }

type fleetBuilder struct{}

// Name implements balancer.Builder.
func (fleetBuilder) Name() string { return fleetPolicy }

// Build implements balancer.Builder.
func (fleetBuilder) Build(cc balancer.ClientConn, options balancer.BuildOptions) balancer.Balancer {
	f := &fleet{ClientConn: cc, closed: make(chan struct{})}
	f.Balancer = balancer.Get(roundrobin.Name).Build(f, options)
	go f.resolve()
	return f
}

// fleet stands between round_robin, which keeps the connections, and the channel.
type fleet struct {
	balancer.Balancer
	balancer.ClientConn

	closed chan struct{}
}

// Close implements balancer.Balancer.
func (f *fleet) Close() {
	close(f.closed)
	f.Balancer.Close()
}

// resolve has the name resolved again and again: a new engine breaks no connection.
func (f *fleet) resolve() {
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.ResolveNow(resolver.ResolveNowOptions{})
		case <-f.closed:
			return
		}
	}
}

// UpdateClientConnState implements balancer.Balancer. A name without addresses, as that of a Service whose pods are all
// unready, changes nothing: engines that are gone show by their connections. Nor is it an error, for which grpc-go would
// wait up to two minutes before it asks again.
func (f *fleet) UpdateClientConnState(state balancer.ClientConnState) error {
	if len(state.ResolverState.Endpoints) == 0 {
		f.ResolverError(errors.New("the name has no addresses"))
		return nil
	}
	return f.Balancer.UpdateClientConnState(state)
}

// NewSubConn implements balancer.ClientConn.
func (f *fleet) NewSubConn(addresses []resolver.Address, options balancer.NewSubConnOptions) (balancer.SubConn, error) {
	conn, err := f.ClientConn.NewSubConn(addresses, options) //nolint:staticcheck // the notice is of its number of addresses
	if err != nil {
		return nil, err
	}
	m := &member{SubConn: conn}
	if len(addresses) > 0 {
		m.address = addresses[0].Addr
	}
	m.done = m.finished
	return m, nil
}

// UpdateState implements balancer.ClientConn.
func (f *fleet) UpdateState(state balancer.State) {
	if state.ConnectivityState == connectivity.Ready {
		state.Picker = newPicker(state.Picker)
	}
	f.ClientConn.UpdateState(state)
}

// picker chooses among the members that serve.
type picker struct{ members []*member }

// newPicker takes the members that serve from round_robin's own picker.
func newPicker(inner balancer.Picker) balancer.Picker {
	p := &picker{}
	for _, child := range endpointsharding.ChildStatesFromPicker(inner) {
		if child.State.ConnectivityState != connectivity.Ready {
			continue
		}
		picked, err := child.State.Picker.Pick(balancer.PickInfo{Ctx: context.Background()})
		if m, ok := picked.SubConn.(*member); err == nil && ok {
			p.members = append(p.members, m)
		}
	}
	if len(p.members) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	for _, m := range p.members {
		m.alone.Store(len(p.members) == 1)
		if len(p.members) > 1 {
			// It ends with the connection.
			m.GetOrBuildProducer(prober{m})
		}
	}
	return p
}

// Pick implements balancer.Picker.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	path := trailOf(info.Ctx)
	m := p.choose(path)
	if path != nil {
		path.last, path.members = m, p.members
	}
	return balancer.PickResult{SubConn: m.SubConn, Done: m.done}, nil
}

// choose returns a member that is not left out, another one than a call went to before where there is one. When all are
// left out, none is.
func (p *picker) choose(path *trail) *member {
	count := len(p.members)
	if count == 1 {
		return p.members[0]
	}
	if path != nil && path.same && path.lastIn(p.members) {
		return path.last
	}
	var before *member
	start := rand.IntN(count) //nolint:gosec // no secret
	for i := range count {
		m := p.members[(start+i)%count]
		switch {
		case m.out():
		case path != nil && path.last == m && !path.same:
			before = m
		default:
			return m
		}
	}
	return cmp.Or(before, p.members[start])
}

// member is one engine, for as long as its address is known.
type member struct {
	balancer.SubConn

	address string
	// done is finished, made once: calls are many.
	done func(balancer.DoneInfo)
	// alone says that no other engine serves: there is no point in leaving this one out.
	alone    atomic.Bool
	failures atomic.Int32
	// until is when it is let in again, in Unix nanoseconds; 0 when it was not left out.
	until  atomic.Int64
	silent atomic.Bool
}

func (m *member) out() bool {
	if m.silent.Load() {
		return true
	}
	until := m.until.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// finished learns from a call's end.
func (m *member) finished(info balancer.DoneInfo) {
	switch verdict(info) {
	case fails:
		if m.failures.Add(1) < ejectAfter || m.alone.Load() {
			return
		}
		now := time.Now()
		if m.until.Swap(now.Add(ejectFor).UnixNano()) < now.UnixNano() {
			ejections.Add(1)
		}
	case works:
		if m.failures.Load() != 0 {
			m.failures.Store(0)
			m.until.Store(0)
		}
	case unknown:
	}
}

// what a call's end says of the engine.
type said int

const (
	works said = iota
	fails
	unknown
)

// verdict judges an engine by a call's end. A call without an error or an answer was never made. Only UNAVAILABLE speaks against it, and not when it is a bucket that does not
// answer. A deadline says nothing: it may have been short, or the statement slow.
func verdict(info balancer.DoneInfo) said {
	switch status.Code(info.Err) {
	case codes.OK:
		if !info.BytesReceived {
			return unknown
		}
		return works
	case codes.Unavailable:
		if reason(info.Err) == reasonSourceUnavailable {
			return works
		}
		return fails
	case codes.Canceled, codes.DeadlineExceeded:
		return unknown
	default:
		return works
	}
}

// prober asks a member whether it is there, for as long as one connection lasts.
type prober struct{ member *member }

// Build implements balancer.ProducerBuilder.
func (p prober) Build(conn any) (balancer.Producer, func()) {
	calls, ok := conn.(grpc.ClientConnInterface)
	if !ok {
		return nil, func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx, healthpb.NewHealthClient(calls)) })
	return nil, func() {
		stop()
		running.Wait()
	}
}

func (p prober) run(ctx context.Context, health healthpb.HealthClient) {
	defer p.member.silent.Store(false)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		within, cancel := context.WithTimeout(ctx, probeTimeout)
		_, err := health.Check(within, &healthpb.HealthCheckRequest{})
		cancel()
		silent := status.Code(err) == codes.DeadlineExceeded
		if was := p.member.silent.Swap(silent); silent && !was {
			ejections.Add(1)
		}
	}
}
