package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TCPEngine is an engine that runs by itself and listens on TCP.
type TCPEngine struct {
	// URL is what edges dial; Address is its host and port.
	URL, Address string

	cmd  *exec.Cmd
	done chan error
	log  *logBuffer
}

// StartTCPEngine serves dir on a free port of 127.0.0.1, unless args say where, and waits until it listens. The test's
// end stops it, which must not take it long.
func StartTCPEngine(t testing.TB, dir string, args ...string) *TCPEngine {
	t.Helper()
	all := append([]string{dir}, args...)
	if !slices.Contains(args, "--listen") {
		all = append(all, "--listen", "tcp://127.0.0.1:0")
	}
	//nolint:gosec // The repository's own binary.
	engine := &TCPEngine{cmd: exec.Command(Binary(t, "quern-engine"), all...), done: make(chan error, 1), log: &logBuffer{}}
	stderr, err := engine.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		engine.readLog(stderr, listening)
		engine.done <- engine.cmd.Wait()
	}()
	t.Cleanup(func() { engine.stop(t) })
	select {
	case engine.URL = <-listening:
		engine.Address = strings.TrimPrefix(engine.URL, "tcp://")
	case err := <-engine.done:
		engine.done <- err
		t.Fatalf("the engine ended before it listened: %v\n%s", err, engine.Log())
	case <-time.After(startTimeout):
		t.Fatalf("the engine did not listen within %s:\n%s", startTimeout, engine.Log())
	}
	return engine
}

func (e *TCPEngine) readLog(stderr io.Reader, listening chan<- string) {
	scanner := bufio.NewScanner(stderr)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		e.log.add(scanner.Text())
		var line struct{ Message, Listen string }
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Message == "serving" {
			select {
			case listening <- line.Listen:
			default:
			}
		}
	}
}

// Log returns everything that the engine logged so far.
func (e *TCPEngine) Log() string { return e.log.String() }

// Signal sends it a signal.
func (e *TCPEngine) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := e.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until it has ended by itself, and returns why, nil for success.
func (e *TCPEngine) Wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-e.done:
		e.done <- err
		return err
	case <-time.After(startTimeout):
		t.Fatalf("the engine did not end within %s", startTimeout)
		return nil
	}
}

// wait waits for its end.
func (e *TCPEngine) wait() { e.done <- <-e.done }

func (e *TCPEngine) stop(t testing.TB) {
	_ = e.cmd.Process.Signal(syscall.SIGTERM) // An error where it has ended already.
	select {
	case <-e.done:
	case <-time.After(20 * time.Second):
		_ = e.cmd.Process.Kill()
		t.Errorf("the engine did not end within 20 s of SIGTERM")
	}
	if t.Failed() {
		t.Logf("log of quern-engine:\n%s", lastLines(e.Log(), 40))
	}
}

// Refused runs a binary that must not start, and returns what it says.
func Refused(t testing.TB, binary string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	said, err := exec.CommandContext(ctx, Binary(t, binary), args...).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Fatalf("%s %v was not refused (%v):\n%s", binary, args, err, said)
	}
	return string(said)
}
