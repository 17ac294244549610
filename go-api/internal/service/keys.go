package service

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/httpbody"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/rowquery"
)

// maxKeys is how many rows may be asked for by key at once.
const maxKeys = 1000

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

// BatchGetRows implements quern.v1.TableService.
func (t *Tables) BatchGetRows(request *quernv1.BatchGetRowsRequest, stream quernv1.TableService_BatchGetRowsServer) error {
	query, err := t.queries.CheckKeys(request, "")
	if err != nil {
		return err
	}
	return query.serve(stream, func(body *httpbody.HttpBody, receipt *quernv1.Receipt) error {
		return stream.Send(&quernv1.BatchGetRowsResponse{Body: body, Receipt: receipt})
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
	key := &enginev1.RowKey{Columns: q.keyColumns(request.GetTable())}
	if key.Values, err = keyParts("key", request.GetKey(), len(key.GetColumns())); err != nil {
		return nil, err
	}
	rows := &enginev1.ReadRows{Table: sendable(request.GetTable()), Fields: fields, PageSize: 1, Key: key}
	return q.prepareRows("row", rows, format, common{request.GetNumbers(), request.GetTimeout()}, "")
}

// CheckKeys checks a request for several rows, as [Queries.CheckRow] does one for one.
func (q *Queries) CheckKeys(request *quernv1.BatchGetRowsRequest, defaultFormat string) (*Query, error) {
	format, err := resolveFormat(request.GetFormat(), defaultFormat)
	if err != nil {
		return nil, err
	}
	if request.GetTable() == "" {
		return nil, tableRequired()
	}
	switch count := len(request.GetKeys()); {
	case count == 0:
		return nil, apierr.Field(apierr.FieldRequired, "keys", "`keys` is empty: name the rows, as in `keys=a&keys=b` or \"keys\": [\"a\", \"b\"]")
	case count > maxKeys:
		return nil, apierr.Field(apierr.TooManyKeys, "keys", fmt.Sprintf("`keys` names %d rows, at most %d are read at once; ask several times", count, maxKeys))
	}
	fields, err := rowquery.Fields(request.GetFields())
	if err != nil {
		return nil, unread(apierr.FieldsInvalid, "fields", err)
	}
	keys := &enginev1.RowKeys{Columns: q.keyColumns(request.GetTable())}
	for number, key := range request.GetKeys() {
		parts, err := keyParts(fmt.Sprintf("keys[%d]", number), key, len(keys.GetColumns()))
		if err != nil {
			return nil, err
		}
		keys.Keys = append(keys.Keys, &enginev1.RowKeyValues{Values: parts, Spelled: key})
	}
	rows := &enginev1.ReadRows{Table: sendable(request.GetTable()), Fields: fields, PageSize: 1, Keys: keys}
	return q.prepareRows("keys", rows, format, common{request.GetNumbers(), request.GetTimeout()}, "")
}

// keyColumns returns a table's key as it is configured now.
func (q *Queries) keyColumns(table string) []*enginev1.ColumnPath {
	var paths []*enginev1.ColumnPath
	for _, column := range q.keys(table) {
		paths = append(paths, &enginev1.ColumnPath{Names: []string{column}})
	}
	return paths
}

// keyParts returns the values of a key of that many columns; field names it in a message.
func keyParts(field, key string, columns int) ([]string, error) {
	parts := []string{key}
	if columns > 1 {
		parts = strings.Split(key, "~")
	}
	for i, part := range parts {
		if columns > 1 {
			plain, err := url.PathUnescape(part)
			if err != nil {
				return nil, apierr.Field(apierr.KeyInvalid, field, "`"+field+"` has a percent sign that begins no escape; write it as %25")
			}
			parts[i] = plain
		}
		if !utf8.ValidString(parts[i]) {
			return nil, apierr.Field(apierr.KeyInvalid, field, "`"+field+"` is not UTF-8; write other bytes as the characters that they stand for")
		}
	}
	return parts, nil
}
