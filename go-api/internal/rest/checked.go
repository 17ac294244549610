package rest

import (
	"fmt"
	"net/http"
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

// checked remembers what requests mean, so that the same bytes are not read and checked again: that would be most of
// the work of an answer from memory. What a request means never changes.
type checked = otter.Cache[asked, *service.Query]

func newChecked() (*checked, error) {
	memory, err := otter.New(&otter.Options[asked, *service.Query]{
		MaximumWeight: checkedBytes,
		Weigher: func(request asked, _ *service.Query) uint32 {
			//nolint:gosec // at most checkedMost goes in
			return uint32(checkedOverhead + 3*(len(request.path)+len(request.query)+len(request.accept)))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("set up the memory of requests: %w", err)
	}
	return memory, nil
}

// check reads and checks a request, or remembers what it means.
func (a *api) check(route *route, w http.ResponseWriter, r *http.Request) (*service.Query, error) {
	key := asked{method: r.Method, path: r.URL.EscapedPath(), query: r.URL.RawQuery, accept: strings.Join(r.Header["Accept"], ",")}
	// What names a row may be configured anew.
	keyed := route.input.FullName() == getRow || route.input.FullName() == batchGetRows
	memorable := !route.hasBody && !keyed && len(key.path)+len(key.query)+len(key.accept) <= checkedMost
	if memorable {
		if query, ok := a.checked.GetIfPresent(key); ok {
			return query, nil
		}
	}
	query, err := a.read(route, w, r)
	if err != nil {
		return nil, err
	}
	if memorable {
		a.checked.Set(key, query)
	}
	return query, nil
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
