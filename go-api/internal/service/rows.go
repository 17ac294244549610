package service

import (
	"errors"
	"net/url"
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

// GetRow implements quern.v1.TableService.
func (t *Tables) GetRow(request *quernv1.GetRowRequest, stream quernv1.TableService_GetRowServer) error {
	query, err := t.queries.CheckRow(request, "")
	if err != nil {
		return err
	}
	return query.serve(stream, func(body *httpbody.HttpBody, receipt *quernv1.Receipt) error {
		return stream.Send(&quernv1.GetRowResponse{Body: body, Receipt: receipt})
	})
}

// CheckRow checks a request for one row, as [Queries.Check] does one for a statement. What it returns holds only as long
// as the table's key is configured as it is now.
func (q *Queries) CheckRow(request *quernv1.GetRowRequest, defaultFormat string) (*Query, error) {
	format, err := resolveFormat(request.GetFormat(), defaultFormat)
	if err != nil {
		return nil, err
	}
	if format.Envelope {
		// One object a line is, of one row, the object.
		lines, err := FormatNamed("ndjson")
		if err != nil {
			return nil, err
		}
		format.Envelope, format.engine = false, lines.engine
	}
	if request.GetTable() == "" || request.GetKey() == "" {
		return nil, apierr.Field(apierr.FieldRequired, "key", "`table` and `key` must not be empty")
	}
	fields, err := rowquery.Fields(request.GetFields())
	if err != nil {
		return nil, unread(apierr.FieldsInvalid, "fields", err)
	}
	key := &enginev1.RowKey{Values: []string{request.GetKey()}}
	for _, column := range q.keys(request.GetTable()) {
		key.Columns = append(key.Columns, &enginev1.ColumnPath{Names: []string{column}})
	}
	if len(key.GetColumns()) > 1 {
		if key.Values, err = keyParts(request.GetKey()); err != nil {
			return nil, err
		}
	}
	rows := &enginev1.ReadRows{Table: request.GetTable(), Fields: fields, PageSize: 1, Key: key}
	canonical, err := canonicalRows(rows)
	if err != nil {
		return nil, err
	}
	how := common{request.GetNumbers(), request.GetTimeout()}
	return q.prepare(&enginev1.ExecuteRequest{Rows: rows}, format, how, []string{"row", canonical}, "")
}

// keyParts splits the key of several columns.
func keyParts(key string) ([]string, error) {
	parts := strings.Split(key, "~")
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil {
			return nil, apierr.Field(apierr.KeyInvalid, "key", "`key` has a percent sign that begins no escape; write it as %25")
		}
		parts[i] = plain
	}
	return parts, nil
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
	canonical, err := canonicalRows(rows)
	if err != nil {
		return nil, err
	}
	how := common{request.GetNumbers(), request.GetTimeout()}
	return q.prepare(&enginev1.ExecuteRequest{Rows: rows}, format, how, []string{"rows", canonical}, request.GetFilter())
}

func readRows(request *quernv1.ReadRowsRequest) (*enginev1.ReadRows, error) {
	if request.GetTable() == "" {
		return nil, apierr.Field(apierr.FieldRequired, "table", "`table` is empty: name a table, as ListTables spells it")
	}
	size, err := pageSize(request.GetPageSize(), defaultRows, maxRows)
	if err != nil {
		return nil, err
	}
	rows := &enginev1.ReadRows{
		Table:     request.GetTable(),
		PageSize:  uint32(size), //nolint:gosec // maxRows at most
		PageToken: request.GetPageToken(),
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
	bare, _ := proto.Clone(rows).(*enginev1.ReadRows)
	for _, term := range bare.GetFilter() {
		term.At = 0
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return "", apierr.New(apierr.FilterInvalid, "the request has text that is not UTF-8")
	}
	return string(raw), nil
}
