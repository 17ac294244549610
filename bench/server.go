package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds the wait for a server to start or to stop.
const patience = 30 * time.Second

// process is a started server.
type process struct {
	cmd  *exec.Cmd
	url  string
	took time.Duration
}

func start(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // The repository's own programs and the named peer.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = patience
	return command
}

// startQuern serves with the given arguments and waits until it is ready.
func startQuern(ctx context.Context, args ...string) (*process, error) {
	return startQuernIn(ctx, nil, args...)
}

// startQuernIn is startQuern with more environment variables, as NAME=value.
func startQuernIn(ctx context.Context, env []string, args ...string) (*process, error) {
	started := time.Now()
	command := start(ctx, append([]string{"bin/quern", "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-level", "info"}, args...)...)
	command.Env = append(os.Environ(), env...)
	log, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, HTTP string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" && line.HTTP != "" {
			go relay(log, lines)
			server := &process{cmd: command, url: "http://" + line.HTTP}
			err := server.await(ctx, "/readyz", started)
			return server, err
		}
	}
	return nil, errors.Join(errors.New("quern did not say that it serves"), command.Wait())
}

// relay passes on the warnings and errors that a server logs, such as that its engine has ended.
func relay(log io.Reader, lines *bufio.Scanner) {
	for lines.Scan() {
		var line struct{ Level string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Level != "INFO" {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
	}
	// A line that is too long ends the scan; the server must not wait for a reader.
	_, _ = io.Copy(io.Discard, log)
}

// startEngine runs an engine of its own on a Unix socket.
func startEngine(ctx context.Context, data, folder string) (*process, string, error) {
	socket := filepath.Join(folder, "engine.sock")
	command := start(ctx, "bin/quern-engine", "--listen", "unix://"+socket, data)
	if err := command.Start(); err != nil {
		return nil, "", err
	}
	return &process{cmd: command}, "unix://" + socket, waitFor(ctx, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
}

func (p *process) pids() []int { return []int{p.cmd.Process.Pid} }

// family are an edge and the engine that it has started, which work together on what is not in the cache.
func (p *process) family() ([]int, error) {
	engine, err := child(p.cmd.Process.Pid)
	return append(p.pids(), engine), err
}

// child is the one process that another has started.
func child(parent int) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		// It may have ended since it was listed.
		text, err := os.ReadFile(file) //nolint:gosec // A file of the system.
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("process %d has started none", parent)
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// await waits until a GET of path answers 200, and notes how long that took since started.
func (p *process) await(ctx context.Context, path string, started time.Time) error {
	err := waitFor(ctx, func() bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
		if err != nil {
			return false
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	p.took = time.Since(started)
	return err
}

func waitFor(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("a server was not ready within %s", patience)
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// timing is what one whole answer took.
type timing struct {
	First, Whole time.Duration
	Bytes        int64
}

// ask posts SQL and reads the whole answer.
func ask(ctx context.Context, url, sql string) (timing, error) {
	// What is measured is the execution.
	return askWith(ctx, url, sql, "no-store")
}

// askWith asks with request directives for the cache, or none.
func askWith(ctx context.Context, url, sql, directives string) (timing, error) {
	return post(ctx, url, sql, directives, io.Discard)
}

// askRows asks as ask does, and counts the rows by the answer's receipt, once the time is taken.
func askRows(ctx context.Context, url, sql string) (time.Duration, int64, error) {
	var body bytes.Buffer
	took, err := post(ctx, url, sql, "no-store", &body)
	if err != nil {
		return 0, 0, err
	}
	var answer struct {
		Receipt *struct{ Rows int64 }
	}
	if err := json.Unmarshal(body.Bytes(), &answer); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", sql, err)
	}
	if answer.Receipt == nil {
		return 0, 0, fmt.Errorf("%s: no receipt", sql)
	}
	return took.Whole, answer.Receipt.Rows, nil
}

// pieces holds the buffers of readAll, since making one is no part of what is measured: as many as there are requests at once.
var pieces = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// readAll copies in pieces of 256 KiB, as whoever wants all of it does: io.Discard alone would take 8 KiB at once.
func readAll(to io.Writer, from io.Reader) (int64, error) {
	piece, _ := pieces.Get().(*[256 << 10]byte)
	defer pieces.Put(piece)
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, piece[:])
}

// post asks and copies the whole answer.
func post(ctx context.Context, url, sql, directives string, to io.Writer) (timing, error) {
	path, contentType, body := "/v1/query", "application/json", []byte(nil)
	if strings.HasSuffix(url, "/api/sql") {
		path, contentType, body = "", "text/plain", []byte(sql)
	} else {
		encoded, err := json.Marshal(map[string]string{"sql": sql})
		if err != nil {
			return timing{}, err
		}
		body = encoded
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, bytes.NewReader(body))
	if err != nil {
		return timing{}, err
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept-Encoding", "identity")
	if directives != "" {
		request.Header.Set("Cache-Control", directives)
	}
	started := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return timing{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		problem, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return timing{}, fmt.Errorf("%s: %s: %s", sql, response.Status, problem)
	}
	var first [1]byte
	if _, err := io.ReadFull(response.Body, first[:]); err != nil {
		return timing{}, err
	}
	took := timing{First: time.Since(started)}
	if _, err := to.Write(first[:]); err != nil {
		return timing{}, err
	}
	rest, err := readAll(to, response.Body)
	if err != nil {
		return timing{}, err
	}
	took.Whole, took.Bytes = time.Since(started), rest+1
	return took, nil
}
