package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite the reference page")

const page = "../../../docs/reference/configuration.md"

func TestReferencePage(t *testing.T) {
	var want bytes.Buffer
	if err := WriteDocs(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/reference/configuration.md differs from the code; run: go test ./go-api/internal/config -update")
	}
}

func parse(t *testing.T, env map[string]string, dirs []string, args ...string) (*Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg := Register(flags)
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	return cfg, cfg.Complete(dirs, func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

func TestFlagWinsOverVariableOverDefault(t *testing.T) {
	env := map[string]string{
		"QUERN_HTTP": ":1", "QUERN_GRPC": ":2", "QUERN_TIMEOUT_MAX": "9m",
		"QUERN_CORS_ORIGIN": "https://a.example, https://b.example", "QUERN_QUERY_MEMORY": "1GiB",
	}
	cfg, err := parse(t, env, []string{t.TempDir()}, "--http", ":3")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.HTTP != ":3" || cfg.GRPC != ":2" || cfg.TimeoutMax != 9*time.Minute || cfg.TimeoutDefault != 30*time.Second {
		t.Errorf("%+v", cfg)
	}
	if !slices.Equal(cfg.CORSOrigins, []string{"https://a.example", "https://b.example"}) {
		t.Error(cfg.CORSOrigins)
	}
	want := "--timeout-default 30s --timeout-max 9m0s --log-level info --query-memory 1GiB " + cfg.Sources[0]
	if got := strings.Join(cfg.EngineArgs(), " "); got != want {
		t.Errorf("engine gets %s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		env  map[string]string
		dirs []string
		args []string
		says string
	}{
		{nil, nil, nil, "name a folder"},
		{nil, []string{dir}, []string{"--engine", "unix:///x"}, "exclude each other"},
		{nil, []string{dir + "/none"}, nil, "no such file"},
		{nil, []string{file}, nil, "it is a file"},
		{nil, []string{dir}, []string{"--http", "8080"}, "host:port"},
		{nil, []string{dir}, []string{"--timeout-max", "0"}, "more than zero"},
		{nil, []string{dir}, []string{"--timeout-default", "10m"}, "longer than"},
		{nil, []string{dir}, []string{"--cors-origin", "example.com"}, "no origin"},
		{map[string]string{"QUERN_GRACE_PERIOD": "soon"}, []string{dir}, nil, "QUERN_GRACE_PERIOD"},
	}
	for _, c := range cases {
		if _, err := parse(t, c.env, c.dirs, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v %v: got %v, want %q", c.dirs, c.args, err, c.says)
		}
	}
}

func TestFindEngine(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	cfg := &Config{}
	if _, err := cfg.FindEngine(); err == nil || !strings.Contains(err.Error(), "--engine-bin") {
		t.Error(err)
	}
	binary := filepath.Join(dir, engineName)
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if path, err := cfg.FindEngine(); err != nil || path != binary {
		t.Error(path, err)
	}
	cfg.EngineBin = dir + "/other"
	if _, err := cfg.FindEngine(); err == nil {
		t.Error("a binary that is not there was found")
	}
}
