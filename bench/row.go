package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// fewRows is how many orders json-server gets: it keeps its table as JavaScript objects, and looks through them for a key.
const fewRows = 10_000

// Who answers with one row, as the report calls them.
const (
	rowOfQuern      = "Quern, of 1.5 M rows"
	rowOfBare       = "bare handler"
	rowOfJSONServer = "json-server, of 10,000 rows"
	rowOfRedis      = "Redis GET of its JSON"
)

// measureRowByKey loads one row by its key as heavily as hits of the cache, beside servers that have rows or bytes in memory.
// Each row is in the middle of its table.
func measureRowByKey(ctx context.Context, s settings, r *Report, edge *process) error {
	row := edge.url + middleRow
	body, _, err := fetch(ctx, row)
	if err != nil {
		return err
	}
	quern, err := edge.family()
	if err != nil {
		return err
	}
	bare, err := startBare(ctx, body)
	if err != nil {
		return err
	}
	defer bare.stop()
	targets := []target{
		{name: rowOfQuern, url: row, pids: quern, header: []string{"Cache-Control: no-store"}, least: 15_000},
		{name: rowOfBare, url: bare.url, pids: bare.pids()},
	}
	if s.jsonServer != "" {
		peer, path, err := startRowsInJSONServer(ctx, s.jsonServer, edge)
		if err != nil {
			return fmt.Errorf("json-server: %w", err)
		}
		defer peer.stop()
		targets = append(targets, target{name: rowOfJSONServer, url: peer.url + path, pids: peer.pids()})
	}
	if s.redis != "" && s.redisBenchmark != "" {
		const key = "orders/3000001"
		peer, err := startRedis(ctx, s.redis, key, body)
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		defer peer.stop()
		targets = append(targets, target{name: rowOfRedis, pids: peer.pids(), load: func() (rate, error) {
			return redisBenchmark(ctx, s.redisBenchmark, peer, "GET", key)
		}})
	}
	rounds, err := loadInTurns(ctx, s, targets)
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("row by key, %d connections: ", connections)
	rounds.report(r, prefix, targets)
	for _, t := range targets[1:] {
		r.add(prefix+"Quern / "+t.name, "×", rounds.against(rowOfQuern, t.name), 0)
	}
	return nil
}

// startRowsInJSONServer serves the first orders by json-server, and returns the path of the row in their middle.
func startRowsInJSONServer(ctx context.Context, program string, edge *process) (*process, string, error) {
	var body bytes.Buffer
	sql := fmt.Sprintf("SELECT * FROM orders ORDER BY o_orderkey LIMIT %d", fewRows)
	if _, err := post(ctx, edge.url, sql, "no-store", &body); err != nil {
		return nil, "", err
	}
	var answer struct{ Rows []json.RawMessage }
	if err := json.Unmarshal(body.Bytes(), &answer); err != nil {
		return nil, "", err
	}
	if len(answer.Rows) != fewRows {
		return nil, "", fmt.Errorf("%d orders, not %d", len(answer.Rows), fewRows)
	}
	table, err := json.Marshal(map[string]any{"orders": answer.Rows})
	if err != nil {
		return nil, "", err
	}
	wanted, err := orderKey(answer.Rows[fewRows/2])
	if err != nil {
		return nil, "", err
	}
	peer, err := startJSONServer(ctx, program, "o_orderkey", table)
	if err != nil {
		return nil, "", err
	}
	path := fmt.Sprintf("/orders/%d", wanted)
	row, err := get(ctx, peer.url+path)
	if err != nil {
		peer.stop()
		return nil, "", err
	}
	if key, err := orderKey(row); err != nil || key != wanted {
		peer.stop()
		return nil, "", fmt.Errorf("%s is another row: %.300s", path, row)
	}
	return peer, path, nil
}

// orderKey is the key of an order in JSON.
func orderKey(row []byte) (int64, error) {
	var order struct {
		Key int64 `json:"o_orderkey"`
	}
	err := json.Unmarshal(row, &order)
	return order.Key, err
}

// get reads a whole answer.
func get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", address, response.Status)
	}
	return body, nil
}
