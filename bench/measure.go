package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

const export = "SELECT * FROM orders"

// crowd is how many exports run at once.
const crowd = 8

// measureStart takes the time from exec to ready, and what the first query costs beyond a repeated one.
func measureStart(ctx context.Context, s settings, r *Report) error {
	var ready, extra []float64
	for range s.runs {
		server, err := startQuern(ctx, s.data)
		if err != nil {
			return err
		}
		var took [3]time.Duration
		for i := range took {
			answer, err := ask(ctx, server.url, "SELECT count(*), max(o_totalprice) FROM orders")
			if err != nil {
				return errors.Join(err, server.cmd.Cancel())
			}
			took[i] = answer.Whole
		}
		ready = append(ready, server.took.Seconds())
		extra = append(extra, (took[0] - min(took[1], took[2])).Seconds())
		server.stop()
	}
	r.add("ready after", "s", median(ready), 1)
	r.add("first query beyond a repeated one", "s", median(extra), 0.3)
	return nil
}

// stack is an engine, an edge on it, and a client of the engine alone.
type stack struct {
	engine, edge *process
	query        enginev1.QueryServiceClient
	connection   *grpc.ClientConn
	folder       string
	// socket is the engine's.
	socket string
}

func startStack(ctx context.Context, s settings) (*stack, error) {
	folder, err := os.MkdirTemp("", "quern-bench-")
	if err != nil {
		return nil, err
	}
	servers := &stack{folder: folder}
	if err := servers.start(ctx, s.data); err != nil {
		servers.stop()
		return nil, err
	}
	return servers, nil
}

func (s *stack) start(ctx context.Context, data string) error {
	engine, socket, err := startEngine(ctx, data, s.folder)
	s.engine, s.socket = engine, strings.TrimPrefix(socket, "unix://")
	if err != nil {
		return err
	}
	s.edge, err = startQuern(ctx, "--engine", socket)
	if err != nil {
		return err
	}
	// The windows are those of the edge's own client.
	s.connection, err = grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(512<<10), grpc.WithInitialConnWindowSize(4<<20))
	if err != nil {
		return err
	}
	s.query = enginev1.NewQueryServiceClient(s.connection)
	return nil
}

func (s *stack) stop() {
	if s.connection != nil {
		_ = s.connection.Close()
	}
	for _, server := range []*process{s.edge, s.engine} {
		if server != nil {
			server.stop()
		}
	}
	_ = os.RemoveAll(s.folder)
}

// contenders are the two ways to a result: through the edge, and from the engine.
func (s *stack) contenders(ctx context.Context, sql string) []contender {
	return []contender{
		{"edge", func() (time.Duration, error) {
			answer, err := ask(ctx, s.edge.url, sql)
			return answer.Whole, err
		}},
		{"engine direct", func() (time.Duration, error) { return s.direct(ctx, "", sql) }},
	}
}

// byChannel is who reads an export as the edge itself does.
const byChannel = "engine direct, by data channel"

// direct reads the same result from the engine without the edge, as the stream of Execute; a large one by its data channel,
// if that has a socket.
func (s *stack) direct(ctx context.Context, socket, sql string) (time.Duration, error) {
	started := time.Now()
	stream, err := s.query.Execute(ctx, &enginev1.ExecuteRequest{Sql: sql, Format: enginev1.Format_FORMAT_JSON})
	if err != nil {
		return 0, err
	}
	var channel net.Conn
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return time.Since(started), nil
		case err != nil:
			return 0, err
		case part.GetOffer() != nil && socket != "":
			if channel, err = new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
				defer func() { _ = channel.Close() }()
				_, err = channel.Write(part.GetOffer().GetTicket())
			}
		case part.GetStart() != nil:
			_, err = readAll(io.Discard, channel)
		}
		if err != nil {
			return 0, err
		}
	}
}

// measureExport compares a whole table as JSON: through the edge, from the engine, by DuckDB to a file, by ROAPI.
func measureExport(ctx context.Context, s settings, r *Report) error {
	servers, err := startStack(ctx, s)
	if err != nil {
		return err
	}
	defer servers.stop()
	duck, err := startDuckDB(ctx, s, "bench/duckdb_export.py", filepath.Join(s.data, "orders.parquet"))
	if err != nil {
		return err
	}
	defer duck.stop()
	contenders := append(servers.contenders(ctx, export),
		contender{byChannel, func() (time.Duration, error) { return servers.direct(ctx, servers.socket+".data", export) }},
		contender{"DuckDB to a file", func() (time.Duration, error) { return duck.answer("") }})
	if s.roapi != "" {
		peer, err := startROAPI(ctx, s.roapi, filepath.Join(s.data, "orders.parquet"))
		if err != nil {
			return fmt.Errorf("roapi: %w", err)
		}
		defer peer.stop()
		r.add("ROAPI: ready after", "s", peer.took.Seconds(), 0)
		contenders = append(contenders, peer.roapi(ctx, export))
		defer func() {
			r.add("ROAPI: resident at most, one export at a time", "MiB", float64(peak(peer.cmd.Process.Pid)), 0)
		}()
	}
	medians, ratios, err := inTurns(contenders, s.runs)
	if err != nil {
		return err
	}
	for _, c := range contenders {
		r.add("export of orders as JSON: "+c.name, "s", medians[c.name], 0)
	}
	r.add("export: edge / engine direct", "×", ratios["engine direct"], 1.15)
	r.add("export: edge / "+byChannel, "×", ratios[byChannel], 0)
	r.add("export: edge / DuckDB to a file", "×", ratios["DuckDB to a file"], 0.6)
	return nil
}

// measureSelect takes SELECT 1 through the edge, from the engine, and by ROAPI.
func measureSelect(ctx context.Context, s settings, r *Report) error {
	servers, err := startStack(ctx, s)
	if err != nil {
		return err
	}
	defer servers.stop()
	contenders := servers.contenders(ctx, "SELECT 1")
	if s.roapi != "" {
		peer, err := startROAPI(ctx, s.roapi, filepath.Join(s.data, "region.parquet"))
		if err != nil {
			return fmt.Errorf("roapi: %w", err)
		}
		defer peer.stop()
		contenders = append(contenders, peer.roapi(ctx, "SELECT 1"))
	}
	medians, _, err := inTurns(contenders, s.calls)
	if err != nil {
		return err
	}
	for _, c := range contenders {
		r.add("SELECT 1: "+c.name, "ms", medians[c.name]*1e3, 0)
	}
	r.add("SELECT 1: what the edge adds", "ms", (medians["edge"]-medians["engine direct"])*1e3, 0.5)
	return nil
}

// measureCrowd runs several exports at once and watches memory and the time to the first byte.
func measureCrowd(ctx context.Context, s settings, r *Report) error {
	servers, err := startStack(ctx, s)
	if err != nil {
		return err
	}
	defer servers.stop()
	engine, edge := servers.engine, servers.edge
	if _, err := ask(ctx, edge.url, "SELECT 1"); err != nil {
		return err
	}
	idle := resident(engine.cmd.Process.Pid)
	var firsts, beside []float64
	for round := range s.runs + 1 {
		begun, asked, err := exportAtOnce(ctx, edge.url)
		if err != nil {
			return err
		}
		if round > 0 {
			firsts, beside = append(firsts, begun...), append(beside, asked...)
		}
	}
	label := fmt.Sprintf("%d exports at once: ", crowd)
	r.add(label+"edge resident at most", "MiB", float64(peak(edge.cmd.Process.Pid)), 100)
	r.add(label+"engine resident above idle at most", "MiB", float64(peak(engine.cmd.Process.Pid)-idle), 600)
	r.add(label+"time to first byte, median", "ms", median(firsts), 100)
	if len(beside) > 0 {
		r.add(label+"SELECT 1 meanwhile, median", "ms", median(beside), 0)
	}
	return nil
}

// exportAtOnce returns how many milliseconds the first byte of each export took, and each SELECT 1 meanwhile.
func exportAtOnce(ctx context.Context, address string) (firsts, beside []float64, err error) {
	firsts, failures := make([]float64, crowd), make([]error, crowd)
	var group sync.WaitGroup
	for i := range crowd {
		group.Go(func() {
			answer, err := ask(ctx, address, export)
			firsts[i], failures[i] = float64(answer.First.Microseconds())/1e3, err
		})
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	beside, err = askBeside(ctx, address, ended)
	return firsts, beside, errors.Join(errors.Join(failures...), err)
}

// askBeside asks SELECT 1 now and then until the exports have ended, the first time once they have all begun, and
// returns how many milliseconds each answer took.
func askBeside(ctx context.Context, address string, ended <-chan struct{}) ([]float64, error) {
	var took []float64
	pause := time.Second
	for {
		select {
		case <-ended:
			return took, nil
		case <-time.After(pause):
		}
		answer, err := ask(ctx, address, "SELECT 1")
		if err != nil {
			<-ended
			return nil, err
		}
		took = append(took, float64(answer.Whole.Microseconds())/1e3)
		pause = 50 * time.Millisecond
	}
}

// contender is one of several ways to do the same.
type contender struct {
	name string
	do   func() (time.Duration, error)
}

// roapi asks ROAPI.
func (p *process) roapi(ctx context.Context, sql string) contender {
	return contender{"ROAPI", func() (time.Duration, error) {
		answer, err := ask(ctx, p.url+"/api/sql", sql)
		return answer.Whole, err
	}}
}

// inTurns lets each contender have its turn in every round, after one round that does not count, in an order that is drawn
// for each round: so none always comes after the same one, which leaves the processor's caches warm or cold. It returns
// median seconds, and the median over the rounds of the first contender's time divided by each one's.
func inTurns(contenders []contender, rounds int) (medians, ratios map[string]float64, err error) {
	times := map[string][]float64{}
	// The same orders in every run.
	drawn := rand.New(rand.NewPCG(0, 0)) //nolint:gosec // Nothing secret.
	for round := range rounds + 1 {
		for _, i := range drawn.Perm(len(contenders)) {
			c := contenders[i]
			took, err := c.do()
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				times[c.name] = append(times[c.name], took.Seconds())
			}
		}
	}
	medians, ratios = map[string]float64{}, map[string]float64{}
	first := times[contenders[0].name]
	for name, seconds := range times {
		medians[name] = median(seconds)
		each := make([]float64, len(seconds))
		for i := range seconds {
			each[i] = first[i] / seconds[i]
		}
		ratios[name] = median(each)
	}
	return medians, ratios, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func resident(pid int) int { return memory(pid, "VmRSS:") }

func peak(pid int) int { return memory(pid, "VmHWM:") }

// memory reads a line of /proc/PID/status, in MiB; 0 where the process is gone.
func memory(pid int, label string) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, label); found {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib / 1024
		}
	}
	return 0
}
