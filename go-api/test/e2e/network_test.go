package e2e

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// within asks with a timeout, and returns the status and Retry-After; 0 where there was no answer in that time and a second.
func within(ctx context.Context, edge *harness.Server, timeout string) (status int, retryAfter string) {
	limit, err := time.ParseDuration(timeout)
	if err != nil {
		return 0, ""
	}
	ctx, cancel := context.WithTimeout(ctx, limit+time.Second)
	defer cancel()
	target := edge.URL + "/v1/query?timeout=" + timeout + "&sql=" + url.QueryEscape("SELECT count(*) FROM numbers")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, ""
	}
	request.Header.Set("Cache-Control", "no-store")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, ""
	}
	return response.StatusCode, response.Header.Get("Retry-After")
}

// expectTrouble asks eight times at once, and wants answers in time that are one of these statuses.
func expectTrouble(t *testing.T, edge *harness.Server, timeout string, wanted ...int) {
	t.Helper()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			status, retryAfter := within(t.Context(), edge, timeout)
			good := false
			for _, want := range wanted {
				good = good || status == want
			}
			if !good {
				t.Errorf("timeout=%s: %d, want %v", timeout, status, wanted)
			}
			if (status == http.StatusServiceUnavailable) != (retryAfter != "") {
				t.Errorf("%d with Retry-After %q", status, retryAfter)
			}
		})
	}
	group.Wait()
}

func TestTheNetworkToTheEngineFails(t *testing.T) {
	link := harness.StartLink(t, harness.StartEngine(t, numbersDir(t)))
	edge := harness.StartEdge(t, link.URL)
	edge.WaitReady(t)
	for _, c := range []struct {
		what        string
		fail, mend  func()
		lasts       time.Duration
		short, long []int
	}{
		{"cut", func() { link.Down(t, true) }, func() { link.Down(t, false) }, 3 * time.Second, []int{504}, []int{503}},
		{"silent", func() { link.Stall(true) }, func() { link.Stall(false) }, 0, []int{504}, []int{504, 503}},
		// The connection is given up, and new ones are accepted and say nothing.
		{"silent for long", func() { link.Stall(true) }, func() { link.Stall(false) }, 15 * time.Second, []int{504}, []int{503}},
		{"slow", func() { link.Slow(20 * time.Millisecond) }, func() { link.Slow(0) }, 0, []int{504}, []int{504, 503}},
	} {
		if status, _ := within(t.Context(), edge, "20s"); status != http.StatusOK {
			t.Fatalf("%s: %d before it", c.what, status)
		}
		c.fail()
		expectTrouble(t, edge, "1s", c.short...)
		time.Sleep(c.lasts)
		expectTrouble(t, edge, "7s", c.long...)
		c.mend()
		begun := time.Now()
		if status, _ := within(t.Context(), edge, "5s"); status != http.StatusOK || time.Since(begun) > 2*time.Second {
			t.Errorf("%s: %d, %s after the network's return", c.what, status, time.Since(begun))
		}
		t.Logf("%s: back after %s", c.what, time.Since(begun))
	}
	if strings.Contains(edge.Log(), "panic") {
		t.Error("it panicked")
	}
}
