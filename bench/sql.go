package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// tpchQueries are those of the tests that compare each value of the answers.
	tpchQueries = "go-api/test/differential/queries/q*.sql"
	// flightQueries are one statement a line.
	flightQueries = "bench/queries/flights.sql"
	// littleHot is much less than the columns that TPC-H's queries read.
	littleHot = "64MiB"
)

// measureTPCH executes TPC-H's queries beside DuckDB, warm, then again with little memory for hot columns.
func measureTPCH(ctx context.Context, s settings, r *Report) error {
	suite := Suite{Name: "TPC-H"}
	files, err := filepath.Glob(tpchQueries)
	if err != nil {
		return err
	}
	if len(files) != 22 {
		return fmt.Errorf("%d queries of TPC-H at %s", len(files), tpchQueries)
	}
	for _, file := range files {
		sql, err := os.ReadFile(file) //nolint:gosec // The repository's own file.
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		suite.Statements = append(suite.Statements, Statement{Name: name, SQL: strings.TrimSpace(string(sql))})
	}
	tables, err := filepath.Glob(filepath.Join(s.data, "*.parquet"))
	if err != nil {
		return err
	}
	if err := measureBesideDuckDB(ctx, s, r, suite, tables, 1, 2, s.data); err != nil {
		return err
	}
	suite.Name = "TPC-H, --hot-bytes " + littleHot
	return measureBesideDuckDB(ctx, s, r, suite, tables, 1.5, 0, "--hot-bytes", littleHot, s.data)
}

// measureFlights executes what ClickBench asks on a table of 3 million flights beside DuckDB, warm.
func measureFlights(ctx context.Context, s settings, r *Report) error {
	if s.vega == "" {
		return nil
	}
	text, err := os.ReadFile(flightQueries)
	if err != nil {
		return err
	}
	suite := Suite{Name: "flights"}
	for line := range strings.Lines(string(text)) {
		sql := strings.TrimSuffix(strings.TrimSpace(line), ";")
		if sql == "" || strings.HasPrefix(sql, "--") {
			continue
		}
		name := strconv.Itoa(len(suite.Statements) + 1)
		suite.Statements = append(suite.Statements, Statement{Name: name, SQL: sql})
	}
	// As many as ClickBench has.
	if len(suite.Statements) != 43 {
		return fmt.Errorf("%d statements in %s", len(suite.Statements), flightQueries)
	}
	table := filepath.Join(s.vega, "flights-3m.parquet")
	return measureBesideDuckDB(ctx, s, r, suite, []string{table}, 1, 0, s.vega)
}

// measureBesideDuckDB measures a suite by a Quern of the given arguments and a DuckDB on the given tables, and how much
// memory they took for it.
func measureBesideDuckDB(ctx context.Context, s settings, r *Report, suite Suite, tables []string, mean, worst float64, args ...string) error {
	edge, err := startQuern(ctx, append([]string{"--log-level", "warn"}, args...)...)
	if err != nil {
		return err
	}
	defer edge.stop()
	duck, err := startDuckDB(ctx, s, "bench/duckdb_query.py", tables...)
	if err != nil {
		return err
	}
	defer duck.stop()
	if err := suite.measure(ctx, s.runs, r, edge, duck, mean, worst); err != nil {
		return err
	}
	engine, err := child(edge.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.add(suite.Name+": engine resident at most", "MiB", float64(peak(engine)), 0)
	r.add(suite.Name+": DuckDB resident at most", "MiB", float64(peak(duck.cmd.Process.Pid)), 0)
	return nil
}
