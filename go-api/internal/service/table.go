package service

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"time"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
)

const maxPageSize = 1000

// Catalog says which tables there are.
type Catalog interface {
	// ListTables returns every table, ordered by name.
	ListTables(ctx context.Context) (*enginev1.ListTablesResponse, error)
	// GetTable returns one table, waiting for its inspection until ctx ends, and a key of these columns that rows share.
	GetTable(ctx context.Context, name string, key []string) (*enginev1.Table, error)
}

// Tables implements quern.v1.TableService.
type Tables struct {
	quernv1.UnimplementedTableServiceServer

	catalog Catalog
	queries *Queries
	timeout time.Duration
}

// NewTables returns the table service; each call about tables may take timeout, those for rows are answered by queries.
func NewTables(catalog Catalog, queries *Queries, timeout time.Duration) *Tables {
	return &Tables{catalog: catalog, queries: queries, timeout: timeout}
}

// ListTables implements quern.v1.TableService. Pages follow the names, so a table that comes or goes between two pages
// never makes another appear twice or not at all.
func (t *Tables) ListTables(ctx context.Context, request *quernv1.ListTablesRequest) (*quernv1.ListTablesResponse, error) {
	size, err := pageSize(request.GetPageSize(), maxPageSize, maxPageSize)
	if err != nil {
		return nil, err
	}
	after, err := decodePageToken(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	catalog, err := t.catalog.ListTables(ctx)
	if err != nil {
		return nil, outward(ctx, err, t.timeout)
	}
	tables := catalog.GetTables()
	first := sort.Search(len(tables), func(i int) bool { return tables[i].GetName() > after })
	if request.GetPageToken() == "" {
		first = 0
	}
	last := min(first+size, len(tables))

	response := &quernv1.ListTablesResponse{}
	for _, table := range tables[first:last] {
		response.Tables = append(response.Tables, publicTable(table, t.queries.keys(table.GetName())))
	}
	for _, table := range tables {
		if table.GetState() == enginev1.TableState_TABLE_STATE_BROKEN {
			response.Unreachable = append(response.Unreachable, table.GetName())
		}
	}
	if last < len(tables) {
		response.NextPageToken = encodePageToken(tables[last-1].GetName())
	}
	if request.GetPageToken() == "" {
		for _, passed := range catalog.GetPassedOver() {
			response.PassedOver = append(response.PassedOver,
				&quernv1.PassedOver{Path: passed.GetPath(), Reason: passed.GetReason()})
		}
	}
	return response, nil
}

// GetTable implements quern.v1.TableService.
func (t *Tables) GetTable(ctx context.Context, request *quernv1.GetTableRequest) (*quernv1.GetTableResponse, error) {
	if request.GetTable() == "" {
		return nil, apierr.Field(apierr.FieldRequired, "table", "`table` is empty: name a table, as ListTables spells it")
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	key := t.queries.keys(request.GetTable())
	table, err := t.catalog.GetTable(ctx, sendable(request.GetTable()), key)
	if err != nil {
		return nil, outward(ctx, err, t.timeout)
	}
	return &quernv1.GetTableResponse{Table: publicTable(table, key)}, nil
}

// pageSize takes the caller's wish by AIP-158.
func pageSize(asked int32, otherwise, most int) (int, error) {
	switch {
	case asked < 0:
		return 0, apierr.Field(apierr.PageSizeInvalid, "page_size",
			fmt.Sprintf("`page_size` is negative: ask for 1 to %d, or leave it out", most))
	case asked == 0:
		return otherwise, nil
	default:
		return min(int(asked), most), nil
	}
}

// pageToken is what a page token holds. Its form is nobody's business but this file's.
type pageToken struct {
	After string `json:"after"`
}

func encodePageToken(after string) string {
	// A struct of one string always marshals.
	raw, _ := json.Marshal(pageToken{After: after})
	return base64.RawURLEncoding.EncodeToString(raw)
}

func decodePageToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	var decoded pageToken
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(raw, &decoded)
	}
	if err != nil || decoded.After == "" {
		return "", apierr.Field(apierr.PageTokenInvalid, "page_token",
			"`page_token` is not one that this list gave: pass the `next_page_token` of the page before unchanged, or leave it out to start over")
	}
	return decoded.After, nil
}

func publicTable(table *enginev1.Table, key []string) *quernv1.Table {
	public := &quernv1.Table{
		Name:        table.GetName(),
		Description: table.GetDescription(),
		State:       publicState(table.GetState()),
		Columns:     publicColumns(table.GetColumns()),
		Formats:     table.GetFormats(),
		FileCount:   int32(min(table.GetFileCount(), math.MaxInt32)),
		SizeBytes:   publicCount(table.GetSizeBytes()),
		Snapshot:    table.GetSnapshot(),
		Key:         key,

		DuplicateKey: table.GetDuplicateKey(),
	}
	if table.RowCount != nil {
		rows := publicCount(table.GetRowCount())
		public.RowCount = &rows
	}
	if problem := table.GetProblem(); problem != nil {
		public.Problem = &quernv1.Problem{Reason: problem.GetReason(), Message: problem.GetMessage(), File: problem.GetFile()}
		if problem.Row != nil {
			row := publicCount(problem.GetRow())
			public.Problem.Row = &row
		}
	}
	return public
}

func publicColumns(columns []*enginev1.Column) []*quernv1.Column {
	public := make([]*quernv1.Column, 0, len(columns))
	for _, column := range columns {
		public = append(public, &quernv1.Column{
			Name:     column.GetName(),
			Type:     column.GetType(),
			Nullable: column.GetNullable(),
			Children: publicColumns(column.GetChildren()),
		})
	}
	return public
}

func publicState(state enginev1.TableState) quernv1.Table_State {
	switch state {
	case enginev1.TableState_TABLE_STATE_READY:
		return quernv1.Table_STATE_READY
	case enginev1.TableState_TABLE_STATE_INSPECTING:
		return quernv1.Table_STATE_INSPECTING
	case enginev1.TableState_TABLE_STATE_BROKEN:
		return quernv1.Table_STATE_BROKEN
	case enginev1.TableState_TABLE_STATE_UNSPECIFIED:
		return quernv1.Table_STATE_UNSPECIFIED
	default:
		return quernv1.Table_STATE_UNSPECIFIED
	}
}

// publicCount narrows a count to the signed type that public messages use.
func publicCount(count uint64) int64 {
	return int64(min(count, math.MaxInt64))
}
