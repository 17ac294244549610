package engine

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"sync"
)

// maxLine bounds what is kept of a line whose end has not come.
const maxLine = 64 << 10

// relay passes the engine's log on line by line, so that its lines and the edge's never mix within a line. The engine's
// own `serving` line is held back: the line of that name is the edge's, with the addresses that callers need.
type relay struct {
	out    io.Writer
	logger *slog.Logger

	mu      sync.Mutex
	partial []byte
}

// Write implements io.Writer. It never fails: a log that can't be written must not end the engine.
func (r *relay) Write(data []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partial = append(r.partial, data...)
	for {
		end := bytes.IndexByte(r.partial, '\n')
		if end < 0 && len(r.partial) < maxLine {
			return len(data), nil
		}
		if end < 0 {
			end = len(r.partial) - 1
		}
		r.line(r.partial[:end+1])
		r.partial = r.partial[end+1:]
	}
}

func (r *relay) line(line []byte) {
	var entry struct {
		Msg     string `json:"msg"`
		Message string `json:"message"`
	}
	if json.Unmarshal(line, &entry) == nil && (entry.Msg == "serving" || entry.Message == "serving") {
		r.logger.Info("engine serving")
		return
	}
	_, _ = r.out.Write(line)
}
