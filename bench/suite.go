package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Suite is a set of statements that Quern and DuckDB execute on the same files.
type Suite struct {
	Name       string      `json:"name"`
	Statements []Statement `json:"statements"`
}

// Statement is one of them, and what it took.
type Statement struct {
	Name string `json:"name"`
	SQL  string `json:"sql"`
	// Rows is how many rows the answer has, in both.
	Rows int64 `json:"rows"`
	// Quern and DuckDB are the rounds' medians in milliseconds.
	Quern  float64 `json:"quern_ms"`
	DuckDB float64 `json:"duckdb_ms"`
	// Ratio is the median of the rounds' ratios, Quern's time divided by DuckDB's.
	Ratio float64 `json:"ratio"`
}

// measure executes each statement in turns, and adds what the ratios come to; a bound of 0 promises nothing.
func (s Suite) measure(ctx context.Context, rounds int, r *Report, edge *process, duck *duckDB, mean, worst float64) error {
	// What is measured is a copy: the same statements may be measured again.
	measured := Suite{Name: s.Name, Statements: slices.Clone(s.Statements)}
	for i := range measured.Statements {
		if err := measured.Statements[i].measure(ctx, rounds, edge, duck); err != nil {
			return fmt.Errorf("%s, %s: %w", s.Name, s.Statements[i].Name, err)
		}
	}
	r.Suites = append(r.Suites, measured)
	slowest := measured.worst()
	r.add(s.Name+": Quern / DuckDB, geometric mean", "×", measured.geometricMean(), mean)
	r.add(fmt.Sprintf("%s: Quern / DuckDB, worst (%s)", s.Name, slowest.Name), "×", slowest.Ratio, worst)
	return nil
}

// measure executes a statement in turns. Answers of different numbers of rows are an error, since one must be wrong.
func (s *Statement) measure(ctx context.Context, rounds int, edge *process, duck *duckDB) error {
	first := true
	counted := func(took time.Duration, rows int64, err error) (time.Duration, error) {
		if first {
			first, s.Rows = false, rows
		}
		if err == nil && rows != s.Rows {
			err = fmt.Errorf("%d rows, and %d before: %s", rows, s.Rows, s.SQL)
		}
		return took, err
	}
	contenders := []contender{
		{"Quern", func() (time.Duration, error) { return counted(askRows(ctx, edge.url, s.SQL)) }},
		{"DuckDB", func() (time.Duration, error) { return counted(duck.query(s.SQL)) }},
	}
	medians, ratios, err := inTurns(contenders, rounds)
	if err != nil {
		return err
	}
	s.Quern, s.DuckDB, s.Ratio = medians["Quern"]*1e3, medians["DuckDB"]*1e3, ratios["DuckDB"]
	return nil
}

// geometricMean is that of the statements' ratios.
func (s Suite) geometricMean() float64 {
	sum := 0.0
	for _, statement := range s.Statements {
		sum += math.Log(statement.Ratio)
	}
	return math.Exp(sum / float64(len(s.Statements)))
}

// worst is the statement of the largest ratio.
func (s Suite) worst() Statement {
	return slices.MaxFunc(s.Statements, func(a, b Statement) int { return cmp.Compare(a.Ratio, b.Ratio) })
}

// markdown is a table of the statements.
func (s Suite) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s:\n\n| statement | rows | Quern | DuckDB | Quern / DuckDB |\n|---|---:|---:|---:|---:|\n", s.Name)
	for _, one := range s.Statements {
		fmt.Fprintf(&out, "| %s | %d | %s ms | %s ms | %s × |\n", one.Name, one.Rows, number(one.Quern), number(one.DuckDB), number(one.Ratio))
	}
	return out.String()
}
