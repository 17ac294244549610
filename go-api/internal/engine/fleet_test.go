package engine

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/enginetest"
)

// state is a name's addresses: those of the doubles.
func state(doubles ...*enginetest.Engine) resolver.State {
	var addresses []resolver.Address
	for _, double := range doubles {
		addresses = append(addresses, resolver.Address{Addr: double.URL()})
	}
	return resolver.State{Addresses: addresses}
}

// dialAll returns a client of several doubles behind one name, once all of them are called.
func dialAll(t *testing.T, doubles ...*enginetest.Engine) (*Client, *manual.Resolver) {
	t.Helper()
	name := manual.NewBuilderWithScheme("dns")
	name.InitialState(state(doubles...))
	client, err := Dial("dns:///engines:1", grpc.WithResolvers(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	expectCalled(t, client, doubles...)
	return client, name
}

// double answers every statement with its name, or fails.
func double(t *testing.T, name string, failure error) *enginetest.Engine {
	t.Helper()
	d := enginetest.New(t)
	d.OnExecute = func(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		if failure != nil && request.GetSql() != "fine" {
			return failure
		}
		return enginetest.Send(stream, []byte(name))
	}
	return d.Start(t)
}

// expectCalled waits until calls reach each of these doubles.
func expectCalled(t *testing.T, client *Client, doubles ...*enginetest.Engine) {
	t.Helper()
	for _, d := range doubles {
		before := d.Tries()
		for end := time.Now().Add(10 * time.Second); d.Tries() == before; time.Sleep(time.Millisecond) {
			_, _ = ask(t.Context(), client, &enginev1.ExecuteRequest{Sql: "fine"})
			if time.Now().After(end) {
				t.Fatal("an engine that serves is not called")
			}
		}
	}
}

// expectLeftOut waits until none of 20 calls in a row reaches this double, and each is answered.
func expectLeftOut(t *testing.T, client *Client, d *enginetest.Engine) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for before, calls := d.Tries(), 0; calls < 20; calls++ {
		if _, err := ask(t.Context(), client, &enginev1.ExecuteRequest{}); err != nil {
			t.Fatal(err)
		}
		if now := d.Tries(); now != before {
			before, calls = now, 0
		}
		if time.Now().After(end) {
			t.Fatal("the engine is still called")
		}
	}
}

func TestOnlyEnginesThatServeAreCalled(t *testing.T) {
	a, b := double(t, "a", nil), double(t, "b", nil)
	client, _ := dialAll(t, a, b)
	a.Serve(false)
	expectLeftOut(t, client, a)
	if !client.Serving() {
		t.Error("one of two that serves is not enough")
	}
	b.Serve(false)
	for end := time.Now().Add(5 * time.Second); client.Serving() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if client.Serving() {
		t.Error("serving, although no engine does")
	}
	a.Serve(true)
	expectCalled(t, client, a)
}

func TestAnEngineThatFailsIsLeftOut(t *testing.T) {
	a, b := double(t, "a", status.Error(codes.Unavailable, "broken")), double(t, "b", nil)
	client, _ := dialAll(t, a, b)
	before, ejected := a.Tries(), Ejections()
	expectLeftOut(t, client, a)
	if failed := a.Tries() - before; failed != ejectAfter || Ejections() != ejected+1 {
		t.Errorf("%d calls failed before it was left out %d times", failed, Ejections()-ejected)
	}
	b.Kill()
	before = a.Tries()
	for end := time.Now().Add(5 * time.Second); a.Tries() == before && time.Now().Before(end); {
		_, _ = ask(t.Context(), client, &enginev1.ExecuteRequest{})
	}
	if a.Tries() == before {
		t.Error("the last engine is left out")
	}
}

func TestWhatSpeaksOfNoEngine(t *testing.T) {
	for _, failure := range []error{
		enginetest.Fail(codes.Unavailable, reasonSourceUnavailable, "the bucket"),
		enginetest.Fail(codes.InvalidArgument, "SQL_SYNTAX", "the statement"),
		status.Error(codes.DeadlineExceeded, "the time"),
	} {
		a, b := double(t, "a", failure), double(t, "b", nil)
		client, _ := dialAll(t, a, b)
		before := a.Tries()
		for range 100 {
			_, _ = ask(t.Context(), client, &enginev1.ExecuteRequest{})
		}
		if calls := a.Tries() - before; calls < 20 {
			t.Errorf("%v: called %d times of 100", failure, calls)
		}
	}
}

func TestAnEngineThatIsSilentIsLeftOut(t *testing.T) {
	a, b := double(t, "a", nil), double(t, "b", nil)
	client, _ := dialAll(t, a, b)
	a.Hang(true)
	expectLeftOut(t, client, a)
	a.Hang(false)
	expectCalled(t, client, a)
}

func TestAnotherEngineIsAsked(t *testing.T) {
	full := enginetest.Fail(codes.ResourceExhausted, reasonTooManyQueries, "full")
	a, b := double(t, "a", full), double(t, "b", nil)
	client, _ := dialAll(t, a, b)
	for range 10 {
		if body, err := ask(t.Context(), client, &enginev1.ExecuteRequest{}); body != "b" || err != nil {
			t.Fatal(body, err)
		}
	}
	alone := dial(t, a)
	if err := alone.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := a.Tries()
	if _, err := ask(t.Context(), alone, &enginev1.ExecuteRequest{}); status.Code(err) != codes.ResourceExhausted || a.Tries() != before+1 {
		t.Errorf("%v after %d tries", err, a.Tries()-before)
	}
}

// An engine that saw a file change is the one that knows the new snapshot.
func TestAChangedSnapshotIsReadAgainByTheSameEngine(t *testing.T) {
	var doubles []*enginetest.Engine
	for range 3 {
		d := enginetest.New(t)
		changed := true
		d.OnExecute = func(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
			if changed && request.GetSql() != "fine" {
				changed = false
				return enginetest.Fail(codes.Aborted, reasonSnapshotChanged, "changed")
			}
			return enginetest.Send(stream, []byte("x"))
		}
		doubles = append(doubles, d.Start(t))
	}
	client, _ := dialAll(t, doubles...)
	for range 6 {
		if _, err := ask(t.Context(), client, &enginev1.ExecuteRequest{}); err != nil {
			t.Error(err)
		}
	}
}

// Files that change all the time must leave the retries for engines that go.
func TestRetriesForChangesAreNotCounted(t *testing.T) {
	d := double(t, "a", enginetest.Fail(codes.Aborted, reasonSnapshotChanged, "changed"))
	client, _ := dialAll(t, d)
	before := d.Tries()
	if _, err := ask(t.Context(), client, &enginev1.ExecuteRequest{}); status.Code(err) != codes.Aborted {
		t.Error(err)
	}
	if tries := d.Tries() - before; tries != 2 {
		t.Errorf("%d tries", tries)
	}
	if spent := client.retries.tenths.Load(); spent != 0 {
		t.Errorf("%d tenths of a retry were spent", spent)
	}
}

func TestEnginesComeAndGo(t *testing.T) {
	a, b := double(t, "a", nil), double(t, "b", nil)
	client, name := dialAll(t, a)
	name.UpdateState(state(a, b))
	expectCalled(t, client, a, b)
	name.UpdateState(state())
	expectCalled(t, client, a, b)
	name.UpdateState(state(b))
	expectLeftOut(t, client, a)
}

func TestPickAllocatesNothing(t *testing.T) {
	p := &picker{members: []*member{{}, {}, {}}}
	p.members[1].silent.Store(true)
	info := balancer.PickInfo{Ctx: t.Context()}
	if allocations := testing.AllocsPerRun(100, func() { _, _ = p.Pick(info) }); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestRetriesAreBounded(t *testing.T) {
	var b budget
	for range maxRetries {
		if !b.spend() {
			t.Fatal("refused too soon")
		}
	}
	if b.spend() {
		t.Error("unbounded")
	}
	for range 10 {
		b.earn()
	}
	if !b.spend() || b.spend() {
		t.Error("ten calls that succeed earn one retry")
	}
}
