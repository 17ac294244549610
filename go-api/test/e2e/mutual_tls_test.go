package e2e

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	engineName = "engine.quern.svc"
	engineURI  = "spiffe://example.org/engine"
	edgeName   = "edge.quern.svc"
	edgeURI    = "spiffe://example.org/edge"
)

func engineFlags(secret *harness.Secret, clientName string) []string {
	return []string{
		"--tls-cert", secret.Path("tls.crt"), "--tls-key", secret.Path("tls.key"),
		"--tls-client-ca", secret.Path("ca.crt"), "--tls-client-name", clientName,
	}
}

func edgeFlags(secret *harness.Secret, name string) []string {
	return []string{
		"--engine-tls-ca", secret.Path("ca.crt"), "--engine-tls-cert", secret.Path("tls.crt"), "--engine-tls-key", secret.Path("tls.key"),
		"--engine-tls-name", name,
	}
}

func TestEdgeAndEngineTrustEachOther(t *testing.T) {
	authority := harness.NewAuthority(t)
	engine := harness.NewSecret(t, authority.Intermediate(t).Issue(t, engineName, engineURI, "127.0.0.1"))
	edge := harness.NewSecret(t, authority.Intermediate(t).Issue(t, edgeName, edgeURI))
	dir := numbersDir(t)
	for _, names := range []struct{ edge, engine string }{{edgeName, engineName}, {edgeURI, engineURI}, {edgeName, "127.0.0.1"}} {
		running := harness.StartTCPEngine(t, dir, engineFlags(engine, names.edge)...)
		server := harness.StartEdge(t, running.URL, edgeFlags(edge, names.engine)...)
		server.WaitReady(t)
		if answer, err := server.Query(t.Context(), "SELECT count(*) AS n FROM numbers", "json-array"); err != nil || !strings.Contains(string(answer), "4000") {
			t.Errorf("%v: %v %s", names, err, answer)
		}
		if strings.Contains(running.Log()+server.Log(), `"WARN"`) {
			t.Errorf("%v: something is wrong:\n%s\n%s", names, running.Log(), server.Log())
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	authority, other := harness.NewAuthority(t), harness.NewAuthority(t)
	// These two trust the authority, which does not know the second one's issuer.
	withOther := func(names ...string) *harness.Secret {
		files := other.Issue(t, names...)
		files["ca.crt"] = authority.PEM
		return harness.NewSecret(t, files)
	}
	dir := numbersDir(t)
	engine := harness.NewSecret(t, authority.Issue(t, engineName))
	edge := harness.NewSecret(t, authority.Issue(t, edgeName))
	right := harness.StartTCPEngine(t, dir, engineFlags(engine, edgeName)...)
	server := harness.StartEdge(t, right.URL, edgeFlags(edge, engineName)...)
	server.WaitReady(t)

	cases := []struct {
		what                string
		engine              *harness.TCPEngine
		flags               []string
		edgeSays, engineLog string
	}{
		{"an engine of another authority", harness.StartTCPEngine(t, dir, engineFlags(withOther(engineName), edgeName)...), edgeFlags(edge, engineName), "certificate signed by unknown authority", ""},
		{"an engine of another name", right, edgeFlags(edge, "other.quern.svc"), "certificate is valid for engine.quern.svc, not other.quern.svc", ""},
		{"an engine without the URI", right, edgeFlags(edge, engineURI), "the certificate is not for " + engineURI, ""},
		{"an engine named by the URL's host", right, edgeFlags(edge, "")[:6], "doesn't contain any IP SANs", ""},
		{"an edge of another authority", right, edgeFlags(withOther(edgeName), engineName), "the engine refuses this edge's certificate", "not signed by an authority in `--tls-client-ca`"},
		{
			"an edge of another name", right, edgeFlags(harness.NewSecret(t, authority.Issue(t, "other.quern.svc")), engineName),
			"the engine refuses this edge's certificate", "the client's certificate is not for `edge.quern.svc`; it is for other.quern.svc",
		},
		{"an edge without TLS", right, nil, "", "the client does not speak TLS"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			stranger := harness.StartEdge(t, c.engine.URL, c.flags...)
			harness.Eventually(t, 10*time.Second, "the reason is in the logs", func() bool {
				return strings.Contains(stranger.Log(), c.edgeSays) && strings.Contains(c.engine.Log(), c.engineLog)
			})
			if _, err := stranger.Get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("ready all the same: %v", err)
			}
			if _, err := stranger.Get(t.Context(), allNumbers+"&timeout=0.5s"); err == nil || !strings.Contains(err.Error(), "QUERY_TIMEOUT") {
				t.Errorf("asked all the same: %v", err)
			}
			if c.engineLog != "" && !strings.Contains(c.engine.Log(), `"peer":"127.0.0.1:`) {
				t.Error("the engine does not say who it was")
			}
		})
	}
	if _, err := server.Query(t.Context(), "SELECT n FROM numbers", "csv"); err != nil {
		t.Errorf("the right edge: %v", err)
	}
}

// TestHandshakesHarmNobody connects without a certificate, without a word and with garbage, many times at once.
func TestHandshakesHarmNobody(t *testing.T) {
	authority := harness.NewAuthority(t)
	engine := harness.StartTCPEngine(t, numbersDir(t), engineFlags(harness.NewSecret(t, authority.Issue(t, engineName)), edgeName)...)
	server := harness.StartEdge(t, engine.URL, edgeFlags(harness.NewSecret(t, authority.Issue(t, edgeName)), engineName)...)
	server.WaitReady(t)

	conn, err := tls.Dial("tcp", engine.Address, &tls.Config{RootCAs: authority.Pool(), ServerName: engineName, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
	if err == nil {
		// By TLS 1.3 the refusal comes with the first read.
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
	harness.Eventually(t, 10*time.Second, "the log says so", func() bool { return strings.Contains(engine.Log(), "the client showed no certificate") })

	before := strings.Count(engine.Log(), "connection refused")
	for range 10 {
		probe, err := net.DialTimeout("tcp", engine.Address, 5*time.Second)
		must(t, err)
		must(t, probe.Close())
	}
	const many = 200
	silent := make([]net.Conn, 0, many)
	for number := range many {
		conn, err := net.DialTimeout("tcp", engine.Address, 5*time.Second)
		must(t, err)
		defer func() { _ = conn.Close() }()
		if number%2 == 0 {
			silent = append(silent, conn)
			continue
		}
		_, err = conn.Write([]byte(strings.Repeat("garbage ", 100)))
		must(t, err)
	}
	// One more edge gets through meanwhile.
	another := harness.StartEdge(t, engine.URL, edgeFlags(harness.NewSecret(t, authority.Issue(t, edgeName)), engineName)...)
	another.WaitReady(t)
	for _, edge := range []*harness.Server{server, another} {
		if _, err := edge.Query(t.Context(), "SELECT n FROM numbers", "csv"); err != nil {
			t.Error(err)
		}
	}
	harness.Eventually(t, 10*time.Second, "what is refused is logged", func() bool {
		return strings.Count(engine.Log(), "connection refused") >= before+many/2
	})
	for _, conn := range silent {
		must(t, conn.SetDeadline(time.Now().Add(15*time.Second)))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a connection that says nothing is kept: %v", err)
		}
	}
	// Of all these the probes alone are no news.
	harness.Eventually(t, 10*time.Second, "what took too long is logged", func() bool {
		return strings.Count(engine.Log(), "the TLS handshake took too long") == many/2
	})
	if refused := strings.Count(engine.Log(), "connection refused") - before; refused != many {
		t.Errorf("%d connections are logged as refused, not %d", refused, many)
	}
}

func TestEngineCertificatesAreReplaced(t *testing.T) {
	authority := harness.NewAuthority(t)
	first := authority.Issue(t, engineName)
	engineFiles := harness.NewSecret(t, first)
	edgeFiles := harness.NewSecret(t, authority.Issue(t, edgeName))
	engine := harness.StartTCPEngine(t, numbersDir(t), engineFlags(engineFiles, edgeName)...)
	server := harness.StartEdge(t, engine.URL, edgeFlags(edgeFiles, engineName)...)
	server.WaitReady(t)
	load := startLoad(t, server.URL+allNumbers+"&timeout=10s", &http.Client{Timeout: 20 * time.Second}, noStore{}.client())

	// The edge's certificate of the new authority is taken only when the engine's files are; both trust both meanwhile.
	next := harness.NewAuthority(t)
	asEdge := func(by *harness.Authority) *tls.Config {
		files := by.Issue(t, edgeName)
		pair, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
		must(t, err)
		pool := authority.Pool()
		pool.AppendCertsFromPEM(next.PEM)
		return &tls.Config{RootCAs: pool, ServerName: engineName, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	}
	both := append(append([]byte{}, authority.PEM...), next.PEM...)
	renewed := next.Issue(t, engineName)
	renewed["ca.crt"] = both
	edgeRenewed := next.Issue(t, edgeName)
	edgeRenewed["ca.crt"] = both
	edgeFiles.Replace(t, edgeRenewed)
	engineFiles.Replace(t, renewed)
	harness.Eventually(t, 10*time.Second, "the engine shows the new certificate", func() bool {
		return shownSerial(t, engine.Address, asEdge(authority)) == serialOf(t, renewed)
	})
	shownSerial(t, engine.Address, asEdge(next))
	harness.Eventually(t, 10*time.Second, "the edge has the new certificate", func() bool { return strings.Contains(server.Log(), "certificates changed") })

	engineFiles.Replace(t, map[string][]byte{"tls.crt": first["tls.crt"], "tls.key": renewed["tls.key"], "ca.crt": both})
	harness.Eventually(t, 10*time.Second, "the engine says that the files are wrong", func() bool {
		return strings.Contains(engine.Log(), "certificates are wrong; those from before stay in force")
	})
	if shownSerial(t, engine.Address, asEdge(next)) != serialOf(t, renewed) {
		t.Error("the certificate from before is not in force")
	}
	load.end(t)

	// Edges that start now go by the new authority alone.
	late := harness.StartEdge(t, engine.URL, edgeFlags(harness.NewSecret(t, next.Issue(t, edgeName)), engineName)...)
	late.WaitReady(t)
}

// noStore is a client whose requests are executed each time.
type noStore struct{}

func (n noStore) client() *http.Client { return &http.Client{Transport: n, Timeout: 20 * time.Second} }

// RoundTrip implements http.RoundTripper.
func (noStore) RoundTrip(request *http.Request) (*http.Response, error) {
	request.Header.Set("Cache-Control", "no-store")
	return http.DefaultTransport.RoundTrip(request)
}

func TestPlainTCPStaysOnTheMachine(t *testing.T) {
	dir := numbersDir(t)
	if said := harness.Refused(t, "quern-engine", "--listen", "tcp://0.0.0.0:0", dir); !strings.Contains(said, "--plain-tcp") || !strings.Contains(said, "--tls-client-ca") {
		t.Error(said)
	}
	for _, engine := range []string{"dns:///engine.invalid:9091", "tcp://192.0.2.1:9091"} {
		if said := harness.Refused(t, "quern", "serve", "--engine", engine); !strings.Contains(said, "--plain-tcp") || !strings.Contains(said, "--engine-tls-ca") {
			t.Error(said)
		}
	}
	// TLS is no question of where: on all addresses it needs no leave. The variables do as the flags.
	secret := harness.NewSecret(t, harness.NewAuthority(t).Issue(t, engineName))
	t.Run("variables", func(t *testing.T) {
		t.Setenv("QUERN_ENGINE_LISTEN_TLS_CERT", secret.Path("tls.crt"))
		t.Setenv("QUERN_ENGINE_LISTEN_TLS_KEY", secret.Path("tls.key"))
		t.Setenv("QUERN_ENGINE_LISTEN_TLS_CLIENT_CA", secret.Path("ca.crt"))
		t.Setenv("QUERN_ENGINE_LISTEN_TLS_CLIENT_NAME", edgeName)
		engine := harness.StartTCPEngine(t, dir, "--listen", "tcp://0.0.0.0:0")
		if !strings.Contains(engine.Log(), `"tls":true`) {
			t.Error("it does not use TLS")
		}
	})
	t.Run("plain", func(t *testing.T) {
		t.Setenv("QUERN_PLAIN_TCP", "true")
		engine := harness.StartTCPEngine(t, dir, "--listen", "tcp://0.0.0.0:0")
		_, port, err := net.SplitHostPort(engine.Address)
		must(t, err)
		server := harness.StartEdge(t, "tcp://127.0.0.1:"+port)
		server.WaitReady(t)
		// Called by a name that is not this machine's own, the edge starts too, whether anyone answers there or not.
		harness.StartEdge(t, "dns:///engine.invalid:"+port)
	})
	for _, c := range []struct{ says, flag, value string }{
		{"no pair", "--tls-key", harness.NewSecret(t, harness.NewAuthority(t).Issue(t, "x")).Path("tls.key")},
		{"can't read", "--tls-cert", dir + "/none"},
		{"no certificate in PEM", "--tls-client-ca", dir + "/numbers.csv"},
	} {
		flags := engineFlags(secret, edgeName)
		for i := range flags {
			if flags[i] == c.flag {
				flags[i+1] = c.value
			}
		}
		if said := harness.Refused(t, "quern-engine", append(flags, "--listen", "tcp://127.0.0.1:0", dir)...); !strings.Contains(said, c.says) {
			t.Errorf("%s: %s", c.says, said)
		}
	}
}
