package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/maypok86/otter/v2"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/service"
)

const (
	// checkedBytes bounds the memory of requests that were checked.
	checkedBytes = 16 << 20
	// checkedMost is the longest request that is remembered.
	checkedMost = 4 << 10
	// checkedOverhead is what one takes beside its text: the parsed request and its statement, which are copies.
	checkedOverhead = 2 << 10
)

// asked is a request as it came, before anyone has read it.
type asked struct{ method, path, query, accept string }

// meant is what a request means: a query, and how the next page is asked for, but for its token.
type meant struct {
	query               *service.Query
	linkHead, linkTrail string
}

// checked remembers what requests mean, so that the same bytes are not read and checked again: that would be most of
// the work of an answer from memory. What a request means never changes.
type checked = otter.Cache[asked, meant]

func newChecked() (*checked, error) {
	memory, err := otter.New(&otter.Options[asked, meant]{
		MaximumWeight: checkedBytes,
		Weigher: func(request asked, means meant) uint32 {
			text := len(request.path) + len(request.query) + len(request.accept)
			//nolint:gosec // at most checkedMost goes in
			return uint32(checkedOverhead + 3*text + len(means.linkHead) + len(means.linkTrail))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("set up the memory of requests: %w", err)
	}
	return memory, nil
}

// check reads and checks a request, or remembers what it means.
func (a *api) check(route *route, w http.ResponseWriter, r *http.Request) (meant, error) {
	key := asked{method: r.Method, path: r.URL.EscapedPath(), query: r.URL.RawQuery, accept: strings.Join(r.Header["Accept"], ",")}
	// What names a row may be configured anew.
	keyed := route.input.FullName() == getRow || route.input.FullName() == batchGetRows
	memorable := !route.hasBody && !keyed && len(key.path)+len(key.query)+len(key.accept) <= checkedMost
	if memorable {
		if means, ok := a.checked.GetIfPresent(key); ok {
			return means, nil
		}
	}
	query, err := a.read(route, w, r)
	if err != nil {
		return meant{}, err
	}
	means := meant{query: query}
	means.linkHead, means.linkTrail = link(r.URL)
	if memorable {
		a.checked.Set(key, means)
	}
	return means, nil
}

// link names the next page (RFC 8288), by the same request with another token, which goes between the two parts.
func link(asked *url.URL) (head, trail string) {
	const token = "page_token"
	before, after := url.Values{}, url.Values{}
	for name, values := range asked.Query() {
		switch {
		case name < token:
			before[name] = values
		case name > token:
			after[name] = values
		}
	}
	head = "<" + asked.EscapedPath() + "?"
	if len(before) > 0 {
		head += before.Encode() + "&"
	}
	head += token + "="
	if len(after) > 0 {
		trail = "&" + after.Encode()
	}
	return head, trail + `>; rel="next"`
}

// read reads and checks a request.
func (a *api) read(route *route, w http.ResponseWriter, r *http.Request) (*service.Query, error) {
	switch route.input.FullName() {
	case getRow:
		request := &quernv1.GetRowRequest{Table: route.parameter(r.URL, "table"), Key: route.parameter(r.URL, "key")}
		if err := readParameters(route, r.URL.RawQuery, request); err != nil {
			return nil, err
		}
		return a.queries.CheckRow(request, formatByAccept(r.Header))
	case batchGetRows:
		request := &quernv1.BatchGetRowsRequest{}
		if err := readRequest(route, w, r, request); err != nil {
			return nil, err
		}
		request.Table = route.parameter(r.URL, "table")
		return a.queries.CheckKeys(request, formatByAccept(r.Header))
	case readRows:
		request := &quernv1.ReadRowsRequest{Table: route.parameter(r.URL, "table")}
		if err := readParameters(route, r.URL.RawQuery, request); err != nil {
			return nil, err
		}
		return a.queries.CheckRows(request, formatByAccept(r.Header))
	}
	request := &quernv1.QueryRequest{}
	if err := readRequest(route, w, r, request); err != nil {
		return nil, err
	}
	return a.queries.Check(request, formatByAccept(r.Header))
}

// The requests for a page of rows, for one row, and for several by key.
var (
	readRows     = (&quernv1.ReadRowsRequest{}).ProtoReflect().Descriptor().FullName()
	getRow       = (&quernv1.GetRowRequest{}).ProtoReflect().Descriptor().FullName()
	batchGetRows = (&quernv1.BatchGetRowsRequest{}).ProtoReflect().Descriptor().FullName()
)
