package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// middleRow is the path of a row in the middle of 1.5 million.
const middleRow = "/v1/tables/orders/rows/3000001"

// measureRows takes pages and rows by key, all past the cache.
func measureRows(ctx context.Context, s settings, r *Report) error {
	if s.wrk == "" || s.vega == "" {
		return nil
	}
	keys, err := os.CreateTemp("", "quern-bench-*.yaml")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(keys.Name()) }()
	if _, err := keys.WriteString("tables: {orders: {key: o_orderkey}}\n"); err != nil {
		return err
	}
	edge, err := startQuern(ctx, "--log-level", "warn", "--config", keys.Name(), s.data, s.vega)
	if err != nil {
		return err
	}
	defer edge.stop()
	if err := measurePages(ctx, s, r, edge); err != nil {
		return err
	}
	if err := measureFilteredPage(ctx, s, r, edge); err != nil {
		return err
	}
	return measureRowByKey(ctx, s, r, edge)
}

// measurePages compares early pages of a table of 3 million rows with one far behind them. In an order the second page is
// what grows no more: it has a condition that the first one has not, where the page before ended.
func measurePages(ctx context.Context, s settings, r *Report, edge *process) error {
	for _, way := range []struct {
		label, order string
		far, early   int
	}{{"page of 100 of 3 M rows", "", 1000, 1}, {"page of 100 of 3 M rows, by delay", "delay desc", 50, 2}} {
		pages := map[string]url.Values{}
		page := url.Values{"page_size": {"100"}, "order_by": {way.order}}
		for number := 1; number <= way.far; number++ {
			if number <= 2 || number == way.far {
				pages[fmt.Sprintf("page %d", number)] = page
			}
			next, _, err := readPage(ctx, edge.url, page)
			if err != nil {
				return err
			}
			page = url.Values{"page_size": {"100"}, "order_by": {way.order}, "page_token": {next}}
		}
		far, early := fmt.Sprintf("page %d", way.far), fmt.Sprintf("page %d", way.early)
		contenders := make([]contender, 0, 3)
		for _, name := range []string{far, "page 1", "page 2"} {
			contenders = append(contenders, contender{name, func() (time.Duration, error) {
				_, took, err := readPage(ctx, edge.url, pages[name])
				return took, err
			}})
		}
		medians, ratios, err := inTurns(contenders, max(s.calls/10, 10))
		if err != nil {
			return err
		}
		for _, name := range []string{"page 1", "page 2", far} {
			r.add(way.label+": "+name, "ms", medians[name]*1e3, 0)
		}
		r.add(way.label+": "+far+" / "+early, "×", ratios[early], 1.2)
	}
	return nil
}

// readPage reads a page of the large table past the cache, and returns the next one's token.
func readPage(ctx context.Context, base string, parameters url.Values) (string, time.Duration, error) {
	started := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/tables/flights_3m/rows?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Cache-Control", "no-store")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", 0, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return "", 0, err
	}
	took := time.Since(started)
	var page struct {
		Next string `json:"next_page_token"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return "", 0, err
	}
	if page.Next == "" {
		return "", 0, fmt.Errorf("no next page: %.300s", body)
	}
	return page.Next, took, nil
}

// measureFilteredPage loads a page of a JSON file, beside ROAPI where there is one.
func measureFilteredPage(ctx context.Context, s settings, r *Report, edge *process) error {
	quern, err := edge.family()
	if err != nil {
		return err
	}
	const table = "filtered page of a JSON file of 200 k rows: "
	path := "/v1/tables/flights_200k_json/rows?filter=" + url.QueryEscape("delay > 60 AND distance > 1000") + "&page_size=100"
	targets := []target{{name: table + "Quern", url: edge.url + path, pids: quern, header: []string{"Cache-Control: no-store"}}}
	if s.roapi != "" {
		peer, err := startROAPI(ctx, s.roapi, filepath.Join(s.vega, "flights-200k.json"))
		if err != nil {
			return fmt.Errorf("roapi: %w", err)
		}
		defer peer.stop()
		same := "/api/tables/orders?filter[delay]gt=60&filter[distance]gt=1000&limit=100"
		targets = append(targets, target{name: table + "ROAPI", url: peer.url + same})
	}
	rounds, err := loadInTurns(ctx, s, targets)
	if err != nil {
		return err
	}
	rounds.report(r, "", targets)
	if s.roapi != "" {
		r.atLeast("filtered page: Quern / ROAPI", "×", rounds.against(targets[0].name, targets[1].name), 10)
	}
	return nil
}
