package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// small is an answer of about 5 KB, large one of about 1 MB.
	small = "SELECT * FROM nation"
	large = "SELECT * FROM orders WHERE o_orderkey < 16800"
	// connections is how many wrk holds open.
	connections = 32
	// load is how long each turn of wrk is.
	load = 3 * time.Second
)

// target is one server of the same bytes.
type target struct {
	name, url string
	pid       int
	header    []string
	// connections is how many wrk holds open, where not the usual number.
	connections int
}

// rate is what wrk measured.
type rate struct {
	perSecond, p50, p99 float64
	// cpu is the server's processor time a request, in microseconds.
	cpu float64
}

// measureCache compares answers from memory with a bare handler, nginx's proxy_cache, Varnish and ROAPI.
func measureCache(ctx context.Context, s settings, r *Report) error {
	if s.wrk == "" {
		return nil
	}
	edge, err := startQuern(ctx, "--log-level", "warn", s.data)
	if err != nil {
		return err
	}
	defer edge.stop()
	for _, size := range []struct {
		name, sql string
		least     float64
	}{{"5 KB", small, 0.7}, {"1 MB", large, 0.9}} {
		if err := measureHits(ctx, s, r, edge, size.name, size.sql, size.least); err != nil {
			return err
		}
	}
	return measureMisses(ctx, s, r)
}

func queryURL(base, sql string) string { return base + "/v1/query?sql=" + url.QueryEscape(sql) }

func measureHits(ctx context.Context, s settings, r *Report, edge *process, size, sql string, least float64) error {
	body, tag, err := fetch(ctx, queryURL(edge.url, sql))
	if err != nil {
		return err
	}
	bare, err := startBare(ctx, body)
	if err != nil {
		return err
	}
	defer bare.stop()
	targets := []target{
		{name: "bare handler", url: bare.url, pid: bare.cmd.Process.Pid},
		{name: "Quern", url: queryURL(edge.url, sql), pid: edge.cmd.Process.Pid},
		{name: "Quern, 304", url: queryURL(edge.url, sql), pid: edge.cmd.Process.Pid, header: []string{"If-None-Match: " + tag}},
	}
	if s.nginx != "" {
		proxy, err := startNginx(ctx, s.nginx, edge.url)
		if err != nil {
			return fmt.Errorf("nginx: %w", err)
		}
		defer proxy.stop()
		targets = append(targets, target{name: "nginx proxy_cache before Quern", url: queryURL(proxy.url, sql)})
	}
	if s.varnish != "" {
		proxy, err := startVarnish(ctx, s.varnish, edge.url)
		if err != nil {
			return fmt.Errorf("varnish: %w", err)
		}
		defer proxy.stop()
		targets = append(targets, target{name: "Varnish before Quern", url: queryURL(proxy.url, sql)})
	}
	if s.roapi != "" && sql == small {
		peer, err := startROAPI(ctx, s.roapi, filepath.Join(s.data, "nation.parquet"))
		if err != nil {
			return fmt.Errorf("roapi: %w", err)
		}
		defer peer.stop()
		targets = append(targets, target{name: "ROAPI", url: peer.url + "/api/tables/orders"})
	}
	rounds, err := inWrkTurns(ctx, s, targets)
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("hit of %s (%d bytes): ", size, len(body))
	rounds.report(r, prefix, targets)
	against := rounds.against
	r.atLeast(prefix+"Quern / bare handler", against("Quern", "bare handler"), least)
	if s.nginx != "" && sql == small {
		r.atLeast(prefix+"Quern / nginx proxy_cache", against("Quern", "nginx proxy_cache before Quern"), 0.45)
	}
	r.atLeast(prefix+"304 / hit", against("Quern, 304", "Quern"), 1)
	return nil
}

// rates are what wrk has measured of each target, round by round.
type rates map[string][]rate

// inWrkTurns loads each target in every round.
func inWrkTurns(ctx context.Context, s settings, targets []target) (rates, error) {
	rounds := rates{}
	for range s.runs {
		for _, t := range targets {
			measured, err := wrk(ctx, s.wrk, t)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			rounds[t.name] = append(rounds[t.name], measured)
		}
	}
	return rounds, nil
}

// report adds the medians.
func (rounds rates) report(r *Report, prefix string, targets []target) {
	of := func(name string, what func(rate) float64) float64 {
		var values []float64
		for _, measured := range rounds[name] {
			values = append(values, what(measured))
		}
		return median(values)
	}
	for _, t := range targets {
		r.add(prefix+t.name, "requests/s", of(t.name, func(m rate) float64 { return m.perSecond }), 0)
		r.add(prefix+t.name+", p50", "ms", of(t.name, func(m rate) float64 { return m.p50 }), 0)
		r.add(prefix+t.name+", p99", "ms", of(t.name, func(m rate) float64 { return m.p99 }), 0)
		if t.pid != 0 {
			r.add(prefix+t.name+", processor time a request", "µs", of(t.name, func(m rate) float64 { return m.cpu }), 0)
		}
	}
}

// against is the median of the rounds' ratios.
func (rounds rates) against(name, peer string) float64 {
	var ratios []float64
	for i := range rounds[name] {
		ratios = append(ratios, rounds[name][i].perSecond/rounds[peer][i].perSecond)
	}
	return median(ratios)
}

// fetch asks until the answer is from memory, and returns it with its tag.
func fetch(ctx context.Context, address string) (body []byte, tag string, err error) {
	for range 20 {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return nil, "", err
		}
		// wrk asks for no coding either.
		request.Header.Set("Accept-Encoding", "identity")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, "", err
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return nil, "", err
		}
		if strings.HasSuffix(response.Header.Get("Cache-Status"), "; hit") {
			return body, response.Header.Get("Etag"), nil
		}
	}
	return nil, "", errors.New("the answer is never from memory")
}

// serveBytes is the bare handler: `bench --serve-bytes FILE` writes the same bytes to everyone.
func serveBytes(ctx context.Context, file string) error {
	body, err := os.ReadFile(file) //nolint:gosec // The file that bench itself has written.
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func startBare(ctx context.Context, body []byte) (*process, error) {
	file, err := os.CreateTemp("", "quern-bench-*")
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(body); err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := start(ctx, program, "--serve-bytes", file.Name())
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return nil, err
	}
	var address string
	if _, err := fmt.Fscan(out, &address); err != nil {
		return nil, err
	}
	return &process{cmd: command, url: "http://" + address}, errors.Join(file.Close(), os.Remove(file.Name()))
}

// startNginx runs nginx with a cache of its own before a server.
func startNginx(ctx context.Context, program, upstream string) (*process, error) {
	folder, err := os.MkdirTemp("", "quern-bench-nginx-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	owner := ""
	if os.Geteuid() == 0 {
		// Its workers would become nobody, who can't write here.
		owner = "user root;"
	}
	config := fmt.Sprintf(`%[4]s daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  keepalive_requests 1000000;
  proxy_cache_path %[1]s/cache keys_zone=quern:10m;
  server { listen %[2]s; location / {
    proxy_pass %[3]s; proxy_cache quern; proxy_ignore_headers Cache-Control Vary; proxy_cache_valid 200 10m;
  } }
}
`, folder, address, upstream, owner)
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return startListening(ctx, address, program, "-c", file, "-p", folder)
}

// startVarnish runs Varnish, with its cache in memory, before a server.
func startVarnish(ctx context.Context, program, upstream string) (*process, error) {
	folder, err := os.MkdirTemp("", "quern-bench-varnish-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	backend, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`vcl 4.1;
backend quern { .host = %q; .port = %q; }
sub vcl_backend_response { unset beresp.http.Vary; set beresp.ttl = 10m; return (deliver); }
`, backend.Hostname(), backend.Port())
	file := filepath.Join(folder, "quern.vcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return startListening(ctx, address, program, "-F", "-j", "none", "-n", folder, "-f", file, "-s", "malloc,256m", "-a", address)
}

// freeAddress is an address that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// startListening starts a program and waits until it listens.
func startListening(ctx context.Context, address string, command ...string) (*process, error) {
	started := start(ctx, command...)
	if err := started.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: started, url: "http://" + address}, waitFor(ctx, func() bool {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

var (
	wrkRequests = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkLatency  = regexp.MustCompile(`(50|99)%\s+([\d.]+)(us|ms|s)`)
	wrkErrors   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)`)
)

// wrk loads a server for one turn.
func wrk(ctx context.Context, program string, t target) (rate, error) {
	args := []string{"-t1", "-c" + strconv.Itoa(cmp.Or(t.connections, connections)), "-d" + strconv.Itoa(int(load.Seconds())) + "s", "--latency"}
	for _, header := range t.header {
		args = append(args, "-H", header)
	}
	before := processorTime(t.pid)
	//nolint:gosec // The program that the caller names.
	out, err := exec.CommandContext(ctx, program, append(args, t.url)...).CombinedOutput()
	if err != nil {
		return rate{}, fmt.Errorf("%w: %s", err, out)
	}
	after := processorTime(t.pid)
	if problem := wrkErrors.Find(out); problem != nil {
		return rate{}, fmt.Errorf("%s", problem)
	}
	found := wrkRequests.FindSubmatch(out)
	if found == nil {
		return rate{}, fmt.Errorf("wrk said nothing of its rate: %s", out)
	}
	var measured rate
	measured.perSecond, _ = strconv.ParseFloat(string(found[1]), 64)
	measured.cpu = float64((after - before).Microseconds()) / (measured.perSecond * load.Seconds())
	for _, latency := range wrkLatency.FindAllSubmatch(out, -1) {
		value, _ := strconv.ParseFloat(string(latency[2]), 64)
		value *= map[string]float64{"us": 1e-3, "ms": 1, "s": 1e3}[string(latency[3])]
		if string(latency[1]) == "50" {
			measured.p50 = value
		} else {
			measured.p99 = value
		}
	}
	return measured, nil
}

// processorTime is what a process has used so far.
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	kernel, _ := strconv.Atoi(fields[12])
	return time.Duration(user+kernel) * 10 * time.Millisecond
}

// measureMisses takes what the cache costs where it can't help, and what a full one takes.
func measureMisses(ctx context.Context, s settings, r *Report) error {
	edge, err := startQuern(ctx, "--log-level", "warn", s.data)
	if err != nil {
		return err
	}
	defer edge.stop()
	number := 0
	cold := func(header string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			number++
			sql := fmt.Sprintf("SELECT sum(c_acctbal) + %d AS s, count(DISTINCT c_mktsegment) AS d FROM customer", number)
			answer, err := askWith(ctx, edge.url, sql, header)
			return answer.Whole, err
		}
	}
	contenders := []contender{{"through the cache", cold("")}, {"past it", cold("no-store")}}
	medians, ratios, err := inTurns(contenders, s.calls)
	if err != nil {
		return err
	}
	r.add("cold query: through the cache", "ms", medians["through the cache"]*1e3, 0)
	r.add("cold query: past it", "ms", medians["past it"]*1e3, 0)
	r.add("cold query: through the cache / past it", "×", ratios["past it"], 1.05)

	exports := func(header string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			answer, err := askWith(ctx, edge.url, export, header)
			return answer.Whole, err
		}
	}
	_, ratios, err = inTurns([]contender{{"through the cache", exports("")}, {"past it", exports("no-store")}}, s.runs)
	if err != nil {
		return err
	}
	r.add("export: through the cache / past it", "×", ratios["past it"], 1.05)

	// Answers of about 1 MB, twice as many as fit.
	const fill = 600
	for i := range fill {
		sql := fmt.Sprintf("SELECT * FROM orders WHERE o_orderkey < %d", 16_800+i)
		if _, err := askWith(ctx, edge.url, sql, ""); err != nil {
			return err
		}
	}
	r.add("a full cache of 256 MiB: edge resident", "MiB", float64(resident(edge.cmd.Process.Pid)), 1.4*256)
	return nil
}
