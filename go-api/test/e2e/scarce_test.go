package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// recovery is how long it may take until all is well again.
const recovery = 30 * time.Second

// sortSQL spills some 70 MB where a query has 32 MiB.
const sortSQL = "SELECT max(r) AS r FROM (SELECT row_number() OVER (ORDER BY s, m DESC, n) AS r FROM " +
	"(SELECT a.n, b.n AS m, repeat('x', 60) AS s FROM numbers a, numbers b WHERE b.n <= 200))"

// TestScratchDiskFull fills the disk that queries spill to.
func TestScratchDiskFull(t *testing.T) {
	scratch := t.TempDir()
	harness.Mount(t, scratch, 256<<20)
	server := harness.Start(t, numbersDir(t), "--spill-dir", scratch, "--memory", "64MiB", "--query-memory", "32MiB", "--hot-bytes", "0", "--threads", "2")
	engine := server.Engine(t)
	room := fill(t, scratch)
	for range 3 {
		_, err := server.Query(t.Context(), sortSQL, "csv")
		wantRefusal(t, err, "429", "SPILL_LIMIT")
		if _, err := server.Query(t.Context(), "SELECT count(*) FROM numbers", "csv"); err != nil {
			t.Errorf("another query: %v", err)
		}
	}
	room()
	answer, err := server.Query(t.Context(), sortSQL, "csv")
	if err != nil || string(answer) != "r\r\n800000\r\n" {
		t.Errorf("with room again: %s, %v", answer, err)
	}
	if now := server.Engine(t); now.Pid != engine.Pid {
		t.Error("the engine was restarted")
	}
}

// TestDiskOfDecodedTextFull fills the disk that decoded text is kept on: answers go on, and so does keeping when there is room.
func TestDiskOfDecodedTextFull(t *testing.T) {
	scratch := t.TempDir()
	harness.Mount(t, scratch, 256<<20)
	dir := t.TempDir()
	content{Head: "n,text\n", Line: "{n},some text that makes the file larger than what may stay in memory {n}\n", Times: 100_000}.put(t, filepath.Join(dir, "long.csv"), "")
	server := harness.Start(t, dir, "--spill-dir", scratch, "--hot-bytes", "1MiB")
	ask := func() {
		t.Helper()
		answer, err := server.Query(t.Context(), "SELECT count(*) AS n, max(text) AS t FROM long", "csv")
		if err != nil || !strings.HasPrefix(string(answer), "n,t\r\n100000,") {
			t.Errorf("got %s, %v", answer, err)
		}
	}
	kept := func() bool {
		metrics, err := server.Get(t.Context(), "/metrics")
		must(t, err)
		return !bytes.Contains(metrics, []byte("\nquern_engine_hot_spilled_bytes 0\n"))
	}
	room := fill(t, scratch)
	for range 3 {
		ask()
	}
	if kept() {
		t.Error("something was kept on a full disk")
	}
	room()
	harness.Eventually(t, recovery, "the decoded text is kept", func() bool {
		ask()
		return kept()
	})
}

// fill takes all room of a file system, until what it returns is called.
func fill(t *testing.T, dir string) (room func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path) //nolint:gosec // The test's own folder.
	must(t, err)
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = file.Write(block)
	}
	must(t, file.Close())
	return func() { must(t, os.Remove(path)) }
}

func wantRefusal(t *testing.T, err error, status, reason string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), status) || !strings.Contains(err.Error(), `"`+reason+`"`) {
		t.Errorf("want %s %s, got %v", status, reason, err)
	}
}

// TestDataFolderUnmounted takes a folder's file system away under the server, and puts another one there.
func TestDataFolderUnmounted(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(other, "other.csv"), []byte("n\n7\n"), 0o600))
	write := func(n int) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, "changing.csv"), fmt.Appendf(nil, "n\n%d\n", n), 0o600))
	}
	harness.Mount(t, dir, 1<<20)
	write(1)
	server := harness.Start(t, dir, other)
	ask := func() string {
		response := get(t, server, "/v1/query?format=csv&sql=SELECT+n+FROM+changing", "")
		return response
	}
	other7 := func() {
		t.Helper()
		if got := get(t, server, "/v1/query?format=csv&sql=SELECT+n+FROM+other", ""); got != "200 n\r\n7\r\n" {
			t.Errorf("the other folder: %s", got)
		}
	}
	for range 3 {
		if got := ask(); got != "200 n\r\n1\r\n" {
			t.Fatalf("got %s", got)
		}
	}
	for round := 2; round < 5; round++ {
		harness.Unmount(t, dir)
		if got := get(t, server, "/v1/query?format=csv&sql=SELECT+n+FROM+changing", "no-cache"); !strings.Contains(got, `"UNKNOWN_TABLE"`) {
			t.Errorf("asked strictly while nothing is there: %s", got)
		}
		harness.Eventually(t, bound()+time.Second, "nothing is answered from memory", func() bool { return strings.HasPrefix(ask(), "400 ") })
		if got := get(t, server, "/v1/tables/changing", ""); !strings.HasPrefix(got, "404 ") {
			t.Errorf("the table: %s", got)
		}
		other7()
		harness.Mount(t, dir, 1<<20)
		write(round * 10)
		first := fmt.Sprintf("200 n\r\n%d\r\n", round*10)
		harness.Eventually(t, bound()+time.Second, "the new folder's answer", func() bool {
			got := ask()
			if got != first && !strings.HasPrefix(got, "400 ") {
				t.Errorf("once another folder is there: %s", got)
			}
			return got == first
		})
		// What changes now is seen as before.
		write(round*10 + 1)
		harness.Eventually(t, bound(), "a change in the new folder", func() bool { return ask() == fmt.Sprintf("200 n\r\n%d\r\n", round*10+1) })
		other7()
	}
}

// get returns the status and body of a path.
func get(t *testing.T, server *harness.Server, path, cacheControl string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recovery)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, http.NoBody)
	must(t, err)
	if cacheControl != "" {
		request.Header.Set("Cache-Control", cacheControl)
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.Status[:4] + string(body)
}

// TestEngineOutOfFileHandles lets the engine open no more files: what needs one is refused, and the engine lives on.
func TestEngineOutOfFileHandles(t *testing.T) {
	dir := numbersDir(t)
	server := harness.Start(t, dir)
	engine := server.Engine(t)
	socket := harness.UnixSockets(t, engine.Pid)[0]
	count := func() error {
		_, err := server.Query(t.Context(), "SELECT count(*) FROM numbers", "csv")
		return err
	}
	must(t, count())
	again := harness.NoMoreFiles(t, engine.Pid)
	// What was never read before, as text and as Parquet.
	must(t, os.WriteFile(filepath.Join(dir, "fresh.csv"), []byte("n\n1\n"), 0o600))
	parquet, err := os.ReadFile(filepath.Join(sampleDir, "nation.parquet"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "nation.parquet"), parquet, 0o600))
	for _, table := range []string{"fresh", "nation", "fresh"} {
		_, err := server.Query(t.Context(), "SELECT count(*) FROM "+table, "csv")
		wantRefusal(t, err, "429", "FILE_LIMIT")
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if _, err := server.Get(t.Context(), path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	// Connections that can't be accepted must not keep it busy, or end it.
	conns := connect(t, "unix", socket, 50)
	wantIdle(t, engine.Pid)
	again()
	for _, table := range []string{"fresh", "nation", "numbers"} {
		harness.Eventually(t, recovery, "files are opened again", func() bool {
			_, err := server.Query(t.Context(), "SELECT count(*) FROM "+table, "csv")
			return err == nil
		})
	}
	for _, conn := range conns {
		// The HTTP/2 server speaks first.
		must(t, conn.SetReadDeadline(time.Now().Add(recovery)))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatalf("a connection that had to wait was not accepted: %v", err)
		}
	}
	if now := server.Engine(t); now.Pid != engine.Pid {
		t.Error("the engine was restarted")
	}
}

// TestEdgeOutOfFileHandles lets the edge accept nobody: who is connected is served, and the others later.
func TestEdgeOutOfFileHandles(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	count := func() error {
		_, err := server.Query(t.Context(), "SELECT count(*) FROM numbers", "csv")
		return err
	}
	must(t, count())
	again := harness.NoMoreFiles(t, server.Pid())
	must(t, count())
	conns := append(connect(t, "tcp", strings.TrimPrefix(server.URL, "http://"), 50), connect(t, "tcp", server.GRPC, 50)...)
	wantIdle(t, server.Pid())
	must(t, count())
	if _, err := server.Get(t.Context(), "/readyz"); err != nil {
		t.Errorf("readyz: %v", err)
	}
	again()
	for at, conn := range conns {
		_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(recovery)))
		if _, err := conn.Read(make([]byte, 1)); err != nil && at < 50 {
			t.Fatalf("a connection that had to wait was not served: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), recovery)
	defer cancel()
	if err := askGRPC(ctx, server.GRPC); err != nil {
		t.Errorf("gRPC afterwards: %v", err)
	}
	if now := server.Engine(t); now.Pid != engine.Pid {
		t.Error("the engine was restarted")
	}
}

// connect opens connections that the system accepts in the place of a process that can't.
func connect(t *testing.T, network, address string, many int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for range many {
		conn, err := net.DialTimeout(network, address, patience)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// wantIdle fails where a process computes for half of a while.
func wantIdle(t *testing.T, pid int) {
	t.Helper()
	before, _ := harness.ReadProcess(pid)
	time.Sleep(2 * time.Second)
	after, runs := harness.ReadProcess(pid)
	if spent := after.CPU - before.CPU; !runs || spent > time.Second {
		t.Errorf("runs: %v, computed for %s of 2 s", runs, spent)
	}
}
