package harness

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Engine is an engine that runs by itself, on a Unix socket that stays the same when it is started again.
type Engine struct {
	// URL is what edges dial.
	URL string

	source, socket string
	env            []string
	cmd            *exec.Cmd
}

// StartEngine serves a folder or bucket, with more environment variables as NAME=value, and waits until the socket is
// there. The test's end stops it.
func StartEngine(t testing.TB, source string, env ...string) *Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "engine.sock")
	engine := &Engine{URL: "unix://" + socket, source: source, socket: socket, env: env}
	engine.Restart(t)
	t.Cleanup(engine.Kill)
	return engine
}

// Restart starts it, again after Kill.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	_ = os.Remove(e.socket)
	//nolint:gosec // The repository's own binary.
	e.cmd = exec.Command(Binary(t, "quern-engine"), "--listen", "unix://"+e.socket, "--log-level", "warn", e.source)
	e.cmd.Env = append(os.Environ(), e.env...)
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, startTimeout, "the engine listens", func() bool {
		_, err := os.Stat(e.socket)
		return err == nil
	})
}

// Kill ends it at once, without a word.
func (e *Engine) Kill() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

// Signal sends it a signal.
func (e *Engine) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := e.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Link is a network between edges and an engine that a test can cut, take down, slow or stall.
type Link struct {
	// URL is what edges dial.
	URL string

	target   string
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	stalled  chan struct{}
	slow     time.Duration
}

// StartLink listens before an engine's socket.
func StartLink(t testing.TB, engine *Engine) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := &Link{URL: "tcp://" + listener.Addr().String(), target: engine.socket, listener: listener, conns: map[net.Conn]struct{}{}}
	go link.accept(listener)
	t.Cleanup(func() {
		_ = link.listener.Close()
		link.Stall(false)
		link.Cut()
	})
	return link
}

func (l *Link) accept(listener net.Listener) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		to, err := net.DialTimeout("unix", l.target, time.Second)
		if err != nil {
			_ = from.Close()
			continue
		}
		l.mu.Lock()
		l.conns[from], l.conns[to] = struct{}{}, struct{}{}
		l.mu.Unlock()
		go l.pass(from, to)
		go l.pass(to, from)
	}
}

// pass copies until one side ends, and holds what it has while the link is stalled.
func (l *Link) pass(from, to net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if writeErr := l.write(to, buffer[:n]); writeErr != nil {
			err = writeErr
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			l.mu.Lock()
			delete(l.conns, from)
			delete(l.conns, to)
			l.mu.Unlock()
			return
		}
	}
}

func (l *Link) write(to net.Conn, data []byte) error {
	for len(data) > 0 {
		l.mu.Lock()
		stalled, slow := l.stalled, l.slow
		l.mu.Unlock()
		if stalled != nil {
			<-stalled
		}
		piece := data
		if slow > 0 {
			time.Sleep(slow)
			piece = data[:1]
		}
		if _, err := to.Write(piece); err != nil {
			return err
		}
		data = data[len(piece):]
	}
	return nil
}

// Slow lets one byte through in each pause, or with 0 everything at once.
func (l *Link) Slow(pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow = pause
}

// Down ends all connections and refuses new ones, or takes them again.
func (l *Link) Down(t testing.TB, down bool) {
	t.Helper()
	if down {
		_ = l.listener.Close()
		l.Cut()
		return
	}
	listener, err := net.Listen("tcp", l.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.listener = listener
	go l.accept(listener)
}

// Cut ends all connections; new ones are let through.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// Stall holds everything back while connections stay up, or lets it go on.
func (l *Link) Stall(stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case stalled && l.stalled == nil:
		l.stalled = make(chan struct{})
	case !stalled && l.stalled != nil:
		close(l.stalled)
		l.stalled = nil
	}
}

// Redis is a real redis-server.
type Redis struct {
	// URL is what edges dial.
	URL string

	program, dir, port string
	cmd                *exec.Cmd
}

// StartRedis starts an empty server. The test's end stops it.
func StartRedis(t testing.TB) *Redis {
	t.Helper()
	command := exec.Command(filepath.Join(Root(t), ".ci", "redis")) //nolint:gosec // The repository's own script.
	command.Stderr = os.Stderr
	program, err := command.Output()
	if err != nil {
		t.Fatalf("no redis-server: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	r := &Redis{URL: "redis://127.0.0.1:" + port, program: string(program[:len(program)-1]), dir: t.TempDir(), port: port}
	r.Restart(t)
	t.Cleanup(r.Kill)
	return r
}

// Restart starts it, again and empty after Kill.
func (r *Redis) Restart(t testing.TB, args ...string) {
	t.Helper()
	all := append([]string{"--port", r.port, "--bind", "127.0.0.1", "--save", "", "--dir", r.dir}, args...)
	r.cmd = exec.Command(r.program, all...) //nolint:gosec // Found by the repository's own script.
	r.cmd.Stdout, r.cmd.Stderr = io.Discard, io.Discard
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, startTimeout, "redis listens", func() bool {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+r.port, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// Kill ends it at once.
func (r *Redis) Kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// Signal sends it a signal.
func (r *Redis) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}
