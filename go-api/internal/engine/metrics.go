package engine

import (
	"context"
	"strings"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// Metrics returns what each engine that serves counts, by its address: host and port, or nothing for an engine behind a
// Unix socket. It does not wait for engines that are not there.
func (c *Client) Metrics(ctx context.Context) (map[string][]*enginev1.Metric, error) {
	service := enginev1.NewMetricsServiceClient(c.conn)
	path := &trail{}
	answer, err := service.GetMetrics(context.WithValue(ctx, trailKey{}, path), &enginev1.GetMetricsRequest{})
	if err != nil {
		return nil, err
	}
	all := map[string][]*enginev1.Metric{path.last.shown(): answer.GetMetrics()}
	for _, m := range path.members {
		if m == path.last || m.out() {
			continue
		}
		to := &trail{last: m, same: true}
		answer, err := service.GetMetrics(context.WithValue(ctx, trailKey{}, to), &enginev1.GetMetricsRequest{})
		if err == nil && to.last == m {
			all[m.shown()] = answer.GetMetrics()
		}
	}
	return all, nil
}

// shown is the member's address for people, empty for a Unix socket.
func (m *member) shown() string {
	if m == nil || strings.HasPrefix(m.address, "/") || strings.HasPrefix(m.address, "unix:") {
		return ""
	}
	return m.address
}
