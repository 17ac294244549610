package containers

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// measureStarts starts the engine and an edge again, and logs how long they take from Docker's start of the process until
// they serve, for docs/benchmarks.md.
func (f *fleet) measureStarts(t *testing.T) {
	for _, service := range []string{"engine", "edge-1"} {
		id := f.id(t, service)
		f.run(t, "docker", "stop", "--time", "30", id)
		f.run(t, "docker", "start", id)
		f.awaitHealthy(t, service)
		started := f.container(t, service).State.StartedAt
		// Docker's logs and its note of the start are of one clock.
		logs := f.run(t, "sh", "-c", `docker logs --since "$0" "$1" 2>&1`, started.Format(time.RFC3339Nano), id)
		t.Logf("%s: serves %s after Docker has started its process", service, servingAt(t, logs).Sub(started).Round(time.Millisecond))
	}
	for _, edge := range f.edges {
		edge.WaitReady(t)
	}
}

// servingAt returns when a process said that it serves.
func servingAt(t *testing.T, logs string) time.Time {
	t.Helper()
	for line := range strings.Lines(logs) {
		var said struct {
			// The engine's words, and the edge's.
			Timestamp, Time time.Time
			Message, Msg    string
		}
		if json.Unmarshal([]byte(line), &said) != nil {
			continue
		}
		switch {
		case said.Message == "serving":
			return said.Timestamp
		case said.Msg == "serving":
			return said.Time
		}
	}
	t.Fatalf("it does not say that it serves:\n%s", logs)
	return time.Time{}
}
