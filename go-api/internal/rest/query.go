package rest

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/service"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

const (
	headerReceipt   = "Quern-Receipt"
	headerMissing   = "Quern-Missing"
	headerTotalSize = "Quern-Total-Size"
	// flushAfter is how much of a result is gathered before it is pushed out. The engine's chunks are larger, all but
	// a result's first and last one; the response's end pushes out the last at once.
	flushAfter = 16 << 10
	// varies names the request headers that choose a result's representation.
	varies = "Accept, Accept-Encoding"
	// storable lets whoever keeps a result use it again only after asking whether it still holds.
	storable = "private, no-cache"
)

// varyLine and storableLine are shared by all responses; whoever adds to a header's lines gets a copy.
var (
	varyLine     = []string{varies}
	storableLine = []string{storable}
	hitLine      = []string{service.CacheStatus(cache.Status{})}
	typeLines    = func() map[string][]string {
		lines := map[string][]string{}
		for _, format := range service.Formats {
			lines[format.MediaType] = []string{format.MediaType}
		}
		return lines
	}()
)

// query answers a request for a result. An error is returned only while nothing has been written.
func (a *api) query(ex *exchange, route *route, w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	if header["Vary"] == nil {
		header["Vary"] = varyLine
	} else {
		header.Add("Vary", varies)
	}
	means, err := a.check(route, w, r)
	if err != nil {
		return err
	}
	query := means.query
	if directives := directives(r.Header); directives != "" {
		query = query.With(directives)
	}
	coding := cache.Identity
	if !query.Format.Binary {
		coding = codingByAccept(r.Header)
	}
	ex.query = query
	reply := reply{ex: ex, w: w, means: means, query: query, coding: coding, keep: a.keep}
	conditions := r.Header["If-None-Match"]
	if answer := query.Hit(); answer != nil {
		hit := telemetry.Past(r.Context(), "cache", ex.started)
		query.Describe(hit, answer)
		hit.End()
		return reply.answer(r.Context(), r.Method, answer, conditions)
	}
	ctx, cancel := context.WithTimeout(metadata.NewIncomingContext(r.Context(), ex.Identity.Metadata()), query.Timeout)
	defer cancel()
	if len(conditions) > 0 || r.Method == http.MethodHead {
		if done, err := reply.withoutExecution(ctx, r.Method, conditions); done || err != nil {
			return err
		}
	}
	answer, err := query.Do(ctx)
	if err != nil {
		return err
	}
	defer answer.Close()
	return reply.answer(ctx, r.Method, answer, conditions)
}

// directives returns the request's cache directives. Pragma counts only in their absence (RFC 9111, 5.4).
func directives(header http.Header) string {
	lines := header["Cache-Control"]
	if len(lines) == 0 && strings.EqualFold(header.Get("Pragma"), "no-cache") {
		return "no-cache"
	}
	return strings.Join(lines, ",")
}

// reply is one answer to be sent.
type reply struct {
	ex    *exchange
	w     http.ResponseWriter
	means meant
	// query is what is meant, with the request's cache directives.
	query  *service.Query
	coding cache.Coding
	// keep returns the response directives for an answer, or nothing for the default.
	keep func([]cache.Snapshot) string
}

// withoutExecution answers HEAD, and a request whose condition does not hold, from the tag alone. It says whether it
// has answered.
func (p *reply) withoutExecution(ctx context.Context, method string, conditions []string) (bool, error) {
	tag, snapshots, known, err := p.query.Tag(ctx)
	if err != nil {
		return false, err
	}
	if known && matches(conditions, string(tag)) {
		p.status(cache.Status{})
		p.notModified(tag, snapshots)
		return true, nil
	}
	if method != http.MethodHead {
		return false, nil
	}
	p.status(cache.Status{Forward: cache.Missing})
	p.describe(tag, snapshots, known)
	p.w.WriteHeader(http.StatusOK)
	return true, nil
}

func (p *reply) status(status cache.Status) {
	lines := hitLine
	if status != (cache.Status{}) {
		lines = []string{service.CacheStatus(status)}
	}
	p.ex.cache = lines[0]
	p.w.Header()["Cache-Status"] = lines
}

// next names the page that comes after, if one does.
func (p *reply) next(token string) {
	if token != "" {
		p.w.Header()["Link"] = []string{p.means.linkHead + url.QueryEscape(token) + p.means.linkTrail}
	}
}

// describe sets the headers that every result has.
func (p *reply) describe(tag cache.Tag, read []cache.Snapshot, tagged bool) {
	header := p.w.Header()
	header["Content-Type"] = typeLines[p.query.Format.MediaType]
	if !tagged {
		// Nobody could ask later whether it still holds.
		header["Cache-Control"] = []string{"no-store"}
		return
	}
	header["Etag"] = []string{p.coding.Tag(tag)}
	header["Cache-Control"] = storableLine
	if directives := p.keep(read); directives != "" {
		header["Cache-Control"] = []string{directives}
	}
}

// notModified answers 304 (RFC 9110, 15.4.5).
func (p *reply) notModified(tag cache.Tag, read []cache.Snapshot) {
	p.describe(tag, read, true)
	delete(p.w.Header(), "Content-Type")
	p.w.WriteHeader(http.StatusNotModified)
}

// answer sends a result. Nothing is written before the first byte of the body is there.
func (p *reply) answer(ctx context.Context, method string, answer *cache.Answer, conditions []string) error {
	p.ex.snapshots = answer.Header.Snapshots
	p.query.Describe(p.ex.span, answer)
	p.status(answer.Status)
	p.next(answer.Header.NextPageToken)
	if size := answer.Header.TotalSize; size != nil {
		p.w.Header()[headerTotalSize] = []string{strconv.FormatUint(*size, 10)}
	}
	if missing := answer.Header.Missing; len(missing) > 0 {
		p.w.Header()[headerMissing] = []string{service.FormatMissing(missing)}
	}
	tagged := answer.Tag != "" && answer.Header.Cacheable
	if tagged && matches(conditions, string(answer.Tag)) {
		p.notModified(answer.Tag, answer.Header.Snapshots)
		return nil
	}
	if entry := answer.Entry(); entry != nil {
		p.ex.rows = int64(min(entry.Receipt.Rows, math.MaxInt64))
		return p.whole(method, answer, tagged)
	}
	p.describe(answer.Tag, answer.Header.Snapshots, tagged)
	if p.coding != cache.Identity {
		p.w.Header().Set("Content-Encoding", p.coding.String())
	}
	if !p.query.Format.Envelope {
		p.w.Header().Add("Trailer", headerReceipt)
	}
	if err := p.stream(ctx, answer); err != nil {
		// Part of it was sent: nobody may take it for the whole.
		p.ex.failure = p.query.Outward(ctx, err)
		telemetry.Logger(ctx).WarnContext(ctx, "result failed midway, aborting the connection", "error", p.ex.failure)
		panic(http.ErrAbortHandler)
	}
	p.ex.rows = int64(min(answer.Receipt().Rows, math.MaxInt64))
	return p.seal(answer)
}

// whole sends a result that is in memory.
func (p *reply) whole(method string, answer *cache.Answer, tagged bool) error {
	if len(answer.Entry().Body) < smallBody {
		p.coding = cache.Identity
	}
	body, err := answer.Encoded(p.coding)
	if err != nil {
		return err
	}
	p.describe(answer.Tag, answer.Header.Snapshots, tagged)
	header := p.w.Header()
	if p.coding != cache.Identity {
		header["Content-Encoding"] = []string{p.coding.String()}
	}
	if p.query.Format.Envelope || method == http.MethodHead {
		header["Content-Length"] = []string{strconv.Itoa(len(body))}
	} else {
		header.Add("Trailer", headerReceipt)
	}
	p.w.WriteHeader(http.StatusOK)
	if method == http.MethodHead {
		return nil
	}
	if len(body) > headBytes {
		p.ex.gather()
	}
	//nolint:gosec // The body is the engine's, of a media type that no browser takes for a page.
	if _, err := p.w.Write(body); err != nil {
		panic(http.ErrAbortHandler)
	}
	return p.seal(answer)
}

// seal adds the receipt's trailer where the body does not carry the receipt.
func (p *reply) seal(answer *cache.Answer) error {
	if p.query.Format.Envelope {
		return nil
	}
	line, err := service.FormatReceipt(answer.Receipt(), answer.Header.Snapshots)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	p.w.Header().Set(headerReceipt, line)
	return nil
}

// stream sends a result as it comes, and pushes it out when enough has come together.
func (p *reply) stream(ctx context.Context, answer *cache.Answer) error {
	control := http.NewResponseController(p.w)
	out := io.Writer(p.w)
	flush, end := control.Flush, func() error { return nil }
	if p.coding != cache.Identity {
		encoder, err := p.coding.NewEncoder(p.w)
		if err != nil {
			return err
		}
		out, end = encoder, encoder.Close
		flush = func() error { return errors.Join(encoder.Flush(), control.Flush()) }
	}
	pending := 0
	for {
		chunk, err := answer.Next(ctx)
		if errors.Is(err, io.EOF) {
			return end()
		}
		if err != nil {
			return err
		}
		if p.coding == cache.Identity && len(chunk) >= flushAfter {
			// All that comes before it goes out with it.
			p.ex.gather()
			pending = -len(chunk)
		}
		if _, err := out.Write(chunk); err != nil {
			return err
		}
		if pending += len(chunk); pending >= flushAfter {
			if err := flush(); err != nil {
				return err
			}
			pending = 0
		}
	}
}
