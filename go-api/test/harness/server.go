// Package harness starts the real binaries on a folder of data and talks to them, for the end-to-end tests.
// It knows the public surface only: flags, log lines, HTTP and gRPC.
package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is long because tests of several packages may share two cores.
const startTimeout = 60 * time.Second

// Server is a running `quern serve` with its supervised engine.
type Server struct {
	// URL is the REST base, such as http://127.0.0.1:4321.
	URL string
	// GRPC is the gRPC address, host and port.
	GRPC string
	// Dir is the served folder.
	Dir string

	cmd  *exec.Cmd
	done chan error
	log  *logBuffer
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// Binary returns the path of a built binary: quern, quern-engine or quern-sample.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not built: run `make build` first", path)
	}
	return path
}

// edgeBinary returns the edge that is under test: QUERN_TEST_EDGE, where a test builds one of its own.
func edgeBinary(t testing.TB) string {
	if path := os.Getenv("QUERN_TEST_EDGE"); path != "" {
		return path
	}
	return Binary(t, "quern")
}

// Start serves dir with the given extra flags and waits until it answers. The test's end stops it.
func Start(t testing.TB, dir string, args ...string) *Server {
	t.Helper()
	return StartWithEnv(t, nil, dir, args...)
}

// StartEdge starts an edge of an engine that runs elsewhere.
func StartEdge(t testing.TB, engine string, args ...string) *Server {
	t.Helper()
	return Start(t, "", append([]string{"--engine", engine}, args...)...)
}

// StartWithEnv is Start with more environment variables, as NAME=value.
func StartWithEnv(t testing.TB, env []string, dir string, args ...string) *Server {
	t.Helper()
	all := append([]string{"serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}, args...)
	if dir != "" {
		all = append(all, dir)
	}
	cmd := exec.Command(edgeBinary(t), all...) //nolint:gosec // The path is the repository's own binary.
	cmd.Env = append(os.Environ(), env...)
	server := &Server{Dir: dir, cmd: cmd, done: make(chan error, 1), log: &logBuffer{}}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan servingLine, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		server.readLog(stderr, serving)
	}()
	go func() {
		<-read
		server.done <- cmd.Wait()
	}()
	t.Cleanup(func() { server.cleanup(t) })
	select {
	case line := <-serving:
		server.URL, server.GRPC = "http://"+line.HTTP, line.GRPC
	case err := <-server.done:
		server.done <- err
		t.Fatalf("quern serve ended before it served: %v\n%s", err, server.Log())
	case <-time.After(startTimeout):
		t.Fatalf("quern serve did not say `serving` within %s:\n%s", startTimeout, server.Log())
	}
	return server
}

type servingLine struct {
	Msg  string `json:"msg"`
	HTTP string `json:"http"`
	GRPC string `json:"grpc"`
}

func (s *Server) readLog(stderr io.Reader, serving chan<- servingLine) {
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		s.log.add(scanner.Text())
		var line servingLine
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Msg == "serving" && line.HTTP != "" {
			select {
			case serving <- line:
			default:
			}
		}
	}
}

// Log returns everything that edge and engine logged so far.
func (s *Server) Log() string { return s.log.String() }

// Pid returns the edge's process id.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Signal sends a signal to the edge.
func (s *Server) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Wait waits for the edge's end and returns its exit code; it fails the test after the timeout.
func (s *Server) Wait(t testing.TB, timeout time.Duration) int {
	t.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(timeout):
		t.Fatalf("the edge still ran after %s:\n%s", timeout, s.Log())
		return -1
	}
}

// WaitReady waits until /readyz answers 200.
func (s *Server) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, startTimeout, "the server is ready", func() bool {
		_, err := s.Get(t.Context(), "/readyz")
		return err == nil
	})
}

func (s *Server) cleanup(t testing.TB) {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // An error where it has ended already.
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		t.Errorf("the edge did not end within 20 s of SIGTERM")
	}
	if t.Failed() {
		t.Logf("log of quern serve:\n%s", lastLines(s.Log(), 40))
	}
}

// Query runs SQL over REST with the given format and returns the whole answer. It is executed each time: no-store keeps
// the cache out of it.
func (s *Server) Query(ctx context.Context, sql, format string) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"sql": sql, "format": format})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/query", strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Cache-Control", "no-store")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status + ": " + string(answer))
	}
	return answer, nil
}

// Eventually polls until the condition holds, and fails the test after the timeout.
func Eventually(t testing.TB, timeout time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type logBuffer struct {
	mutex sync.Mutex
	lines []string
}

func (l *logBuffer) add(line string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.lines = append(l.lines, line)
}

func (l *logBuffer) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return strings.Join(l.lines, "\n")
}

func lastLines(text string, count int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

// Get fetches a path and returns the body of a 200.
func (s *Server) Get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status + ": " + string(answer))
	}
	return answer, nil
}
