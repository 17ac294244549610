package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
	// steadyAfter is how long an engine must have run for its death to count as the first again: as long as the longest pause,
	// so that an engine which dies now and then serves for most of the time.
	steadyAfter = restartMost
	// maxSocketPath is what a Unix socket's address holds on the strictest common system, the final zero included.
	maxSocketPath = 104
)

// Process says which engine to run and how.
type Process struct {
	// Binary is the engine's path.
	Binary string
	// Args are passed on after the flags that supervision needs: engine flags, then folders.
	Args []string
	// Output gets the engine's own log lines, whole ones only.
	Output io.Writer
	// Logger gets what happens to the process.
	Logger *slog.Logger
}

// Supervisor runs a local engine on a socket in a private folder, and restarts it with growing pauses when it dies.
// The engine holds the read end of a pipe whose other end only this process has, and ends when that closes: so a
// killed edge leaves no orphan.
type Supervisor struct {
	process Process
	folder  string
	socket  string
	// secret seals page tokens, so that they outlive an engine that died.
	secret  string
	restart func()

	stopping chan struct{}
	stopOnce sync.Once
	done     chan struct{}
	died     chan error

	mu      sync.Mutex
	current *exec.Cmd
}

// Supervise starts the engine. It does not wait until the engine serves; Client.AwaitServing does, and Died tells when
// that is in vain.
func Supervise(process Process) (*Supervisor, error) {
	folder, err := os.MkdirTemp("", "quern-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the engine's socket: %w", err)
	}
	socket := filepath.Join(folder, "engine.sock")
	s := &Supervisor{
		process:  process,
		folder:   folder,
		socket:   socket,
		secret:   rand.Text(),
		restart:  func() {},
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
		died:     make(chan error, 1),
	}
	if len(socket+dataSuffix) >= maxSocketPath {
		err = fmt.Errorf("the path of the engine's socket, %s, is too long for a Unix socket; set TMPDIR to a shorter folder", socket)
	} else {
		err = s.spawn()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	go s.run()
	return s, nil
}

// URL returns the engine's address for Dial.
func (s *Supervisor) URL() string { return "unix://" + s.socket }

// OnRestart registers what to do whenever a new engine process has been started; call it once, before the first death
// can matter.
func (s *Supervisor) OnRestart(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart = f
}

// Died tells each time the engine has ended on its own; only the latest death is kept.
func (s *Supervisor) Died() <-chan error { return s.died }

// Stop asks the engine to drain and end, kills it when ctx ends first, and removes the socket's folder.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) })
	s.signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-ctx.Done():
		s.process.Logger.Warn("engine did not end in time, killing it")
		s.signal(syscall.SIGKILL)
		<-s.done
	}
	if err := os.RemoveAll(s.folder); err != nil {
		return fmt.Errorf("remove the engine's socket folder: %w", err)
	}
	return nil
}

func (s *Supervisor) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.Process != nil {
		// It fails only when the process has ended, which is what the signal is for.
		_ = s.current.Process.Signal(signal)
	}
}

// run waits for the engine's end and starts it anew until Stop.
func (s *Supervisor) run() {
	defer close(s.done)
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = restartFirst, restartMost
	for {
		started := time.Now()
		err := s.current.Wait()
		if s.stopped() {
			return
		}
		s.report(err)
		if time.Since(started) > steadyAfter {
			pause.Reset()
		}
		for {
			delay := pause.NextBackOff()
			s.process.Logger.Warn("engine ended, restarting it", "error", errText(err), "in", delay.Round(time.Millisecond).String())
			select {
			case <-time.After(delay):
			case <-s.stopping:
				return
			}
			if err = s.spawn(); err == nil {
				break
			}
		}
		if s.stopped() {
			// Stop may have looked for the process before it was there.
			s.signal(syscall.SIGTERM)
		}
		s.mu.Lock()
		restart := s.restart
		s.mu.Unlock()
		restart()
	}
}

// spawn starts one engine process on a socket path that is free.
func (s *Supervisor) spawn() error {
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return fmt.Errorf("make a folder for the engine's socket: %w", err)
	}
	for _, socket := range []string{s.socket, s.socket + dataSuffix} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a socket of the engine before: %w", err)
		}
	}
	args := append([]string{"--listen", s.URL(), "--supervised"}, s.process.Args...)
	cmd := exec.Command(s.process.Binary, args...) //nolint:gosec,noctx // the operator names the binary, and Stop ends it
	// Where the operator has set another, the later one counts.
	cmd.Env = append([]string{"QUERN_PAGE_TOKEN_SECRET=" + s.secret}, os.Environ()...)
	cmd.Stderr = &relay{out: s.process.Output, logger: s.process.Logger}
	cmd.Stdout = cmd.Stderr
	cmd.WaitDelay = 2 * time.Second
	// A group of its own keeps the terminal's Ctrl-C from the engine: the edge drains first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := cmd.StdinPipe(); err != nil {
		return fmt.Errorf("make the engine's lifeline: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = cmd
	s.process.Logger.Info("engine started", "pid", cmd.Process.Pid)
	return nil
}

func (s *Supervisor) stopped() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

func (s *Supervisor) report(err error) {
	select {
	case <-s.died:
	default:
	}
	s.died <- fmt.Errorf("the engine ended (%s)", errText(err))
}

func errText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
