package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Report is what a run of the benchmark found.
type Report struct {
	// CPUs is how many the machine has.
	CPUs int `json:"cpus"`
	// Data is the name of the data's folder.
	Data string `json:"data"`
	// Rows are the measurements, in the order in which they were taken.
	Rows []Row `json:"rows"`
	// Suites are the sets of statements that some rows sum up.
	Suites []Suite `json:"suites,omitempty"`
}

// Row is one measurement.
type Row struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Bound is the most that it may be; 0 where nothing is promised.
	Bound float64 `json:"bound,omitempty"`
	// Least says that the bound is the least it must be, not the most.
	Least bool `json:"least,omitempty"`
}

func (r *Report) add(name, unit string, value, bound float64) {
	r.Rows = append(r.Rows, Row{Name: name, Unit: unit, Value: value, Bound: bound})
}

// atLeast adds what is to be no less than its bound.
func (r *Report) atLeast(name, unit string, value, bound float64) {
	r.Rows = append(r.Rows, Row{Name: name, Unit: unit, Value: value, Bound: bound, Least: true})
}

// verdict says whether a bound is kept.
func (r Row) verdict() string {
	switch {
	case r.Bound == 0:
		return ""
	case r.Least == (r.Value >= r.Bound) || r.Value == r.Bound:
		return "kept"
	default:
		return "missed"
	}
}

func (r Row) bound() string {
	if r.Bound == 0 {
		return ""
	}
	sign := "≤"
	if r.Least {
		sign = "≥"
	}
	return fmt.Sprintf("%s %g %s", sign, r.Bound, r.Unit)
}

// number writes three significant digits, without an exponent.
func number(value float64) string {
	// What FormatFloat has written can be read.
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(value, 'e', 2, 64), 64)
	return humanize.Commaf(rounded)
}

// Markdown is the report as a table, and one more for each suite.
func (r *Report) Markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d CPUs, %s\n\n| what | measured | bound | |\n|---|---:|---:|---|\n", r.CPUs, r.Data)
	for _, row := range r.Rows {
		fmt.Fprintf(&out, "| %s | %s %s | %s | %s |\n", row.Name, number(row.Value), row.Unit, row.bound(), row.verdict())
	}
	for _, suite := range r.Suites {
		out.WriteString(suite.markdown())
	}
	return out.String()
}

// SVG is a plot of everything that has a bound, as a share of it.
func (r *Report) SVG() string {
	const line, label, full = 26, 380, 300
	var bars strings.Builder
	count := 0
	for _, row := range r.Rows {
		if row.Bound == 0 {
			continue
		}
		top := 30 + count*line
		width := max(1, min(row.Value/row.Bound, 1.5)*full)
		// A bar may be on either side of the line: some bounds are the most, others the least.
		colour := "#2a7f62"
		if row.verdict() == "missed" {
			colour = "#b5482f"
		}
		fmt.Fprintf(&bars, `<text x="%d" y="%d" text-anchor="end">%s</text>`, label-8, top+15, html.EscapeString(row.Name))
		fmt.Fprintf(&bars, `<rect x="%d" y="%d" width="%.0f" height="18" fill="%s"/>`, label, top, width, colour)
		fmt.Fprintf(&bars, `<text x="%.0f" y="%d">%s %s, bound %s</text>`+"\n", label+width+6, top+14, number(row.Value), row.Unit, row.bound())
		count++
	}
	height := 40 + count*line
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="%d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="18">share of the bound; the line is the bound itself; green keeps it, red misses it</text>
%s<line x1="%d" y1="24" x2="%d" y2="%d" stroke="black"/>
</svg>
`, height, label, bars.String(), label+full, label+full, height-10)
}
