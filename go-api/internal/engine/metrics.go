package engine

import (
	"context"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// Metrics returns what the engine counts. It does not wait for an engine that is not there.
func (c *Client) Metrics(ctx context.Context) ([]*enginev1.Metric, error) {
	answer, err := enginev1.NewMetricsServiceClient(c.conn).GetMetrics(ctx, &enginev1.GetMetricsRequest{})
	if err != nil {
		return nil, err
	}
	return answer.GetMetrics(), nil
}
