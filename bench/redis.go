package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// redisRequests is how many redis-benchmark makes a turn: some seconds' worth.
const redisRequests = 200_000

// startRedis runs a Redis that writes nothing to disk and holds one value.
func startRedis(ctx context.Context, program, key string, value []byte) (*process, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	server, err := startListening(ctx, address, program, "--bind", host, "--port", port, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true})
	if err != nil {
		server.stop()
		return nil, err
	}
	defer client.Close()
	err = client.Do(ctx, client.B().Set().Key(key).Value(rueidis.BinaryString(value)).Build()).Error()
	held, failed := client.Do(ctx, client.B().Get().Key(key).Build()).ToString()
	err = errors.Join(err, failed)
	if err == nil && held != string(value) {
		err = fmt.Errorf("it holds %q", held)
	}
	if err != nil {
		server.stop()
		return nil, err
	}
	return server, nil
}

// redisBenchmark loads a server with one command over and over for one turn.
func redisBenchmark(ctx context.Context, program string, server *process, command ...string) (rate, error) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(server.url, "http://"))
	if err != nil {
		return rate{}, err
	}
	args := []string{"-h", host, "-p", port, "-c", strconv.Itoa(connections), "-n", strconv.Itoa(redisRequests), "--csv"}
	before := processorTime(server.pids())
	out, err := exec.CommandContext(ctx, program, append(args, command...)...).Output() //nolint:gosec // The program that the caller names.
	if err != nil {
		return rate{}, err
	}
	measured := rate{cpu: float64((processorTime(server.pids()) - before).Microseconds()) / redisRequests}
	lines, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil {
		return rate{}, err
	}
	if len(lines) != 2 {
		return rate{}, fmt.Errorf("redis-benchmark said %q", out)
	}
	for name, to := range map[string]*float64{"rps": &measured.perSecond, "p50_latency_ms": &measured.p50, "p99_latency_ms": &measured.p99} {
		column := slices.Index(lines[0], name)
		if column < 0 {
			return rate{}, fmt.Errorf("redis-benchmark said nothing of its %s: %s", name, out)
		}
		if *to, err = strconv.ParseFloat(lines[1][column], 64); err != nil {
			return rate{}, err
		}
	}
	return measured, nil
}
