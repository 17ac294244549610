package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// connections is how many wrk holds open.
	connections = 32
	// load is how long each turn of wrk is.
	load = 3 * time.Second
)

// target is one server of the same bytes.
type target struct {
	name, url string
	// pids are the processes whose processor time is stated.
	pids   []int
	header []string
	// connections is how many wrk holds open, where not the usual number.
	connections int
	// least is how many requests a second it is to answer, 0 where nothing was promised.
	least float64
	// load is what takes a turn instead of wrk.
	load func() (rate, error)
}

// rate is what a turn measured: requests a second, and latencies in milliseconds.
type rate struct {
	perSecond, p50, p99 float64
	// cpu is the server's processor time a request, in microseconds.
	cpu float64
}

// rates are what was measured of each target, round by round.
type rates map[string][]rate

// loadInTurns loads each target in every round, after one round that does not count.
func loadInTurns(ctx context.Context, s settings, targets []target) (rates, error) {
	rounds := rates{}
	for round := range s.runs + 1 {
		for _, t := range targets {
			turn := t.load
			if turn == nil {
				turn = func() (rate, error) { return wrk(ctx, s.wrk, t) }
			}
			measured, err := turn()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			if round > 0 {
				rounds[t.name] = append(rounds[t.name], measured)
			}
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
		r.atLeast(prefix+t.name, "requests/s", of(t.name, func(m rate) float64 { return m.perSecond }), t.least)
		r.add(prefix+t.name+", p50", "ms", of(t.name, func(m rate) float64 { return m.p50 }), 0)
		r.add(prefix+t.name+", p99", "ms", of(t.name, func(m rate) float64 { return m.p99 }), 0)
		if len(t.pids) > 0 {
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
	before := processorTime(t.pids)
	//nolint:gosec // The program that the caller names.
	out, err := exec.CommandContext(ctx, program, append(args, t.url)...).CombinedOutput()
	if err != nil {
		return rate{}, fmt.Errorf("%w: %s", err, out)
	}
	after := processorTime(t.pids)
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

// processorTime is what processes have used so far.
func processorTime(pids []int) time.Duration {
	var ticks int
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			continue
		}
		user, _ := strconv.Atoi(fields[11])
		kernel, _ := strconv.Atoi(fields[12])
		ticks += user + kernel
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
