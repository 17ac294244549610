package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	// largeSQL has 800,000 rows, 14.5 MB of JSON.
	largeSQL = "SELECT a.n AS a, b.n AS b FROM numbers a JOIN numbers b ON b.n <= 200"
	// lateSQL fails when more than 512 KiB of its answer have left.
	lateSQL = "SELECT a, b, 1 / (a - 3999) AS c FROM (" + largeSQL + ")"
)

// reading is what came of one result, and how.
type reading struct {
	grpc, channel bytes.Buffer
	receipt       *enginev1.Receipt
	offers        int
	err           error
}

// digest is of the bytes that the receipt covers, in their order: a result goes over to its channel once and comes back for its end.
func (r *reading) digest() [sha256.Size]byte {
	hash := sha256.New()
	all := io.MultiReader(&r.grpc, &r.channel)
	_, _ = io.CopyN(hash, all, int64(r.receipt.GetBytes())) //nolint:gosec // some megabytes
	return [sha256.Size]byte(hash.Sum(nil))
}

// read executes on an engine as NDJSON. claim is given the ticket of an offer and returns the channel, or nil.
func read(ctx context.Context, client enginev1.QueryServiceClient, sql string, claim func(ticket []byte) net.Conn) *reading {
	r := &reading{}
	var channel net.Conn
	var stream grpc.ServerStreamingClient[enginev1.ExecuteResponse]
	stream, r.err = client.Execute(ctx, &enginev1.ExecuteRequest{Sql: sql, Format: enginev1.Format_FORMAT_NDJSON})
	for r.err == nil {
		var part *enginev1.ExecuteResponse
		if part, r.err = stream.Recv(); r.err != nil {
			break
		}
		r.grpc.Write(part.GetChunk())
		if offer := part.GetOffer(); offer != nil {
			r.offers++
			channel = claim(offer.GetTicket())
		}
		if part.GetStart() != nil {
			_, r.err = r.channel.ReadFrom(channel)
			_ = channel.Close()
		}
		if part.GetTrailer() != nil {
			r.receipt = part.GetTrailer()
		}
	}
	if errors.Is(r.err, io.EOF) {
		r.err = nil
	}
	return r
}

func knock(t *testing.T, socket string, ticket []byte) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = conn.Write(ticket)
	must(t, err)
	return conn
}

// turnedAway says that a connection was ended without a byte.
func turnedAway(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a ticket that is not good was taken: %d bytes, %v", n, err)
	}
}

// dialLocal starts an engine and returns a connection to it, and the path of its data channels' socket.
func dialLocal(t *testing.T) (conn *grpc.ClientConn, data string) {
	t.Helper()
	engine := harness.StartEngine(t, numbersDir(t))
	// The edge's windows: much is on its way when an offer arrives.
	conn, err := grpc.NewClient(engine.URL, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(512<<10), grpc.WithInitialConnWindowSize(4<<20))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, strings.TrimPrefix(engine.URL, "unix://") + ".data"
}

func TestDataChannel(t *testing.T) {
	conn, data := dialLocal(t)
	client := enginev1.NewQueryServiceClient(conn)

	unclaimed := read(t.Context(), client, largeSQL, func([]byte) net.Conn { return nil })
	if unclaimed.err != nil || unclaimed.offers != 1 || unclaimed.channel.Len() > 0 {
		t.Fatalf("without a claim: %d offers, %v", unclaimed.offers, unclaimed.err)
	}
	size := unclaimed.grpc.Len()
	if want := unclaimed.receipt; unclaimed.digest() != [32]byte(want.GetSha256()) || int(want.GetBytes()) != size || want.GetRows() != 800_000 { //nolint:gosec // some megabytes
		t.Errorf("without a claim the receipt is for another result: %v for %d bytes", want, size)
	}

	claimed := read(t.Context(), client, largeSQL, func(ticket []byte) net.Conn { return knock(t, data, ticket) })
	if claimed.err != nil || claimed.channel.Len() < size/2 || claimed.grpc.Len()+claimed.channel.Len() != size {
		t.Errorf("claimed: %d bytes by gRPC, %d by the channel, of %d: %v", claimed.grpc.Len(), claimed.channel.Len(), size, claimed.err)
	}
	if claimed.digest() != [32]byte(claimed.receipt.GetSha256()) {
		t.Error("claimed: the receipt is for another result")
	}

	// Those that end about when they are claimed end well, whichever comes first.
	for most := 6; most < 30; most++ {
		sql := fmt.Sprintf("SELECT a.n AS a, b.n AS b FROM numbers a JOIN numbers b ON b.n <= %d", most)
		short := read(t.Context(), client, sql, func(ticket []byte) net.Conn { return knock(t, data, ticket) })
		if got := short.receipt.GetRows(); short.err != nil || got != uint64(4000*most) || short.digest() != [32]byte(short.receipt.GetSha256()) { //nolint:gosec // few
			t.Errorf("%d bytes by gRPC, %d by the channel, %d rows: %v", short.grpc.Len(), short.channel.Len(), got, short.err)
		}
	}

	invalid := read(t.Context(), client, largeSQL, func([]byte) net.Conn {
		ticket := make([]byte, 16)
		_, _ = rand.Read(ticket)
		turnedAway(t, knock(t, data, ticket))
		turnedAway(t, knock(t, data, nil))
		return nil
	})
	if invalid.err != nil || invalid.grpc.Len() != size {
		t.Errorf("after a claim that was refused: %d bytes of %d, %v", invalid.grpc.Len(), size, invalid.err)
	}

	var ticket []byte
	small := read(t.Context(), client, "SELECT n FROM numbers", func(offered []byte) net.Conn { ticket = offered; return nil })
	if small.err != nil || small.offers != 0 {
		t.Errorf("a small result: %d offers, %v", small.offers, small.err)
	}
	late := read(t.Context(), client, lateSQL, func(offered []byte) net.Conn { ticket = offered; return knock(t, data, offered) })
	if status.Code(late.err) != codes.InvalidArgument || late.receipt != nil || late.channel.Len() == 0 {
		t.Errorf("a failure on the way: %v, receipt %v, %d bytes by the channel", late.err, late.receipt, late.channel.Len())
	}
	turnedAway(t, knock(t, data, ticket))
}

// TestDataChannelUnread takes a channel and reads nothing of it: the query waits, and ends with its call.
func TestDataChannelUnread(t *testing.T) {
	conn, data := dialLocal(t)
	running := func() float64 {
		metrics, err := enginev1.NewMetricsServiceClient(conn).GetMetrics(t.Context(), &enginev1.GetMetricsRequest{})
		must(t, err)
		for _, metric := range metrics.GetMetrics() {
			if metric.GetName() == "quern_engine_queries_running" {
				return metric.GetValue()
			}
		}
		t.Fatal("the engine does not say how many queries run")
		return 0
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := enginev1.NewQueryServiceClient(conn).Execute(ctx, &enginev1.ExecuteRequest{Sql: largeSQL, Format: enginev1.Format_FORMAT_CSV})
	must(t, err)
	var channel net.Conn
	for started := false; !started; {
		part, err := stream.Recv()
		must(t, err)
		if offer := part.GetOffer(); offer != nil {
			channel = knock(t, data, offer.GetTicket())
		}
		started = part.GetStart() != nil
	}
	if running() != 1 {
		t.Errorf("%v queries run, want the one that waits", running())
	}
	cancel()
	harness.Eventually(t, 5*time.Second, "the query has ended with its call", func() bool { return running() == 0 })
	if n, err := io.Copy(io.Discard, channel); err != nil || n > 1<<20 {
		t.Errorf("the channel had %d bytes: %v", n, err)
	}
}

// tap stands before an engine's sockets and counts what comes from each.
type tap struct {
	url           string
	grpc, channel atomic.Int64
	// cutting ends data channels after some bytes.
	cutting atomic.Bool
}

func startTap(t *testing.T, engine *harness.Engine) *tap {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "tap.sock")
	behind := strings.TrimPrefix(engine.URL, "unix://")
	p := &tap{url: "unix://" + socket}
	p.listen(t, socket, behind, &p.grpc)
	p.listen(t, socket+".data", behind+".data", &p.channel)
	return p
}

func (p *tap) listen(t *testing.T, socket, behind string, count *atomic.Int64) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.DialTimeout("unix", behind, time.Second)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(to, from)
				_, _ = to.Close(), from.Close()
			}()
			go func() {
				n, err := io.CopyN(from, to, 4<<10)
				for count.Add(n); err == nil && (count != &p.channel || !p.cutting.Load()); count.Add(n) {
					n, err = io.CopyN(from, to, 4<<10)
				}
				_, _ = to.Close(), from.Close()
			}()
		}
	}()
}

// TestLargeResultsPassBesideGRPC puts a tap between an edge and its engine: nearly all bytes of a large result come by the
// data channel, and one that is cut is no whole result. The first asker of each shares it with whoever comes; once it is known
// to be too large to keep, it is each asker's own.
func TestLargeResultsPassBesideGRPC(t *testing.T) {
	engine := harness.StartEngine(t, numbersDir(t))
	between := startTap(t, engine)
	server := harness.StartEdge(t, between.url)
	straight := harness.StartEdge(t, harness.StartLink(t, engine).URL)
	for _, format := range []string{"json", "csv", "arrow", "parquet"} {
		want, err := straight.Query(t.Context(), largeSQL, format)
		must(t, err)
		for _, whose := range []string{"shared", "own"} {
			grpcBefore, channelBefore := between.grpc.Load(), between.channel.Load()
			got, err := server.Query(t.Context(), largeSQL, format)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes differ from the %d that came by gRPC", format, whose, len(got), len(want))
			}
			byGRPC, byChannel := between.grpc.Load()-grpcBefore, between.channel.Load()-channelBefore
			if len(want) > 8<<20 && (byGRPC > 2<<20 || byChannel < int64(len(want))-(3<<20)) {
				t.Errorf("%s, %s: %d bytes came by gRPC and %d by the channel, of %d", format, whose, byGRPC, byChannel, len(want))
			}
		}
	}

	between.cutting.Store(true)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		server.URL+"/v1/query?format=csv&sql="+url.QueryEscape(largeSQL+" WHERE a.n > 0"), nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	if n, err := io.Copy(io.Discard, answer.Body); answer.StatusCode != http.StatusOK || err == nil {
		t.Errorf("a result whose channel was cut: %s, %d bytes, %v", answer.Status, n, err)
	}
}
