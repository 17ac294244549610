package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

const (
	// small is an answer of about 5 KB, large one of about 1 MB.
	small = "SELECT * FROM nation"
	large = "SELECT * FROM orders WHERE o_orderkey < 16800"
)

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
		{name: "bare handler", url: bare.url, pids: bare.pids()},
		{name: "Quern", url: queryURL(edge.url, sql), pids: edge.pids()},
		{name: "Quern, 304", url: queryURL(edge.url, sql), pids: edge.pids(), header: []string{"If-None-Match: " + tag}},
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
	rounds, err := loadInTurns(ctx, s, targets)
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("hit of %s (%d bytes): ", size, len(body))
	rounds.report(r, prefix, targets)
	against := rounds.against
	r.atLeast(prefix+"Quern / bare handler", "×", against("Quern", "bare handler"), least)
	if s.nginx != "" && sql == small {
		r.atLeast(prefix+"Quern / nginx proxy_cache", "×", against("Quern", "nginx proxy_cache before Quern"), 0.45)
	}
	r.atLeast(prefix+"304 / hit", "×", against("Quern, 304", "Quern"), 1)
	return nil
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
