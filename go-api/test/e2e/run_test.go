package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// sampleDir holds quern-sample's output, made once a run.
var sampleDir string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "quern-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	//nolint:gosec // The repository's own binary.
	command := exec.Command(filepath.Join("..", "..", "..", "bin", "quern-sample"), dir, "--scale", "0.01")
	if out, err := command.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "can't make sample data, run `make build` first: %v\n%s", err, out)
		return 1
	}
	sampleDir = dir
	return m.Run()
}

func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("../scenarios/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scenarios found: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			scenario := loadScenario(t, path)
			dir, running := runningFor(t, scenario)
			runScenario(t, scenario, dir, func(t *testing.T, args ...string) (*harness.Server, func()) {
				if running == nil {
					return harness.Start(t, dir, args...), func() {}
				}
				// Long after the time within which an edge must know of the files.
				time.Sleep(time.Second)
				return running, func() {}
			})
		})
	}
}

// serve serves a scenario's folder; what it returns is called after each change to it.
type serve func(t *testing.T, args ...string) (server *harness.Server, changed func())

func runScenario(t *testing.T, s scenario, dir string, serve serve) {
	for name, file := range s.Files {
		file.put(t, filepath.Join(dir, name), sampleDir)
	}
	server, tell := serve(t, s.Args...)
	changed := false
	for number, step := range s.Steps {
		if step.change(t, dir) {
			tell()
			changed = true
		}
		if changed {
			// What is checked is the answer after the changes, whenever the watch tells of them.
			step.Headers = withHeader(step.Headers, "Cache-Control", "no-cache")
		}
		if step.HTTP == "" && step.GRPC == "" {
			continue
		}
		started := time.Now()
		var problem error
		if step.HTTP != "" {
			problem = step.overHTTP(t, server.URL)
		} else {
			problem = step.overGRPC(t, server.GRPC)
		}
		if problem != nil {
			t.Errorf("step %d (%s%s): %v", number+1, step.HTTP, step.GRPC, problem)
		}
		if limit := step.Expect.Within; limit > 0 && time.Since(started) > limit {
			t.Errorf("step %d (%s%s): took %s, allowed are %s", number+1, step.HTTP, step.GRPC, time.Since(started), limit)
		}
	}
}

func withHeader(headers map[string]string, name, value string) map[string]string {
	with := map[string]string{name: value}
	maps.Copy(with, headers)
	return with
}

// change changes the folder as the step says, and says whether it did.
func (s step) change(t *testing.T, dir string) bool {
	t.Helper()
	for name, file := range s.Write {
		file.put(t, filepath.Join(dir, name), sampleDir)
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	for name, file := range s.Append {
		out, err := root.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = out.Write(file.bytes(t, sampleDir))
		must(t, err)
		must(t, out.Close())
	}
	for _, name := range s.Remove {
		must(t, os.RemoveAll(filepath.Join(dir, name)))
	}
	for from, to := range s.Rename {
		must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
	return len(s.Write)+len(s.Append)+len(s.Remove)+len(s.Rename) > 0
}

func (s step) body(t *testing.T) []byte {
	t.Helper()
	switch {
	case s.BodyOf != nil:
		return s.BodyOf.bytes(t, sampleDir)
	case s.JSON != nil:
		text, err := json.Marshal(s.JSON)
		must(t, err)
		return text
	default:
		return []byte(s.Body)
	}
}

func (s step) overHTTP(t *testing.T, base string) error {
	t.Helper()
	method, target, found := strings.Cut(s.HTTP, " ")
	if !found {
		return fmt.Errorf("want `METHOD /path`, got %q", s.HTTP)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, base+target, bytes.NewReader(s.body(t)))
	if err != nil {
		return err
	}
	for name, value := range s.Headers {
		request.Header.Set(name, value)
	}
	// Go's client would hide the content coding otherwise.
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s, then %w", response.Status, err)
	}
	return s.Expect.check(response, text)
}

func (e expectation) check(response *http.Response, body []byte) error {
	if e.Status != 0 && response.StatusCode != e.Status {
		return fmt.Errorf("want status %d, got %s: %.600s", e.Status, response.Status, body)
	}
	if err := checkHeaders("header", e.Headers, response.Header); err != nil {
		return err
	}
	if err := checkHeaders("trailer", e.Trailers, response.Trailer); err != nil {
		return err
	}
	if e.Code != "" || e.Reason != "" || e.Message != "" {
		if err := e.checkError(response.StatusCode, body); err != nil {
			return err
		}
	}
	return e.checkBody(body)
}

func checkHeaders(kind string, want map[string]string, got http.Header) error {
	for name, value := range want {
		if value == absent {
			if got.Get(name) != "" {
				return fmt.Errorf("%s %s: want none, got %q", kind, name, got.Get(name))
			}
			continue
		}
		if err := matchText(value, got.Get(name)); err != nil {
			return fmt.Errorf("%s %s: %w", kind, name, err)
		}
	}
	return nil
}

func (e expectation) checkBody(body []byte) error {
	if e.Text != nil {
		if err := matchText(*e.Text, string(body)); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
	for _, part := range e.Contains {
		if !bytes.Contains(body, []byte(part)) {
			return fmt.Errorf("body lacks %q: %.600s", part, body)
		}
	}
	for _, part := range e.Lacks {
		if bytes.Contains(body, []byte(part)) {
			return fmt.Errorf("body must not hold %q: %.600s", part, body)
		}
	}
	if e.JSON == nil {
		return nil
	}
	value, err := parse(body)
	if err != nil {
		return err
	}
	return contains(e.JSON, value, "$")
}

// errorBody is the one shape of every REST error.
type errorBody struct {
	Error struct {
		Code    int    `json:"code"`
		Status  string `json:"status"`
		Message string `json:"message"`
		Details []struct {
			Type   string `json:"@type"`
			Reason string `json:"reason"`
			Domain string `json:"domain"`
		} `json:"details"`
	} `json:"error"`
}

func (e expectation) checkError(status int, body []byte) error {
	var got errorBody
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("the error is not JSON: %w: %.300s", err, body)
	}
	if got.Error.Code != status {
		return fmt.Errorf("error.code is %d in an answer with status %d", got.Error.Code, status)
	}
	var reasons []string
	for _, detail := range got.Error.Details {
		if detail.Type == "type.googleapis.com/google.rpc.ErrorInfo" {
			reasons = append(reasons, detail.Reason)
		}
	}
	return e.compareError(got.Error.Status, reasons, got.Error.Message)
}

func (e expectation) compareError(code string, reasons []string, message string) error {
	if e.Code != "" && code != e.Code {
		return fmt.Errorf("want the code %s, got %s %v: %s", e.Code, code, reasons, message)
	}
	if len(reasons) != 1 {
		return fmt.Errorf("want exactly one ErrorInfo, got %v: %s %s", reasons, code, message)
	}
	if e.Reason != "" && reasons[0] != e.Reason {
		return fmt.Errorf("want the reason %s, got %s: %s", e.Reason, reasons[0], message)
	}
	if e.Message != "" {
		if err := matchText(e.Message, message); err != nil {
			return fmt.Errorf("message: %w", err)
		}
	}
	return nil
}
