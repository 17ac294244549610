package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	// allNumbers is answered by 4,000 lines and a header.
	allNumbers = "/v1/query?format=csv&sql=SELECT+n+FROM+numbers"
	publicName = "api.example.com"
)

func servingFlags(secret *harness.Secret) []string {
	return []string{"--tls-cert", secret.Path("tls.crt"), "--tls-key", secret.Path("tls.key")}
}

// trusting calls publicName, whatever the address, and offers HTTP/2.
func trusting(authority *harness.Authority) *tls.Config {
	return &tls.Config{RootCAs: authority.Pool(), ServerName: publicName, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}

// httpsClient speaks one version of HTTP over TLS, and counts the connections that it makes.
func httpsClient(t *testing.T, authority *harness.Authority, two bool) (client *http.Client, dialled *atomic.Int64) {
	t.Helper()
	dialled = &atomic.Int64{}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!two)
	protocols.SetHTTP2(two)
	config := trusting(authority)
	config.NextProtos = nil
	transport := &http.Transport{
		TLSClientConfig: config,
		Protocols:       protocols,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}, dialled
}

// fetch returns the body of a 200.
func fetch(ctx context.Context, client *http.Client, url string) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status + ": " + string(body))
	}
	return response, body, err
}

// shownSerial returns the serial number of the certificate that a new connection is shown.
func shownSerial(t *testing.T, address string, config *tls.Config) string {
	t.Helper()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	must(t, err)
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func serialOf(t *testing.T, files map[string][]byte) string {
	t.Helper()
	pair, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
	must(t, err)
	return pair.Leaf.SerialNumber.String()
}

func TestServesOverTLS(t *testing.T) {
	authority := harness.NewAuthority(t)
	secret := harness.NewSecret(t, authority.Issue(t, publicName))
	server := harness.Start(t, numbersDir(t), servingFlags(secret)...)
	address := strings.TrimPrefix(server.URL, "http://")
	for _, two := range []bool{false, true} {
		client, dialled := httpsClient(t, authority, two)
		// Short and long answers, new and kept, one after the other on one connection.
		for range 3 {
			for _, want := range []int{1, 10, 1000, 4000} {
				response, body, err := fetch(t.Context(), client, fmt.Sprintf("https://%s%s+LIMIT+%d", address, allNumbers, want))
				if err != nil || bytes.Count(body, []byte("\n")) != want+1 {
					t.Fatalf("%d rows: %v\n%.200s", want, err, body)
				}
				if version := map[bool]int{false: 1, true: 2}[two]; response.ProtoMajor != version || response.TLS.Version != tls.VersionTLS13 {
					t.Errorf("%s over TLS %x", response.Proto, response.TLS.Version)
				}
			}
		}
		if dialled.Load() != 1 {
			t.Errorf("%d connections were made, not one", dialled.Load())
		}
	}

	conn, err := grpc.NewClient(server.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(trusting(authority))))
	must(t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := quernv1.NewQueryServiceClient(conn).Query(ctx, &quernv1.QueryRequest{Sql: "SELECT n FROM numbers"})
	var rows int64
	for err == nil {
		var part *quernv1.QueryResponse
		part, err = stream.Recv()
		rows = max(rows, part.GetReceipt().GetRows())
	}
	if !errors.Is(err, io.EOF) || rows != 4000 {
		t.Errorf("gRPC over TLS: %d rows, %v", rows, err)
	}

	// The health check of a container asks on loopback, whatever the certificate's name is.
	for url, healthy := range map[string]bool{"https://" + address: true, "https://localhost:1": false, server.URL: false} {
		said, err := exec.CommandContext(t.Context(), harness.Binary(t, "quern"), "healthcheck", url).CombinedOutput()
		if (err == nil) != healthy {
			t.Errorf("healthcheck %s: %v %s", url, err, said)
		}
	}
	if _, body, err := fetch(t.Context(), http.DefaultClient, server.URL+"/healthz"); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("without TLS: %v %s", err, body)
	}
	old := &tls.Dialer{Config: trusting(authority)}
	old.Config.MinVersion, old.Config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, address := range []string{address, server.GRPC} {
		if conn, err := old.DialContext(t.Context(), "tcp", address); err == nil {
			_ = conn.Close()
			t.Errorf("TLS 1.1 is taken at %s", address)
		}
	}
}

// load asks for numbers until stop, by kept connections or by a new one for each request, and counts what fails.
type load struct {
	asked, failed atomic.Int64
	first         atomic.Pointer[error]
	stop          context.CancelFunc
	workers       sync.WaitGroup
}

func startLoad(t *testing.T, url string, clients ...*http.Client) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop}
	for _, client := range clients {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.asked.Add(1)
				// Not cut off by stop: what was asked is answered.
				_, body, err := fetch(t.Context(), client, url)
				if err == nil && bytes.Count(body, []byte("\n")) != 4001 {
					err = fmt.Errorf("got %d bytes", len(body))
				}
				if err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.workers.Wait()
	if failed := l.failed.Load(); failed > 0 || l.asked.Load() < 50 {
		var first error
		if failure := l.first.Load(); failure != nil {
			first = *failure
		}
		t.Errorf("%d of %d requests failed, the first with: %v", failed, l.asked.Load(), first)
	}
}

func TestCertificateIsReplacedUnderLoad(t *testing.T) {
	authority := harness.NewAuthority(t)
	first := authority.Issue(t, publicName)
	secret := harness.NewSecret(t, first)
	server := harness.Start(t, numbersDir(t), servingFlags(secret)...)
	address := strings.TrimPrefix(server.URL, "http://")

	one, dialledOne := httpsClient(t, authority, false)
	two, dialledTwo := httpsClient(t, authority, true)
	always, _ := httpsClient(t, authority, false)
	always.Transport.(*http.Transport).DisableKeepAlives = true
	apart, _ := httpsClient(t, authority, false)
	load := startLoad(t, "https://"+address+allNumbers, one, two, always)
	current := serialOf(t, first)
	for range 3 {
		next := authority.Issue(t, publicName)
		secret.Replace(t, next)
		current = serialOf(t, next)
		harness.Eventually(t, 10*time.Second, "new connections get the new certificate", func() bool {
			return shownSerial(t, address, trusting(authority)) == current && shownSerial(t, server.GRPC, trusting(authority)) == current
		})
	}
	// The pair of two halves, half a file, and none.
	other := authority.Issue(t, publicName)
	for number, wrong := range []map[string][]byte{
		{"tls.crt": other["tls.crt"], "tls.key": first["tls.key"], "ca.crt": authority.PEM},
		{"tls.crt": other["tls.crt"][:100], "tls.key": other["tls.key"], "ca.crt": authority.PEM},
		{},
	} {
		secret.Replace(t, wrong)
		count := fmt.Sprintf(`quern_tls_reload_failures_total{use="serving"} %d`, number+1)
		harness.Eventually(t, 10*time.Second, "the wrong files are noticed", func() bool {
			_, metrics, err := fetch(t.Context(), apart, "https://"+address+"/metrics")
			return err == nil && strings.Contains(string(metrics), count)
		})
		if strings.Count(server.Log(), "certificates are wrong; those from before stay in force") != number+1 {
			t.Error("the log does not tell of the wrong files once")
		}
		if shownSerial(t, address, trusting(authority)) != current {
			t.Error("the certificate from before is not in force")
		}
	}
	load.end(t)
	if dialledOne.Load() != 1 || dialledTwo.Load() != 1 {
		t.Errorf("connections were dropped: %d and %d were made", dialledOne.Load(), dialledTwo.Load())
	}
	_, metrics, err := fetch(t.Context(), apart, "https://"+address+"/metrics")
	must(t, err)
	if !strings.Contains(string(metrics), `quern_tls_certificate_expiry_timestamp_seconds{use="serving"} `) {
		t.Error("no metric tells when the certificate ends")
	}
}
