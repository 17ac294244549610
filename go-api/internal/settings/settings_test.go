package settings

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFreshness(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s, err := Open(path)
	if err != nil {
		t.Fatal("a file that is not there:", err)
	}
	go s.Follow(t.Context(), slog.New(slog.DiscardHandler))
	want := func(line string, tables ...string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); s.Freshness(tables).CacheControl() != line; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%v: %q, want %q", tables, s.Freshness(tables).CacheControl(), line)
			}
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("private, no-cache", "a")
	write("tables:\n  a: {cache: {public: true, max_age: 60s, stale_while_revalidate: 30s, stale_if_error: 10m}}\n  b: {cache: {public: true, max_age: 5s}}\n")
	want("public, max-age=60, stale-while-revalidate=30, stale-if-error=600", "a")
	want("public, max-age=5", "a", "b")
	want("private, no-cache", "a", "c")
	want("private, no-cache")
	// What is wrong changes nothing.
	write("tables:\n  a: {cash: {}}\n")
	time.Sleep(1500 * time.Millisecond)
	want("public, max-age=5", "b")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("private, no-cache", "a")
}

func TestWrongSettingsSayWhere(t *testing.T) {
	for text, part := range map[string]string{
		"tables:\n  a:\n    cache:\n      maxage: 5s\n": "maxage",
		"tables: {a: {cache: {max_age: 1500ms}}}":       "tables.a.cache.max_age",
		"tables: {a: {cache: {stale_if_error: -1s}}}":   "tables.a.cache.stale_if_error",
		"tables: [": "can't be read",
		"table: {}": "table",
		"tables: {a: {cache: {public: perhaps}}}":          "perhaps",
		"tables: {a: {cache: {max_age: 99999999999h}}}":    "can't be read",
		"tables: {a: {cache: {max_age: 5}}}\nmore: things": "more",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := parse(nil); err != nil {
		t.Error("an empty file:", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tables: {a: {cache: {max_age: 5s}, key: [b, c]}}")
	f.Add("- [")
	f.Fuzz(func(t *testing.T, text string) {
		tables, err := parse([]byte(text))
		if err != nil && err.Error() == "" {
			t.Error("an error that says nothing")
		}
		for name, table := range tables {
			freshness := table.Cache
			if freshness.MaxAge < 0 || !strings.Contains(freshness.CacheControl(), ", ") {
				t.Error(name, freshness)
			}
		}
	})
}
