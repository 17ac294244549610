package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	// crowd is how many connections come, as many as there may be by default.
	crowd = 10_000
	// connectionKiB is what one of them may take of the edge.
	connectionKiB = 100
	// patience is how long those wait who want no harm; attackLimit bounds the rest.
	patience    = 10 * time.Second
	attackLimit = time.Minute
)

// TestCrowds comes with connections and requests that want no answer. Each attack must end in a refusal or be bounded, while
// others get theirs.
func TestCrowds(t *testing.T) {
	server := harness.Start(t, numbersDir(t), "--log-level", "warn")
	engine := server.Engine(t)
	others := startOthers(t, server)
	http, grpc := strings.TrimPrefix(server.URL, "http://"), server.GRPC
	for _, attack := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"idle connections to HTTP", func(t *testing.T) { standIdle(t, server, http) }},
		{"idle connections to gRPC", func(t *testing.T) { standIdle(t, server, grpc) }},
		{"slow headers", func(t *testing.T) { slowHeaders(t, http) }},
		{"slow bodies", func(t *testing.T) { slowBodies(t, http) }},
		{"long headers", func(t *testing.T) { longHeaders(t, http) }},
		{"long headers in HTTP/2", func(t *testing.T) { longHeaders2(t, http, "GET", "/healthz") }},
		{"long headers to gRPC", func(t *testing.T) { longHeaders2(t, grpc, "POST", listTables) }},
		{"a header that grows as it is decoded", func(t *testing.T) { growingHeaders(t, http, "GET", "/healthz") }},
		{"a header that grows as it is decoded, to gRPC", func(t *testing.T) { growingHeaders(t, grpc, "POST", listTables) }},
		{"a header without end", func(t *testing.T) { endlessHeader(t, http) }},
		{"a header without end, to gRPC", func(t *testing.T) { endlessHeader(t, grpc) }},
		{"requests that are reset", func(t *testing.T) { resetRapidly(t, http, "GET", "/v1/query?sql="+slowSQL) }},
		{"calls that are reset", func(t *testing.T) { resetRapidly(t, grpc, "POST", listTables) }},
		{"many streams", func(t *testing.T) { manyStreams(t, http, "/v1/query?sql="+slowSQL) }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			before, _ := harness.ResidentMiB(t, server.Pid())
			served := others.served.Load()
			attack.run(t)
			harness.Eventually(t, patience, "others are served", func() bool { return others.served.Load() > served })
			after, peak := harness.ResidentMiB(t, server.Pid())
			t.Logf("the edge held %d MiB before, %d MiB after, %d MiB at most", before, after, peak)
			// Ten thousand connections and the edge itself; nothing else comes near.
			if peak > crowd*connectionKiB/1024+200 {
				t.Errorf("the edge held %d MiB", peak)
			}
		})
	}
	others.end(t)
	if now := server.Engine(t); now.Pid != engine.Pid {
		t.Errorf("the engine was restarted: process %d became %d", engine.Pid, now.Pid)
	}
}

const (
	listTables = "/quern.v1.TableService/ListTables"
	slowSQL    = "SELECT+count(*)+FROM+numbers+a,+numbers+b,+numbers+c+WHERE+a.n+b.n+c.n=7"
)

// others ask over new connections, each within its deadline.
type others struct {
	served, failed atomic.Int64
	stop           context.CancelFunc
	done           sync.WaitGroup
	once           sync.Once
	first          error
}

func startOthers(t *testing.T, server *harness.Server) *others {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	o := &others{stop: stop}
	t.Cleanup(stop)
	ask := func(one func(context.Context) error) {
		for ctx.Err() == nil {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			if err := one(limited); err != nil {
				o.failed.Add(1)
				o.once.Do(func() { o.first = err })
			} else {
				o.served.Add(1)
			}
			cancel()
			time.Sleep(20 * time.Millisecond)
		}
	}
	o.done.Go(func() { ask(func(ctx context.Context) error { return askHTTP(ctx, server.URL) }) })
	o.done.Go(func() { ask(func(ctx context.Context) error { return askGRPC(ctx, server.GRPC) }) })
	return o
}

func (o *others) end(t *testing.T) {
	t.Helper()
	o.stop()
	o.done.Wait()
	t.Logf("%d others were served, %d were not", o.served.Load(), o.failed.Load())
	if o.failed.Load() > 0 {
		t.Errorf("%d others were not served, the first: %v", o.failed.Load(), o.first)
	}
}

func askHTTP(ctx context.Context, url string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/query?format=csv&sql=SELECT+count(*)+AS+n+FROM+numbers", http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && string(body) != "n\r\n4000\r\n" {
		err = fmt.Errorf("%s: %q", response.Status, body)
	}
	return err
}

func askGRPC(ctx context.Context, address string) error {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = quernv1.NewTableServiceClient(conn).GetTable(ctx, &quernv1.GetTableRequest{Table: "numbers"}, grpc.WaitForReady(true))
	return err
}

// dial connects from one of several addresses, so that ports last.
func dial(t *testing.T, number int, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+number%8))}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("connection %d: %v", number, err)
	}
	must(t, conn.SetDeadline(time.Now().Add(attackLimit)))
	return conn
}

// standIdle fills a port with connections that have spoken once, where it is HTTP, and say nothing more.
func standIdle(t *testing.T, server *harness.Server, address string) {
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur < crowd+1000 {
		t.Fatalf("%d connections need as many file handles, and there are %d: raise `ulimit -Hn`", crowd, limit.Cur)
	}
	before, _ := harness.ResidentMiB(t, server.Pid())
	conns := make([]net.Conn, 0, crowd)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for number := range crowd {
		conn := dial(t, number, address)
		conns = append(conns, conn)
		if strings.HasSuffix(server.URL, address) {
			// One that was displaced meanwhile is no failure.
			_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		} else {
			_, _ = io.WriteString(conn, http2.ClientPreface)
			_ = http2.NewFramer(conn, conn).WriteSettings()
		}
	}
	// Those who come now find it full.
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := askHTTP(ctx, server.URL); err != nil {
			t.Errorf("beside %d idle connections: %v", crowd, err)
		}
		cancel()
	}
	after, _ := harness.ResidentMiB(t, server.Pid())
	t.Logf("%d connections take %d KiB each", crowd, (after-before)*1024/crowd)
	if after-before > crowd*connectionKiB/1024 {
		t.Errorf("%d idle connections took %d MiB", crowd, after-before)
	}
}

// awaitClosed reads until the other side hangs up, and returns what it said.
func awaitClosed(t *testing.T, conn net.Conn, limit time.Duration) string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(limit)))
	said, err := io.ReadAll(conn)
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("the connection was not closed within %s", limit)
	}
	return string(said)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// slowly sends a byte a second over some connections until they are closed, which they must be within the limit.
func slowly(t *testing.T, address, start string, limit time.Duration) []string {
	t.Helper()
	const many = 200
	said := make([]string, many)
	var done sync.WaitGroup
	for number := range many {
		conn := dial(t, number, address)
		done.Go(func() {
			defer func() { _ = conn.Close() }()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				said[number] = awaitClosed(t, conn, limit)
			}()
			_, err := io.WriteString(conn, start)
			for err == nil {
				select {
				case <-closed:
					return
				case <-time.After(time.Second):
					_, err = io.WriteString(conn, "x")
				}
			}
			<-closed
		})
	}
	done.Wait()
	return said
}

func slowHeaders(t *testing.T, address string) {
	slowly(t, address, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", 20*time.Second)
}

// slowBodies sends bodies that are read, and those that nobody asked for.
func slowBodies(t *testing.T, address string) {
	const rest = " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
	var done sync.WaitGroup
	for start, want := range map[string]string{"POST /v1/query": "BODY_INVALID", "POST /nowhere": "ROUTE_UNKNOWN", "GET /v1/tables": ""} {
		done.Go(func() {
			for _, said := range slowly(t, address, start+rest, 45*time.Second) {
				// What is answered after the whole body was waited for may never leave.
				if said != "" && !strings.Contains(said, want) {
					t.Errorf("%s: want %s, got %.300q", start, want, said)
					return
				}
			}
		})
	}
	done.Wait()
}

func longHeaders(t *testing.T, address string) {
	for _, request := range []string{
		"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Many: x\r\n", 100_000) + "\r\n",
		"GET /healthz?" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn := dial(t, 0, address)
		go func() { _, _ = io.WriteString(conn, request) }()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		// A reset may overtake the answer.
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("want 431, got %s", response.Status)
			}
		}
		_ = conn.Close()
	}
}

// frames is a connection of HTTP/2 without a client's manners.
type frames struct {
	*http2.Framer
	conn    net.Conn
	block   bytes.Buffer
	encoder *hpack.Encoder
	method  string
	path    string
}

func openFrames(t *testing.T, address, method, path string) *frames {
	t.Helper()
	conn := dial(t, 0, address)
	t.Cleanup(func() { _ = conn.Close() })
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	f := &frames{Framer: http2.NewFramer(conn, conn), conn: conn, method: method, path: path}
	f.encoder = hpack.NewEncoder(&f.block)
	must(t, f.WriteSettings())
	return f
}

// header encodes a request with more fields.
func (f *frames) header(more ...hpack.HeaderField) []byte {
	f.block.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: f.method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: f.path},
	}
	if f.method == http.MethodPost {
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: "application/grpc"}, hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	for _, field := range append(fields, more...) {
		// The buffer does not fail.
		_ = f.encoder.WriteField(field)
	}
	return f.block.Bytes()
}

// send sends a header in as many frames as it takes.
func (f *frames) send(stream uint32, block []byte) error {
	const frame = 16 << 10
	part := block[:min(len(block), frame)]
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true, EndHeaders: len(part) == len(block)})
	for rest := block[len(part):]; err == nil && len(rest) > 0; rest = rest[len(part):] {
		part = rest[:min(len(rest), frame)]
		err = f.WriteContinuation(stream, len(part) == len(rest), part)
	}
	return err
}

// answer is what came back on a connection: statuses and error codes by stream, and the code it was closed with.
type answer struct {
	status map[uint32]string
	reset  map[uint32]http2.ErrCode
	closed bool
	goAway http2.ErrCode
}

// read reads until the connection is closed, the streams are answered, or time is up. It writes nothing, no acknowledgement
// either: another goroutine may be writing.
func (f *frames) read(streams int, limit time.Duration) answer {
	got := answer{status: map[uint32]string{}, reset: map[uint32]http2.ErrCode{}}
	decoder := hpack.NewDecoder(4096, nil)
	_ = f.conn.SetReadDeadline(time.Now().Add(limit))
	for len(got.status)+len(got.reset) < streams {
		frame, err := f.ReadFrame()
		if err != nil {
			got.closed = !isTimeout(err)
			return got
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			fields, _ := decoder.DecodeFull(frame.HeaderBlockFragment())
			for _, field := range fields {
				if field.Name == ":status" || field.Name == "grpc-status" {
					got.status[frame.StreamID] = field.Value
				}
			}
		case *http2.RSTStreamFrame:
			got.reset[frame.StreamID] = frame.ErrCode
		case *http2.GoAwayFrame:
			got.goAway = frame.ErrCode
		}
	}
	return got
}

// refused says whether a stream got no more than a refusal.
func (a answer) refused(stream uint32) bool {
	_, reset := a.reset[stream]
	status := a.status[stream]
	return a.closed || reset || status == "431" || status == "400" || status != "" && status != "200" && len(status) < 3 && status != "0"
}

func longHeaders2(t *testing.T, address, method, path string) {
	f := openFrames(t, address, method, path)
	block := bytes.Clone(f.header(hpack.HeaderField{Name: "x-long", Value: strings.Repeat("~", 1<<20), Sensitive: true}))
	go func() { _ = f.send(1, block) }()
	if got := f.read(1, patience); !got.refused(1) {
		t.Errorf("a header of 1 MiB: %+v", got)
	}
}

// growingHeaders names one long field of the compression's table again and again: 16 KiB a frame become 60 MiB.
func growingHeaders(t *testing.T, address, method, path string) {
	f := openFrames(t, address, method, path)
	field := hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 3800)}
	block := bytes.Clone(f.header(append([]hpack.HeaderField{field}, repeated(field, 100_000)...)...))
	t.Logf("%d bytes for %d", len(block), 100_000*len(field.Value))
	go func() { _ = f.send(1, block) }()
	if got := f.read(1, patience); !got.refused(1) {
		t.Errorf("a header of %d MiB: %+v", 100_000*len(field.Value)>>20, got)
	}
}

func repeated(field hpack.HeaderField, times int) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, times)
	for i := range fields {
		fields[i] = field
	}
	return fields
}

// endlessHeader goes on with a header until the connection is closed.
func endlessHeader(t *testing.T, address string) {
	f := openFrames(t, address, http.MethodGet, "/healthz")
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bytes.Clone(f.header()), EndStream: true})
	sent := 0
	part := bytes.Clone(f.header(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("~", 10_000), Sensitive: true}))
	for err == nil && sent < 1<<30 {
		err = f.WriteContinuation(1, false, part)
		sent += len(part)
	}
	t.Logf("%d KiB were taken, then: %v", sent>>10, err)
	if err == nil || isTimeout(err) {
		t.Errorf("a header of %d MiB was taken (%v)", sent>>20, err)
	}
}

// resetRapidly opens streams and resets each at once (CVE-2023-44487).
func resetRapidly(t *testing.T, address, method, path string) {
	var done sync.WaitGroup
	var sent atomic.Int64
	for range 8 {
		f := openFrames(t, address, method, path)
		go f.read(1<<30, attackLimit)
		done.Go(func() {
			for stream := uint32(1); stream < 20_000; stream += 2 {
				if f.send(stream, f.header()) != nil || f.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
					return
				}
				sent.Add(1)
			}
		})
	}
	done.Wait()
	t.Logf("%d streams were opened and reset", sent.Load())
}

// manyStreams opens more streams than a connection may have: the rest is refused.
func manyStreams(t *testing.T, address, path string) {
	const most, more = 100, 400
	f := openFrames(t, address, http.MethodGet, path)
	go func() {
		for number := range uint32(more) {
			if f.send(2*number+1, f.header()) != nil {
				return
			}
		}
	}()
	got := f.read(more-most, patience)
	// Some of those that were let in may have been answered meanwhile.
	if !got.closed && len(got.reset) < (more-most)/2 {
		t.Errorf("of %d streams %d were refused; closed: %v", more, len(got.reset), got.closed)
	}
	t.Logf("%d answered, %d refused, closed: %v, %s", len(got.status), len(got.reset), got.closed, got.goAway)
}
