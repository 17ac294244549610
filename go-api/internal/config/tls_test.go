package config

import (
	"strings"
	"testing"
)

var engineFiles = []string{"--engine-tls-ca", "ca", "--engine-tls-cert", "cert", "--engine-tls-key", "key"}

func TestTLSRefusals(t *testing.T) {
	with := func(args ...string) []string { return append(args, engineFiles...) }
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--engine", "tcp://127.0.0.1:1", "--tls-cert", "cert"}, "--tls-cert and --tls-key go together"},
		{[]string{"--engine", "tcp://127.0.0.1:1", "--tls-key", "key"}, "--tls-cert and --tls-key go together"},
		{[]string{"--engine", "dns:///engine:1", "--engine-tls-ca", "ca"}, "all three or none"},
		{[]string{"--engine", "tcp://127.0.0.1:1", "--engine-tls-name", "engine"}, "needs --engine-tls-ca"},
		{with("--engine", "unix:///socket"), "not for unix:///socket"},
		{with(), "a local engine is reached by a socket of its own"},
		{[]string{"--engine", "dns:///engine:1"}, "--plain-tcp"},
		{[]string{"--engine", "tcp://10.0.0.1:1"}, "--plain-tcp"},
		{[]string{"--engine", "tcp://[2001:db8::1]:1"}, "--plain-tcp"},
	} {
		if _, err := parse(t, nil, nil, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: got %v, want %q", c.args, err, c.says)
		}
	}
}

func TestTLSIsNamedByTheEnginesHost(t *testing.T) {
	for engine, want := range map[string]string{
		"dns:///engine.quern.svc:9091": "engine.quern.svc", "dns://10.0.0.10/engine:9091": "engine",
		"tcp://10.0.0.1:9091": "10.0.0.1", "tcp://[2001:db8::1]:9091": "2001:db8::1",
	} {
		cfg, err := parse(t, nil, nil, append([]string{"--engine", engine}, engineFiles...)...)
		if err != nil || cfg.TLS.EngineName != want || !cfg.TLS.ToEngine() {
			t.Errorf("%s: %q, %v", engine, cfg.TLS.EngineName, err)
		}
	}
	args := append([]string{"--engine", "dns:///engine:1", "--engine-tls-name", "spiffe://example.org/engine"}, engineFiles...)
	if cfg, err := parse(t, nil, nil, args...); err != nil || cfg.TLS.EngineName != "spiffe://example.org/engine" {
		t.Error(cfg.TLS, err)
	}
}

func TestPlainTCP(t *testing.T) {
	for _, engine := range []string{"tcp://127.0.0.1:1", "tcp://[::1]:1", "dns:///localhost:1", "unix:///socket"} {
		if cfg, err := parse(t, nil, nil, "--engine", engine); err != nil || cfg.TLS.ToEngine() {
			t.Errorf("%s: %v", engine, err)
		}
	}
	if _, err := parse(t, map[string]string{"QUERN_PLAIN_TCP": "true"}, nil, "--engine", "dns:///engine:9091"); err != nil {
		t.Error(err)
	}
}
