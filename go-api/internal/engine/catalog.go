package engine

import (
	"context"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// ListTables returns the catalogue as it is now.
func (c *Client) ListTables(ctx context.Context) (*enginev1.ListTablesResponse, error) {
	return unary(ctx, c, catalogService, "ListTables", func(ctx context.Context) (*enginev1.ListTablesResponse, error) {
		return c.catalog.ListTables(ctx, &enginev1.ListTablesRequest{})
	})
}

// GetTable returns one table, inspected, and whether rows share a key of these columns.
func (c *Client) GetTable(ctx context.Context, name string, key []string) (*enginev1.Table, error) {
	response, err := unary(ctx, c, catalogService, "GetTable", func(ctx context.Context) (*enginev1.GetTableResponse, error) {
		return c.catalog.GetTable(ctx, &enginev1.GetTableRequest{Name: name, Key: key})
	})
	return response.GetTable(), err
}

// catalogService is what traces call the service.
const catalogService = "quern.engine.v1.CatalogService"

// unary makes a call that reads only, and once more where that can succeed.
func unary[T any](ctx context.Context, c *Client, service, method string, call func(context.Context) (T, error)) (T, error) {
	return again(ctx, c, func(ctx context.Context) (T, error) {
		ctx, span := telemetry.BeginCall(ctx, service, method)
		answer, err := call(telemetry.Outgoing(ctx))
		if err != nil {
			span.Fail(apierr.ReasonOf(err))
		}
		span.End()
		return answer, err
	})
}
