package enginetest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

const (
	chunkSize  = 256 << 10
	exportSize = 380 << 20
)

// MainIfEngine runs a double as a process of its own, and does not return, when the program was started the way a
// supervisor starts an engine. Call it first in TestMain: the test binary is then its own engine.
//
// The statement `pid` answers the process id, `hang` sends part of a result and waits, `export` sends 380 MiB. With `--spill-dir fail` the
// process ends at once with status 3.
func MainIfEngine() {
	if !slices.Contains(os.Args, "--supervised") {
		return
	}
	os.Exit(run())
}

func run() int {
	if slices.Contains(os.Args, "fail") {
		fmt.Fprintln(os.Stderr, `{"level":"ERROR","msg":"configuration refused"}`)
		return 3
	}
	socket := strings.TrimPrefix(os.Args[slices.Index(os.Args, "--listen")+1], "unix://")
	engine := &Engine{Socket: socket, OnExecute: answer, Catalog: &enginev1.ListTablesResponse{}}
	if err := engine.listen(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "{\"msg\":\"serving\",\"listen\":%q}\n", socket)
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lifeline := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(lifeline)
	}()
	select {
	case <-ended.Done():
		engine.server.GracefulStop()
	case <-lifeline:
		engine.server.Stop()
		_ = os.Remove(socket)
		_ = os.Remove(filepath.Dir(socket))
	}
	return 0
}

func answer(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
	switch request.GetSql() {
	case "export":
		if err := SendPart(stream, make([]byte, chunkSize)); err != nil {
			return err
		}
		chunk := &enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Chunk{Chunk: make([]byte, chunkSize)}}
		for range exportSize/chunkSize - 1 {
			if err := stream.Send(chunk); err != nil {
				return err
			}
		}
		return stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Trailer{Trailer: &enginev1.Receipt{Bytes: exportSize}}})
	case "hang":
		if err := SendPart(stream, make([]byte, 64<<10)); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	default:
		return send(stream, read, false, [][]byte{[]byte(strconv.Itoa(os.Getpid()))})
	}
}
