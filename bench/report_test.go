package main

import (
	"strings"
	"testing"
)

func TestBoundsOfBothKinds(t *testing.T) {
	const green, red = "#2a7f62", "#b5482f"
	for _, c := range []struct {
		row            Row
		verdict, plain string
		colour         string
	}{
		{Row{Value: 0.9, Bound: 1}, "kept", "≤ 1 ×", green},
		{Row{Value: 1, Bound: 1}, "kept", "≤ 1 ×", green},
		{Row{Value: 1.1, Bound: 1}, "missed", "≤ 1 ×", red},
		{Row{Value: 0.6, Bound: 0.7, Least: true}, "missed", "≥ 0.7 ×", red},
		{Row{Value: 0.7, Bound: 0.7, Least: true}, "kept", "≥ 0.7 ×", green},
		{Row{Value: 14, Bound: 1, Least: true}, "kept", "≥ 1 ×", green},
		{Row{Value: 14}, "", "", ""},
	} {
		c.row.Unit = "×"
		if got := c.row.verdict(); got != c.verdict {
			t.Errorf("%+v: %q", c.row, got)
		}
		if got := c.row.bound(); got != c.plain {
			t.Errorf("%+v: bound %q", c.row, got)
		}
		plot := (&Report{Rows: []Row{c.row}}).SVG()
		for _, colour := range []string{green, red} {
			if strings.Contains(plot, colour) != (colour == c.colour) {
				t.Errorf("%+v: not %q in %s", c.row, c.colour, plot)
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for value, want := range map[float64]string{0.004937: "0.00494", 1: "1", 23123.4: "23,100", 97.44: "97.4", 0: "0", 2.446: "2.45"} {
		if got := number(value); got != want {
			t.Errorf("%v: %q, want %q", value, got, want)
		}
	}
}
