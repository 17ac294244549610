package service

import (
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/rowquery"
)

const (
	defaultRows = 100
	maxRows     = 10_000
)

// ReadRows implements quern.v1.TableService.
func (t *Tables) ReadRows(request *quernv1.ReadRowsRequest, stream quernv1.TableService_ReadRowsServer) error {
	query, err := t.queries.CheckRows(request, "")
	if err != nil {
		return err
	}
	return query.serve(stream, func(body *httpbody.HttpBody, receipt *quernv1.Receipt) error {
		return stream.Send(&quernv1.ReadRowsResponse{Body: body, Receipt: receipt})
	})
}

// CheckRows checks a request for a page of rows, as [Queries.Check] does one for a statement.
func (q *Queries) CheckRows(request *quernv1.ReadRowsRequest, defaultFormat string) (*Query, error) {
	format, err := resolveFormat(request.GetFormat(), defaultFormat)
	if err != nil {
		return nil, err
	}
	rows, err := readRows(request)
	if err != nil {
		return nil, err
	}
	return q.prepareRows("rows", rows, format, common{request.GetNumbers(), request.GetTimeout()}, request.GetFilter())
}

// prepareRows completes a request for rows of one kind.
func (q *Queries) prepareRows(kind string, rows *enginev1.ReadRows, format Format, how common, spelling string) (*Query, error) {
	canonical, err := canonicalRows(rows)
	if err != nil {
		return nil, err
	}
	return q.prepare(&enginev1.ExecuteRequest{Rows: rows}, format, how, []string{kind, canonical}, spelling)
}

// sendable makes a name that is not UTF-8, which no message may hold, one that can be sent; nothing has either.
func sendable(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

func tableRequired() error {
	return apierr.Field(apierr.FieldRequired, "table", "`table` is empty: name a table, as ListTables spells it")
}

func readRows(request *quernv1.ReadRowsRequest) (*enginev1.ReadRows, error) {
	if request.GetTable() == "" {
		return nil, tableRequired()
	}
	size, err := pageSize(request.GetPageSize(), defaultRows, maxRows)
	if err != nil {
		return nil, err
	}
	count := request.GetCount()
	if count != "" && count != "none" && count != "exact" {
		return nil, apierr.Field(apierr.CountUnknown, "count", "`count` "+quote(count)+" is unknown; it is none or exact")
	}
	rows := &enginev1.ReadRows{
		Table:     sendable(request.GetTable()),
		PageSize:  uint32(size), //nolint:gosec // maxRows at most
		PageToken: sendable(request.GetPageToken()),
		Count:     count == "exact",
	}
	if rows.Filter, err = rowquery.Filter(request.GetFilter()); err != nil {
		return nil, unread(apierr.FilterInvalid, "filter", err)
	}
	if rows.Fields, err = rowquery.Fields(request.GetFields()); err != nil {
		return nil, unread(apierr.FieldsInvalid, "fields", err)
	}
	if rows.OrderBy, err = rowquery.Order(request.GetOrderBy()); err != nil {
		return nil, unread(apierr.OrderInvalid, "order_by", err)
	}
	return rows, nil
}

// unread says which field can't be read, where, and why.
func unread(reason apierr.Reason, field string, err error) error {
	message := "`" + field + "` can't be read: " + err.Error()
	var placed *rowquery.Error
	if errors.As(err, &placed) {
		message = "`" + field + "` can't be read " + placed.Error()
	}
	return apierr.Field(reason, field, message)
}

// canonicalRows gives the same text for the same page, however its filter was laid out.
func canonicalRows(rows *enginev1.ReadRows) (string, error) {
	bare := rows
	if len(rows.GetFilter()) > 0 {
		bare, _ = proto.Clone(rows).(*enginev1.ReadRows)
		for _, term := range bare.GetFilter() {
			term.At = 0
		}
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return "", apierr.New(apierr.FilterInvalid, "the request has text that is not UTF-8")
	}
	return string(raw), nil
}
