// Package settings reads quern.yaml: what an operator says of single tables. Unknown keys are errors. It knows nothing
// of what the settings do.
package settings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/goccy/go-yaml"
)

// FileName is the file's name in a served folder.
const FileName = "quern.yaml"

// lookEvery is how often the file is looked at.
const lookEvery = time.Second

// maxBytes is the longest file that is read.
const maxBytes = 1 << 20

// file is quern.yaml.
type file struct {
	Tables map[string]table `yaml:"tables"`
}

type table struct {
	Cache Freshness `yaml:"cache"`
	Key   columns   `yaml:"key"`
}

// columns is one name, or a list of names.
type columns []string

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (c *columns) UnmarshalYAML(raw []byte) error {
	var one string
	if yaml.Unmarshal(raw, &one) == nil {
		*c = columns{one}
		return nil
	}
	return yaml.Unmarshal(raw, (*[]string)(c))
}

// Freshness is how answers from a table may be kept by those who stand before Quern. The zero value is the default:
// keep privately, ask before each use.
type Freshness struct {
	// Public lets shared caches keep answers.
	Public bool `yaml:"public"`
	// MaxAge is how long an answer may be used without asking.
	MaxAge time.Duration `yaml:"max_age"`
	// StaleWhileRevalidate is how long after that it may be used while asking (RFC 5861).
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate"`
	// StaleIfError is how long it may be used while nobody answers (RFC 5861); for the edge's own memory too, counted
	// from when the engine's watch was last heard of.
	StaleIfError time.Duration `yaml:"stale_if_error"`
}

// CacheControl returns the response directives.
func (f Freshness) CacheControl() string {
	line := "private"
	if f.Public {
		line = "public"
	}
	if f.MaxAge <= 0 {
		line += ", no-cache"
	} else {
		line += ", max-age=" + seconds(f.MaxAge)
	}
	if f.StaleWhileRevalidate > 0 {
		line += ", stale-while-revalidate=" + seconds(f.StaleWhileRevalidate)
	}
	if f.StaleIfError > 0 {
		line += ", stale-if-error=" + seconds(f.StaleIfError)
	}
	return line
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// both returns what holds for an answer of two tables: the stricter of each.
func both(a, b Freshness) Freshness {
	return Freshness{
		Public:               a.Public && b.Public,
		MaxAge:               min(a.MaxAge, b.MaxAge),
		StaleWhileRevalidate: min(a.StaleWhileRevalidate, b.StaleWhileRevalidate),
		StaleIfError:         min(a.StaleIfError, b.StaleIfError),
	}
}

// Settings follow a file.
type Settings struct {
	path    string
	tables  atomic.Pointer[map[string]table]
	changed time.Time
	size    int64
}

// Open reads the file at path, which need not be there yet.
func Open(path string) (*Settings, error) {
	s := &Settings{path: path}
	s.tables.Store(&map[string]table{})
	return s, s.read()
}

// Follow reads the file again whenever it changes, until ctx ends. What can't be read leaves what was in force.
func (s *Settings) Follow(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, size := s.changed, s.size
		err := s.read()
		switch {
		case s.changed.Equal(changed) && s.size == size:
		case err != nil:
			logger.Error("settings are wrong; those from before stay in force", "file", s.path, "error", err)
		default:
			logger.Info("settings changed", "file", s.path)
		}
	}
}

// read reads the file if it is another than before.
func (s *Settings) read() error {
	if s.path == "" {
		return nil
	}
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		if !s.changed.IsZero() {
			s.changed, s.size = time.Time{}, 0
			s.tables.Store(&map[string]table{})
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	if info.ModTime().Equal(s.changed) && info.Size() == s.size {
		return nil
	}
	s.changed, s.size = info.ModTime(), info.Size()
	if info.Size() > maxBytes {
		return fmt.Errorf("%s is over 1 MiB", s.path)
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	tables, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	s.tables.Store(&tables)
	return nil
}

func parse(text []byte) (map[string]table, error) {
	var parsed file
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if len(bytes.TrimSpace(text)) > 0 {
		if err := decoder.Decode(&parsed); err != nil {
			return nil, fmt.Errorf("it can't be read: %w", err)
		}
	}
	for name, table := range parsed.Tables {
		for what, duration := range map[string]time.Duration{
			"max_age": table.Cache.MaxAge, "stale_while_revalidate": table.Cache.StaleWhileRevalidate, "stale_if_error": table.Cache.StaleIfError,
		} {
			if duration < 0 || duration%time.Second != 0 || duration > math.MaxInt32*time.Second {
				return nil, fmt.Errorf("tables.%s.cache.%s is %s; write whole seconds, such as 60s", name, what, duration)
			}
		}
		if slices.Contains(table.Key, "") {
			return nil, fmt.Errorf("tables.%s.key has an empty name; name a column, or several in a list", name)
		}
	}
	return parsed.Tables, nil
}

// Any says whether any table has settings.
func (s *Settings) Any() bool { return len(*s.tables.Load()) > 0 }

// Freshness returns what holds for an answer that reads these tables: the strictest of them, and the default where one
// has no settings or there are none.
func (s *Settings) Freshness(tables []string) Freshness {
	known := *s.tables.Load()
	if len(known) == 0 || len(tables) == 0 {
		return Freshness{}
	}
	freshness := known[tables[0]].Cache
	for _, name := range tables[1:] {
		freshness = both(freshness, known[name].Cache)
	}
	return freshness
}

// Key returns the columns that rows of a table are found by, none where it has no key.
func (s *Settings) Key(name string) []string { return (*s.tables.Load())[name].Key }
