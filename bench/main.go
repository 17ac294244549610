// Command bench measures Quern against the bounds that it promises and beside its peers, on TPC-H data and this
// machine. What is compared is measured in one run, in turns, and stated as a ratio.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// settings are the command's flags.
type settings struct {
	data           string
	out            string
	python         string
	roapi          string
	wrk            string
	nginx          string
	varnish        string
	vega           string
	jsonServer     string
	redis          string
	redisBenchmark string
	only           string
	runs           int
	calls          int
}

// parts are what is measured, in this order.
var parts = []struct {
	name    string
	measure func(context.Context, settings, *Report) error
}{
	{"start", measureStart},
	{"export", measureExport},
	{"select", measureSelect},
	{"crowd", measureCrowd},
	{"cache", measureCache},
	{"otel", measureTraces},
	{"rows", measureRows},
	{"tpch", measureTPCH},
	{"flights", measureFlights},
}

func main() {
	var s settings
	flag.StringVar(&s.data, "data", "", "`folder` of TPC-H tables in Parquet")
	flag.StringVar(&s.out, "out", "bench/results", "`folder` for results.json, results.md and results.svg")
	flag.StringVar(&s.python, "python", "python3", "a Python with duckdb")
	flag.StringVar(&s.roapi, "roapi", "", "the roapi program; left out where empty")
	flag.StringVar(&s.wrk, "wrk", "", "the wrk program; without it the cache is not measured")
	flag.StringVar(&s.varnish, "varnish", "", "the varnishd program; left out where empty")
	flag.StringVar(&s.vega, "vega", "", "the folder of the npm package vega-datasets; left out where empty")
	flag.StringVar(&s.jsonServer, "json-server", "", "the json-server program; left out where empty")
	flag.StringVar(&s.redis, "redis", "", "the redis-server program; left out where empty")
	flag.StringVar(&s.redisBenchmark, "redis-benchmark", "", "the redis-benchmark program; without it Redis is left out")
	flag.StringVar(&s.nginx, "nginx", "", "the nginx program; left out where empty")
	flag.Func("only", "measure only the `part` start, export, select, crowd, cache, otel, rows, tpch or flights", func(name string) error {
		for _, part := range parts {
			if part.name == name {
				s.only = name
				return nil
			}
		}
		return errors.New("there is no such part")
	})
	bytes := flag.String("serve-bytes", "", "serve a `file`'s bytes by a bare handler, and nothing else")
	flag.IntVar(&s.runs, "runs", 5, "rounds of each export, statement and load")
	flag.IntVar(&s.calls, "calls", 500, "rounds of SELECT 1")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *bytes != "" {
		err = serveBytes(ctx, *bytes)
	} else {
		err = run(ctx, s)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	results := &Report{CPUs: runtime.NumCPU(), Data: filepath.Base(s.data)}
	for _, part := range parts {
		if s.only != "" && s.only != part.name {
			continue
		}
		if err := part.measure(ctx, s, results); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.out, 0o750); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"results.json": string(encoded) + "\n",
		"results.md":   results.Markdown(),
		"results.svg":  results.SVG(),
	} {
		if err := os.WriteFile(filepath.Join(s.out, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	fmt.Print(results.Markdown())
	return nil
}
