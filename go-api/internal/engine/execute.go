package engine

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"

	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

const (
	// reasonSnapshotChanged is the engine's word for a file that changed while it was read.
	reasonSnapshotChanged = "SNAPSHOT_CHANGED"
	// reasonSourceUnavailable is its word for a bucket that does not answer.
	reasonSourceUnavailable = "SOURCE_UNAVAILABLE"
	// reasonTooManyQueries is its word for a queue that is full.
	reasonTooManyQueries = "TOO_MANY_QUERIES"
	// reasonSnapshotGone is its word for a page token whose files are no longer there.
	reasonSnapshotGone = "SNAPSHOT_GONE"
)

// Result is a result under way: what is known before the first byte, then the bytes, then the receipt. It implements
// cache.Execution.
type Result struct {
	header  *enginev1.ExecuteHeader
	stream  enginev1.QueryService_ExecuteClient
	cancel  context.CancelFunc
	pending []byte
	receipt *enginev1.Receipt
	// data is the way of the rest of a large result, nil where the engine has not offered one.
	data *dataChannel
	// dataSocket is where it would be; empty where the engine has no such socket.
	dataSocket string
	// lent says that a chunk is needed only until the next one.
	lent bool
	// size counts the bytes that have come.
	size uint64
	// whole says that pending is all of it, and receipt its own.
	whole bool
	// span is the call's part of the trace.
	span telemetry.Span
}

// beginning is how much of a result must have come, or all of it, before any of it is passed on.
const beginning = 16 << 10

// Execute starts a statement and waits for its beginning or its receipt, so that whatever fails before is returned here, or
// mended by another try. What is shorter comes whole, and so does what the engine has in memory. The result must be closed.
func (c *Client) Execute(ctx context.Context, request *enginev1.ExecuteRequest) (cache.Execution, error) {
	if peekable(request) && c.Serving() {
		if result := c.peeks.ask(ctx, request); result != nil {
			return result, nil
		}
	}
	result, err := again(ctx, c, func(ctx context.Context) (*Result, error) { return c.execute(ctx, request) })
	if err != nil {
		if reason(err) == reasonSnapshotGone {
			c.catchUp(ctx, request.GetRows().GetTable())
		}
		return nil, err
	}
	return result, nil
}

func reason(err error) string { return apierr.Info(status.Convert(err)).GetReason() }

func (c *Client) execute(ctx context.Context, request *enginev1.ExecuteRequest) (*Result, error) {
	ctx, span := telemetry.BeginCall(ctx, queryService, "Execute")
	ctx, cancel := context.WithCancel(telemetry.Outgoing(ctx))
	stream, err := c.query.Execute(ctx, request)
	if err != nil {
		cancel()
		failed(span, err)
		return nil, err
	}
	result := &Result{stream: stream, cancel: cancel, span: span, dataSocket: c.dataSocket}
	if err := result.start(); err != nil {
		cancel()
		failed(span, err)
		return nil, err
	}
	return result, nil
}

// queryService is what traces call the service.
const queryService = "quern.engine.v1.QueryService"

// failed ends a call's part of the trace that came to nothing.
func failed(span telemetry.Span, err error) {
	span.Fail(apierr.ReasonOf(err))
	span.End()
}

// start reads the header, and chunks until there are enough to begin with.
func (r *Result) start() error {
	first, err := r.stream.Recv()
	if err != nil {
		return incomplete(err)
	}
	if r.header = first.GetHeader(); r.header == nil {
		return apierr.New(apierr.ResultIncomplete, "the engine began a result without its header")
	}
	for len(r.pending) < beginning {
		chunk, err := r.receive()
		switch {
		case errors.Is(err, io.EOF):
			r.whole = true
			return nil
		case err != nil:
			return err
		case r.pending == nil:
			r.pending = chunk
		default:
			r.pending = append(r.pending, chunk...)
		}
	}
	return nil
}

// Lend says that a chunk is needed only until Next is called again, so that its memory may serve for the next one.
func (r *Result) Lend() { r.lent = true }

// Next returns the next chunk, never empty, or io.EOF after the last; Receipt then has the receipt. The chunk is the
// caller's to keep, except after Lend.
func (r *Result) Next() ([]byte, error) {
	if chunk := r.pending; len(chunk) > 0 {
		r.pending = nil
		return chunk, nil
	}
	if r.receipt != nil {
		return nil, io.EOF
	}
	return r.receive()
}

// Header returns what was known once the statement was planned.
func (r *Result) Header() cache.Header { return headerOf(r.header) }

// Receipt returns the receipt of a result that was read to its end, the zero one before.
func (r *Result) Receipt() cache.Receipt {
	receipt := cache.Receipt{Rows: r.receipt.GetRows(), Bytes: r.receipt.GetBytes()}
	copy(receipt.SHA256[:], r.receipt.GetSha256())
	return receipt
}

// Plan says what Execute would begin with, and executes nothing.
func (c *Client) Plan(ctx context.Context, request *enginev1.ExecuteRequest) (cache.Header, error) {
	answer, err := unary(ctx, c, queryService, "Plan", func(ctx context.Context) (*enginev1.PlanResponse, error) {
		return c.query.Plan(ctx, &enginev1.PlanRequest{Execute: request})
	})
	if err != nil {
		return cache.Header{}, err
	}
	return headerOf(answer.GetHeader()), nil
}

func headerOf(header *enginev1.ExecuteHeader) cache.Header {
	return cache.Header{
		Snapshots:     snapshotsOf(header.GetSnapshots()),
		Cacheable:     header.GetCacheable(),
		NextPageToken: header.GetNextPageToken(),
		TotalSize:     header.TotalSize,
		Missing:       header.GetMissing(),
	}
}

// Whole says that the result came whole: Next and Receipt wait for nothing.
func (r *Result) Whole() bool { return r.whole }

// Close gives the result up; the engine stops a query that is still running.
func (r *Result) Close() {
	if r.cancel != nil {
		r.cancel()
	}
	r.data.close()
	r.span.End()
}

func (r *Result) receive() ([]byte, error) {
	chunk, err := r.next()
	if err != nil && !errors.Is(err, io.EOF) {
		r.span.Fail(apierr.ReasonOf(err))
	}
	return chunk, err
}

func (r *Result) next() ([]byte, error) {
	for {
		if chunk := r.data.read(r.lent); len(chunk) > 0 {
			r.size += uint64(len(chunk))
			return chunk, nil
		}
		message, err := r.stream.Recv()
		if err != nil {
			return nil, incomplete(err)
		}
		if chunk := message.GetChunk(); len(chunk) > 0 {
			r.size += uint64(len(chunk))
			return chunk, nil
		}
		if offer := message.GetOffer(); offer != nil {
			r.data = claim(r.stream.Context(), r.dataSocket, offer.GetTicket())
		}
		if message.GetStart() != nil {
			r.data.start()
		}
		if receipt := message.GetTrailer(); receipt != nil {
			// A receipt counts only with the stream's good end behind it, and for the snapshots that were announced.
			if _, err := r.stream.Recv(); !errors.Is(err, io.EOF) {
				return nil, incomplete(err)
			}
			if !slices.Equal(snapshotsOf(receipt.GetSnapshots()), snapshotsOf(r.header.GetSnapshots())) {
				return nil, apierr.New(apierr.ResultIncomplete, "the engine's receipt is for other snapshots than it announced")
			}
			if r.size < receipt.GetBytes() {
				return nil, apierr.New(apierr.ResultIncomplete, "the engine's receipt is for more bytes than came")
			}
			r.receipt = receipt
			r.sized()
			return nil, io.EOF
		}
	}
}

// sized notes what the receipt says.
func (r *Result) sized() {
	if r.span.Recorded() {
		receipt := r.Receipt()
		r.span.Number(telemetry.AttrRows, int64(min(receipt.Rows, math.MaxInt64)))
		r.span.Number(telemetry.AttrBytes, int64(min(receipt.Bytes, math.MaxInt64)))
	}
}

// incomplete turns a stream's end without a receipt into an error; a failure stays what it is.
func incomplete(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return apierr.New(apierr.ResultIncomplete, "the engine ended the result without a receipt")
	}
	return err
}
