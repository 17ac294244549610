package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// checkAdmin refuses an address that others could reach: who profiles a process sees what it holds.
func checkAdmin(address string) error {
	if address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--admin %q is no address; write 127.0.0.1:port or [::1]:port", address)
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return fmt.Errorf("--admin %q can be reached from beyond this machine; write 127.0.0.1:port or [::1]:port", address)
	}
	return nil
}

// tracesWanted reads what OpenTelemetry's standard variables say of traces; how they are sent, its library reads itself.
func tracesWanted(lookup func(string) (string, bool)) (bool, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if value, ok := lookup(name); ok && strings.TrimSpace(value) != "" {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	exporter := get("OTEL_TRACES_EXPORTER")
	if get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" ||
		strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") || (exporter != "" && exporter != "otlp") {
		return false, nil
	}
	if protocol := get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" && protocol != "grpc" {
		return false, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: traces are sent by grpc; set it to grpc, and the endpoint to the collector's port for gRPC, mostly 4317", protocol)
	}
	return true, nil
}
