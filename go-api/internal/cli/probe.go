package cli

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
)

// probeClient returns the client of a health check. On loopback it does not ask for whom the certificate is, as kubelet
// does not: certificates name the host that callers know, and nothing is sent that anyone may not have.
func probeClient(target *url.URL) *http.Client {
	host := target.Hostname()
	if ip := net.ParseIP(host); target.Scheme != "https" || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
	}}
}
