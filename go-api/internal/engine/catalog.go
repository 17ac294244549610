package engine

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// ListTables returns the catalogue as it is now.
func (c *Client) ListTables(ctx context.Context) (*enginev1.ListTablesResponse, error) {
	return unary(ctx, c, "ListTables", func(ctx context.Context) (*enginev1.ListTablesResponse, error) {
		return c.catalog.ListTables(ctx, &enginev1.ListTablesRequest{})
	})
}

// GetTable returns one table, inspected, and whether rows share a key of these columns.
func (c *Client) GetTable(ctx context.Context, name string, key []string) (*enginev1.Table, error) {
	response, err := unary(ctx, c, "GetTable", func(ctx context.Context) (*enginev1.GetTableResponse, error) {
		return c.catalog.GetTable(ctx, &enginev1.GetTableRequest{Name: name, Key: key})
	})
	return response.GetTable(), err
}

// unary makes a call of the catalogue that reads only, and makes it once more when the engine could not be reached.
func unary[T any](ctx context.Context, c *Client, method string, call func(context.Context) (T, error)) (T, error) {
	var none T
	for attempt := 0; ; attempt++ {
		if err := c.reach(ctx); err != nil {
			return none, err
		}
		within, span := telemetry.BeginCall(ctx, "quern.engine.v1.CatalogService", method)
		answer, err := call(telemetry.Outgoing(within))
		span.Fail(apierr.ReasonOf(err))
		span.End()
		if attempt > 0 || !retryable(err) || ctx.Err() != nil {
			return answer, err
		}
		if status.Code(err) == codes.Unavailable {
			time.Sleep(settleDelay)
		}
	}
}
