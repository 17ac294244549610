package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// TestUnreadableFile uses a folder whose name is a file's and a link to a file that goes away, since permissions
// don't stop a test that runs as root.
func TestUnreadableFile(t *testing.T) {
	dir := numbersDir(t)
	elsewhere := filepath.Join(t.TempDir(), "data.csv")
	must(t, os.WriteFile(elsewhere, []byte("a\n1\n"), 0o600))
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "linked.csv")))
	must(t, os.MkdirAll(filepath.Join(dir, "folder.csv"), 0o750))
	server := harness.Start(t, dir)
	if _, err := server.Query(t.Context(), "SELECT a FROM linked", "json"); err != nil {
		t.Errorf("a link to a file is a table: %v", err)
	}
	must(t, os.Remove(elsewhere))
	if _, err := server.Query(t.Context(), "SELECT a FROM linked", "json"); err == nil || !strings.HasPrefix(err.Error(), "400") {
		t.Errorf("want 400 once the link dangles, got %v", err)
	}
	if _, err := server.Query(t.Context(), "SELECT count(*) FROM numbers", "json"); err != nil {
		t.Errorf("the other table: %v", err)
	}
}

// TestHalfWrittenFile copies a file in small steps, as an upload does: the table is broken meanwhile or has whole
// rows of an earlier moment, and is right once the copy is complete.
func TestHalfWrittenFile(t *testing.T) {
	dir := numbersDir(t)
	whole := content{Head: "[", Line: `{"n":{n}},`, Times: 2000, Tail: `{"n":0}]`}.bytes(t, "")
	path := filepath.Join(dir, "copied.json")
	must(t, os.WriteFile(path, whole[:len(whole)/2], 0o600))
	server := harness.Start(t, dir)
	if _, err := server.Query(t.Context(), "SELECT count(*) FROM copied", "json"); err == nil || !strings.Contains(err.Error(), "TABLE_BROKEN") {
		t.Errorf("want TABLE_BROKEN for half a file, got %v", err)
	}
	must(t, os.WriteFile(path, whole, 0o600))
	answer, err := server.Query(t.Context(), "SELECT count(*) AS n FROM copied", "json-array")
	if err != nil || strings.TrimSpace(string(answer)) != `[{"n":2001}]` {
		t.Errorf("once it is whole: %s, %v", answer, err)
	}
}

// TestFileReplacedDuringReads replaces a file again and again by others with the same sum of rows. Each answer
// must be of one version, or 409: never a mix.
func TestFileReplacedDuringReads(t *testing.T) {
	for _, extension := range []string{"csv", "json", "parquet"} {
		t.Run(extension, func(t *testing.T) { replaceDuringReads(t, extension) })
	}
}

func replaceDuringReads(t *testing.T, extension string) {
	dir := t.TempDir()
	versions := versionFiles(t, extension)
	target := filepath.Join(dir, "changing."+extension)
	hidden := filepath.Join(dir, ".changing.tmp")
	replace := func(version int) {
		must(t, os.WriteFile(hidden, versions[version], 0o600))
		must(t, os.Rename(hidden, target))
	}
	replace(0)
	server := harness.Start(t, dir)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			case <-time.After(15 * time.Millisecond):
				replace(round % len(versions))
			}
		}
	})
	whole := 0
	for range 60 {
		answer, err := server.Query(t.Context(), "SELECT min(v) AS low, max(v) AS high, count(*) AS n FROM changing", "json-array")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "409") || !strings.Contains(err.Error(), "SNAPSHOT_CHANGED") {
				t.Errorf("want an answer or 409 SNAPSHOT_CHANGED, got %v", err)
			}
			continue
		}
		whole++
		var rows []struct{ Low, High, N int }
		must(t, json.Unmarshal(answer, &rows))
		if rows[0].Low != rows[0].High || rows[0].N != versionRows {
			t.Errorf("a mix of versions: %s", answer)
		}
	}
	close(stop)
	writer.Wait()
	if whole == 0 {
		t.Error("not one of 60 reads was answered")
	}
	answer, err := server.Query(t.Context(), "SELECT count(*) AS n FROM changing", "json-array")
	if err != nil || !strings.Contains(string(answer), fmt.Sprint(versionRows)) {
		t.Errorf("once the writer rests: %s, %v", answer, err)
	}
}

const versionRows = 20_000

// versionFiles gives three versions of a table: every row of version i holds i in column v. Parquet is made by the
// server itself.
func versionFiles(t *testing.T, extension string) [][]byte {
	t.Helper()
	var versions [][]byte
	if extension == "parquet" {
		server := harness.Start(t, numbersDir(t))
		for version := range 3 {
			file, err := server.Query(t.Context(), fmt.Sprintf("SELECT %d AS v, a.n FROM numbers a JOIN numbers b ON b.n <= 5", version), "parquet")
			must(t, err)
			versions = append(versions, file)
		}
		return versions
	}
	for version := range 3 {
		var file bytes.Buffer
		if extension == "csv" {
			file.WriteString("v,n\n")
		}
		for n := range versionRows {
			if extension == "csv" {
				fmt.Fprintf(&file, "%d,%d\n", version, n)
			} else {
				fmt.Fprintf(&file, "{\"v\":%d,\"n\":%d}\n", version, n)
			}
		}
		versions = append(versions, file.Bytes())
	}
	return versions
}

// TestFileChangedMidwayAborts overwrites a file while its rows are on their way to a slow reader.
func TestFileChangedMidwayAborts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "big.csv")
	content{Head: "n,text\n", Line: "{n},some text that makes the file large enough to outlast every buffer {n}\n", Times: 600_000}.put(t, path, "")
	server := harness.Start(t, dir)
	response := startQuery(t, server, "SELECT * FROM big", "ndjson")
	if _, err := io.ReadFull(response.Body, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	// The same size and a new time: what was read and what is left no longer belong together.
	whole, err := fs.ReadFile(os.DirFS(dir), "big.csv")
	must(t, err)
	must(t, os.WriteFile(path, bytes.ReplaceAll(whole, []byte("some text"), []byte("SOME TEXT")), 0o600))
	rest, err := io.ReadAll(response.Body)
	if err == nil && bytes.Contains(rest, []byte("SOME TEXT")) {
		t.Error("a result that mixes two versions of its file ended as if it were whole")
	}
}

// TestReadsDontWriteTheFolder compares the served folder before and after.
func TestReadsDontWriteTheFolder(t *testing.T) {
	dir := numbersDir(t)
	before := listing(t, dir)
	server := harness.Start(t, dir)
	for _, sql := range []string{"SELECT * FROM numbers", "COPY numbers TO 'out.csv'", "CREATE TABLE x AS SELECT 1", "SELECT a.n FROM numbers a, numbers b ORDER BY 1 LIMIT 3"} {
		_, _ = server.Query(t.Context(), sql, "json")
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the folder changed:\n%s\n%s", before, after)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%s %d %s", path, info.Size(), info.ModTime()))
		return nil
	}))
	return strings.Join(lines, "\n")
}
