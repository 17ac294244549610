package config

import (
	"fmt"
	"net"
)

// LocalURL returns where this machine reaches a server that listens as QUERN_HTTP says, or by default; with TLS where
// QUERN_TLS_CERT names a certificate.
func LocalURL(lookup func(string) (string, bool)) (string, error) {
	address, ok := lookup(variable("http"))
	if !ok || address == "" {
		address = defaultHTTP
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s=%q is no address; write host:port, such as 127.0.0.1:8080", variable("http"), address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if cert, ok := lookup(variable("tls-cert")); ok && cert != "" {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port), nil
}
