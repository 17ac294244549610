package engine

import (
	"context"
	"sync"
	"time"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

const (
	// peekMost is how many requests one call takes; the engine allows 64.
	peekMost = 24
	// peekMany is how many requests make a call worth while another one is under way: few calls with many requests each
	// cost the least.
	peekMany = 12
	// peekFlying is how many calls are under way at most.
	peekFlying = 2
	// peekTimeout is how long a call may take. The engine needs milliseconds; whoever waits executes then.
	peekTimeout = 250 * time.Millisecond
)

// peeker asks the engine for small answers from its memory, for many callers by one call: while calls are under way, those
// who come meanwhile gather for the next one. Whoever waits is a request that is being answered, which bounds the queue.
type peeker struct {
	query enginev1.QueryServiceClient

	mu      sync.Mutex
	waiting []*peek
	flying  int
}

type peek struct {
	request *enginev1.ExecuteRequest
	// parent is the traceparent of the call's part of its trace, empty where that is not recorded.
	parent string
	// answer gets one answer, or nil, and holds it.
	answer chan *enginev1.Peeked
}

// peekable says whether the engine may have the answer in memory: rows in their table's order, or by their keys, as text.
func peekable(request *enginev1.ExecuteRequest) bool {
	rows := request.GetRows()
	text := request.GetFormat() != enginev1.Format_FORMAT_ARROW && request.GetFormat() != enginev1.Format_FORMAT_PARQUET
	return rows != nil && text && len(rows.GetOrderBy()) == 0 && !rows.GetCount()
}

// ask returns the whole answer, or nil where the request is to be executed.
func (p *peeker) ask(ctx context.Context, request *enginev1.ExecuteRequest) *Result {
	ctx, span := telemetry.BeginCall(ctx, queryService, "Peek")
	defer span.End()
	mine := &peek{request: request, parent: telemetry.SampledParent(ctx), answer: make(chan *enginev1.Peeked, 1)}
	p.mu.Lock()
	p.waiting = append(p.waiting, mine)
	var batch []*peek
	if p.flying == 0 || p.flying < peekFlying && len(p.waiting) >= peekMany {
		p.flying++
		batch = p.next()
	}
	p.mu.Unlock()
	if batch != nil {
		p.call(batch)
		// Those who have come meanwhile go by calls that this one need not wait for.
		go p.drain()
	}
	select {
	case answer := <-mine.answer:
		if answer.GetHeader() == nil {
			return nil
		}
		result := &Result{header: answer.GetHeader(), pending: answer.GetBody(), receipt: answer.GetReceipt(), whole: true, span: span}
		result.sized()
		return result
	case <-ctx.Done():
		return nil
	}
}

// drain makes calls for those who have gathered, one after the other, as long as they are enough.
func (p *peeker) drain() {
	for {
		p.mu.Lock()
		enough := len(p.waiting) >= peekMany || p.flying == 1 && len(p.waiting) > 0
		if !enough {
			p.flying--
			p.mu.Unlock()
			return
		}
		batch := p.next()
		p.mu.Unlock()
		p.call(batch)
	}
}

// next takes those who go by the next call. The caller holds mu.
func (p *peeker) next() []*peek {
	count := min(len(p.waiting), peekMost)
	batch := p.waiting[:count:count]
	p.waiting = p.waiting[count:]
	return batch
}

// call asks for several answers. It ends for each of those who ask, whatever becomes of it; what fails, they execute, and
// that says why.
func (p *peeker) call(batch []*peek) {
	requests := make([]*enginev1.ExecuteRequest, len(batch))
	var parents []string
	for i, one := range batch {
		requests[i] = one.request
		if one.parent != "" && parents == nil {
			parents = make([]string, len(batch))
		}
		if parents != nil {
			parents[i] = one.parent
		}
	}
	// No asker's own context: the others go on when one leaves.
	ctx, cancel := context.WithTimeout(context.Background(), peekTimeout)
	defer cancel()
	response, err := p.query.Peek(ctx, &enginev1.PeekRequest{Requests: requests, Traceparents: parents})
	answers := response.GetAnswers()
	for i, one := range batch {
		var answer *enginev1.Peeked
		if err == nil && i < len(answers) {
			answer = answers[i]
		}
		one.answer <- answer
	}
}
