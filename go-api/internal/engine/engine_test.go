package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/enginetest"
)

func TestCodecAgreesWithProtobuf(t *testing.T) {
	chunk := bytes.Repeat([]byte("x"), 300<<10)
	messages := []*enginev1.ExecuteResponse{
		{},
		{Part: &enginev1.ExecuteResponse_Chunk{Chunk: nil}},
		{Part: &enginev1.ExecuteResponse_Chunk{Chunk: chunk}},
		{Part: &enginev1.ExecuteResponse_Header{Header: &enginev1.ExecuteHeader{Cacheable: true}}},
		{Part: &enginev1.ExecuteResponse_Trailer{Trailer: &enginev1.Receipt{Rows: 3, Sha256: []byte("abc")}}},
	}
	for _, want := range messages {
		raw, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		// The frames are overwritten afterwards, as the transport's pool does.
		half := len(raw) / 2
		first, second := bytes.Clone(raw[:half]), bytes.Clone(raw[half:])
		got := &enginev1.ExecuteResponse{}
		if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(first), mem.SliceBuffer(second)}, got); err != nil {
			t.Fatal(err)
		}
		clear(first)
		clear(second)
		if !proto.Equal(got, want) {
			t.Errorf("decoded to %.80v, want %.80v", got, want)
		}
	}
}

// FuzzCodec checks that the short way through a chunk never differs from protobuf's own decoder.
func FuzzCodec(f *testing.F) {
	f.Add([]byte{0x12, 0x03, 'a', 'b', 'c'})
	f.Add([]byte{0x12, 0x03, 'a', 'b', 'c', 0x1a, 0x00})
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, raw []byte) {
		want, got := &enginev1.ExecuteResponse{}, &enginev1.ExecuteResponse{}
		wantErr := proto.Unmarshal(raw, want)
		gotErr := unmarshalExecuteResponse(raw, got)
		if (wantErr == nil) != (gotErr == nil) || wantErr == nil && !proto.Equal(got, want) {
			t.Errorf("%x: %v %v, want %v %v", raw, got, gotErr, want, wantErr)
		}
	})
}

func TestTargets(t *testing.T) {
	good := map[string]string{
		"unix:///run/q.sock":  "unix:///run/q.sock",
		"dns:///engine:9091":  "dns:///engine:9091",
		"tcp://10.0.0.1:9091": "passthrough:///10.0.0.1:9091",
	}
	for given, want := range good {
		if got, err := grpcTarget(given); err != nil || got != want {
			t.Errorf("%s became %s %v", given, got, err)
		}
	}
	for _, bad := range []string{"", "engine:9091", "http://engine:9091", "unix://q.sock", "dns:///", "tcp://engine", "%"} {
		if _, err := grpcTarget(bad); err == nil || !strings.Contains(err.Error(), "dns:///host:port") {
			t.Errorf("%q gave %v", bad, err)
		}
	}
}

func TestRelayKeepsLinesWhole(t *testing.T) {
	var out, log bytes.Buffer
	r := &relay{out: &out, logger: slog.New(slog.NewTextHandler(&log, nil))}
	for _, part := range []string{"{\"msg\":\"a\"}\n{\"ms", "g\":\"serving\",\"listen\":\"x\"}\nno json\n{\"message\":\"serving\"}\nhalf"} {
		if n, err := r.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if out.String() != "{\"msg\":\"a\"}\nno json\n" || !strings.Contains(log.String(), "engine serving") {
		t.Errorf("%q %q", out.String(), log.String())
	}
	if _, err := r.Write(make([]byte, 2*maxLine)); err != nil || len(r.partial) > maxLine {
		t.Error("a line without end is kept whole")
	}
}

func dial(t *testing.T, double *enginetest.Engine) *Client {
	t.Helper()
	client, err := Dial(double.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestExecute(t *testing.T) {
	double := enginetest.New(t)
	double.OnExecute = func(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		switch request.GetSql() {
		case "nothing":
			return nil
		case "no header":
			return stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Chunk{Chunk: []byte("x")}})
		case "receipt, then failure":
			if err := enginetest.Send(stream, []byte("x")); err != nil {
				return err
			}
			return status.Error(codes.Internal, "late")
		case "no rows":
			return enginetest.Send(stream)
		default:
			return enginetest.Send(stream, []byte("a"), []byte{}, []byte("b"))
		}
	}
	double.Start(t)
	client := dial(t, double)
	read := func(sql string) (string, cache.Receipt, error) {
		result, err := client.Execute(t.Context(), &enginev1.ExecuteRequest{Sql: sql})
		if err != nil {
			return "", cache.Receipt{}, err
		}
		defer result.Close()
		var body []byte
		for {
			chunk, err := result.Next()
			if errors.Is(err, io.EOF) {
				return string(body), result.Receipt(), nil
			}
			if err != nil {
				return string(body), result.Receipt(), err
			}
			body = append(body, chunk...)
		}
	}
	if body, receipt, err := read("x"); body != "ab" || receipt.Rows != 2 || err != nil {
		t.Error(body, receipt, err)
	}
	if body, receipt, err := read("no rows"); body != "" || receipt.Rows != 2 || err != nil {
		t.Error(body, receipt, err)
	}
	for _, sql := range []string{"nothing", "no header"} {
		if _, _, err := read(sql); apierr.Info(status.Convert(err)).GetReason() != string(apierr.ResultIncomplete) {
			t.Error(sql, err)
		}
	}
	if _, receipt, err := read("receipt, then failure"); receipt.Rows != 0 || status.Code(err) != codes.Internal {
		t.Error("a receipt counted although the stream failed", receipt, err)
	}
}

// An engine that goes before a result's beginning is there costs a retry, also when some of it had come.
func TestShortResultsAreRetried(t *testing.T) {
	double := enginetest.New(t)
	size := 0
	double.OnExecute = func(try int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		chunk := bytes.Repeat([]byte{'0' + byte(try)}, size)
		if try == 1 {
			if err := enginetest.SendPart(stream, chunk); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "gone")
		}
		return enginetest.Send(stream, chunk[:1], chunk[1:])
	}
	double.Start(t)
	client := dial(t, double)
	size = beginning - 1
	body, err := ask(t.Context(), client, &enginev1.ExecuteRequest{Sql: "x"})
	if body != strings.Repeat("2", size) || err != nil || double.Tries() != 2 {
		t.Errorf("%d bytes after %d tries: %v", len(body), double.Tries(), err)
	}

	long := enginetest.New(t)
	long.OnExecute, size = double.OnExecute, beginning
	long.Start(t)
	result, err := dial(t, long).Execute(t.Context(), &enginev1.ExecuteRequest{Sql: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close()
	first, err := result.Next()
	if len(first) != size || err != nil || result.Whole() {
		t.Errorf("%d bytes, whole %v: %v", len(first), result.Whole(), err)
	}
	if _, err := result.Next(); status.Code(err) != codes.Unavailable || long.Tries() != 1 {
		t.Errorf("after %d tries: %v", long.Tries(), err)
	}
}

func TestAwaitServing(t *testing.T) {
	double := enginetest.New(t)
	client := dial(t, double)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.AwaitServing(short); !errors.Is(err, context.DeadlineExceeded) || client.Serving() {
		t.Error(err)
	}
	double.Start(t)
	client.Reconnect()
	long, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := client.AwaitServing(long); err != nil || !client.Serving() {
		t.Error(err)
	}
}

func TestSuperviseSaysWhatIsWrong(t *testing.T) {
	_, err := Supervise(Process{Binary: t.TempDir() + "/none", Output: io.Discard, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "start the engine") {
		t.Error(err)
	}
	t.Setenv("TMPDIR", t.TempDir()+"/"+strings.Repeat("x", 120))
	if _, err = Supervise(Process{Output: io.Discard, Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a temporary folder that is not there was taken")
	}
}
