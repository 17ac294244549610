package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

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

// startJSONServer serves a file of tables by json-server, which reads it into memory at the start.
func startJSONServer(ctx context.Context, program, key string, tables []byte) (*process, error) {
	folder, err := os.MkdirTemp("", "quern-bench-json-server-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, "tables.json")
	if err := os.WriteFile(file, tables, 0o600); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	// Neither a line of log nor a coding for each answer: the others have none either.
	return startListening(ctx, address, program, "--quiet", "--no-gzip", "--id", key, "--host", host, "--port", port, file)
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

// startROAPI serves one table by ROAPI, read into memory at the start, as it does by default.
func startROAPI(ctx context.Context, program, file string) (*process, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	command := start(ctx, program, "--addr-http", address, "--addr-postgres", "127.0.0.1:0", "--addr-flight-sql", "127.0.0.1:0", "--table", "orders="+file)
	if err := command.Start(); err != nil {
		return nil, err
	}
	server := &process{cmd: command, url: "http://" + address}
	err = server.await(ctx, "/api/schema", started)
	return server, err
}
