package config

import (
	"strings"
	"testing"
)

func TestAdminIsForThisMachineOnly(t *testing.T) {
	for address, good := range map[string]bool{
		"": true, "127.0.0.1:0": true, "127.1.2.3:6060": true, "[::1]:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:6060": false, "localhost:6060": false, "127.0.0.1": false,
	} {
		_, err := parse(t, nil, []string{t.TempDir()}, "--admin", address)
		if (err == nil) != good || (err != nil && !strings.Contains(err.Error(), "127.0.0.1:port")) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestTracesAreOnWhereACollectorIsNamed(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{endpoint: " "}, false},
		{map[string]string{endpoint: "http://here:4317"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://here:4317"}, true},
		{map[string]string{endpoint: "http://here:4317", "OTEL_SDK_DISABLED": "TRUE"}, false},
		{map[string]string{endpoint: "http://here:4317", "OTEL_TRACES_EXPORTER": "none"}, false},
		{map[string]string{endpoint: "http://here:4317", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, true},
	} {
		cfg, err := parse(t, c.env, []string{t.TempDir()})
		if err != nil || cfg.Traces != c.want {
			t.Error(c.env, cfg.Traces, err)
		}
	}
	_, err := parse(t, map[string]string{endpoint: "http://here:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, []string{t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "4317") {
		t.Error(err)
	}
}

func TestSlowQueryIsNoNegativeTime(t *testing.T) {
	if _, err := parse(t, nil, []string{t.TempDir()}, "--slow-query", "-1s"); err == nil {
		t.Error("a negative time was taken")
	}
	if cfg, err := parse(t, map[string]string{"QUERN_SLOW_QUERY": "0"}, []string{t.TempDir()}); err != nil || cfg.SlowQuery != 0 {
		t.Error(cfg.SlowQuery, err)
	}
}
