// Package differential compares Quern's answers with DuckDB's on the same files: every table of the npm package
// vega-datasets and every TPC-H query, value by value, through JSON, CSV, Arrow and Parquet. DuckDB and the readers
// are Python's (go-api/test/requirements.txt), so that no code of ours checks itself.
package differential

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// vegaTables is how many of the package's files are data: 69 of JSON, CSV, TSV and Parquet, and one of Arrow.
const vegaTables = 70

func TestVegaDatasets(t *testing.T) {
	folder := script(t, ".ci/vega")
	server := harness.Start(t, folder, "--timeout-max", "5m")
	compared := compare(t, server.URL, "tables", folder)
	if compared != vegaTables {
		t.Errorf("compared %d tables, the package has %d", compared, vegaTables)
	}
	harnessTables(t, server)
}

// TestVegaDatasetsInABucket compares the same tables, read from a bucket.
func TestVegaDatasetsInABucket(t *testing.T) {
	folder := script(t, ".ci/vega")
	s3, bucket := inBucket(t, folder)
	server := harness.StartWithEnv(t, s3.Env(), "", "--timeout-max", "5m", bucket.URL)
	if compared := compare(t, server.URL, "tables", folder); compared != vegaTables {
		t.Errorf("compared %d tables, the package has %d", compared, vegaTables)
	}
	harnessTables(t, server)
}

func inBucket(t *testing.T, folder string) (*harness.S3, *harness.Bucket) {
	t.Helper()
	s3 := harness.StartS3(t)
	bucket := s3.Bucket(t, "data")
	bucket.Fill(t, folder)
	return s3, bucket
}

// harnessTables checks that the catalogue lists exactly the data files.
func harnessTables(t *testing.T, server *harness.Server) {
	t.Helper()
	answer, err := server.Get(t.Context(), "/v1/tables")
	if err != nil {
		t.Fatal(err)
	}
	var listed struct {
		Tables      []struct{ Name, State string }
		Unreachable []string
	}
	if err := json.Unmarshal(answer, &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Tables) != vegaTables || len(listed.Unreachable) != 0 {
		t.Errorf("%d tables listed, unreachable: %v", len(listed.Tables), listed.Unreachable)
	}
}

// rowCases is how many random walks and reads by key TestRows makes.
const rowCases = 300

// TestRows walks tables page by page, with random filters, orders and page sizes, and reads rows by random keys.
// QUERN_SEED repeats a run.
func TestRows(t *testing.T) {
	seed := os.Getenv("QUERN_SEED")
	if seed == "" {
		seed = strconv.FormatInt(time.Now().UnixNano(), 10)
	}
	t.Logf("QUERN_SEED=%s", seed)
	folder := script(t, ".ci/vega")
	walk := func(t *testing.T, env []string, source, hot string, cases int) {
		parts := t.TempDir()
		config := filepath.Join(t.TempDir(), "quern.yaml")
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		server := harness.StartWithEnv(t, env, "", "--config", config, "--hot-bytes", hot, source, parts)
		if compared := compareWith(t, "rows.py", server.URL, folder, parts, config, seed, strconv.Itoa(cases)); compared != cases {
			t.Errorf("compared %d walks", compared)
		}
	}
	withHotColumns(t, func(t *testing.T, hot string) { walk(t, nil, folder, hot, rowCases) })
	t.Run("in a bucket", func(t *testing.T) {
		s3, bucket := inBucket(t, folder)
		walk(t, s3.Env(), bucket.URL, "2MiB", rowCases/3)
	})
}

// withHotColumns tests with no columns in memory, with so few that they come and go, and with all.
func withHotColumns(t *testing.T, test func(t *testing.T, hot string)) {
	t.Helper()
	for _, hot := range []string{"0", "2MiB", "1GiB"} {
		t.Run("hot-bytes "+hot, func(t *testing.T) { test(t, hot) })
	}
}

func TestTPCH(t *testing.T) {
	scale := os.Getenv("QUERN_TPCH_SCALE")
	if scale == "" {
		scale = "0.1"
	}
	folder := t.TempDir()
	//nolint:gosec // The repository's own binary.
	made, err := exec.Command(harness.Binary(t, "quern-sample"), folder, "--only-tpch", "--scale", scale).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, made)
	}
	queries, err := filepath.Glob("queries/*.sql")
	if err != nil || len(queries) != 22 {
		t.Fatalf("want 22 queries, found %d (%v)", len(queries), err)
	}
	withHotColumns(t, func(t *testing.T, hot string) {
		server := harness.Start(t, folder, "--timeout-max", "5m", "--hot-bytes", hot)
		// The second time finds in memory what the first has left there.
		for range 2 {
			if compared := compare(t, server.URL, append([]string{"queries", folder}, queries...)...); compared != len(queries) {
				t.Errorf("compared %d queries", compared)
			}
		}
	})
}

// compare runs compare.py, and compareWith any program like it, and makes a subtest of each line that it prints.
func compare(t *testing.T, url string, args ...string) int {
	t.Helper()
	return compareWith(t, "compare.py", append([]string{url}, args...)...)
}

func compareWith(t *testing.T, program string, args ...string) int {
	t.Helper()
	python := script(t, ".ci/venv", filepath.Join(harness.Root(t), "go-api/test/requirements.txt"))
	//nolint:gosec // The interpreter is the cached environment's.
	command := exec.CommandContext(t.Context(), python, append([]string{program}, args...)...)
	command.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "TZ=UTC")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	count := 0
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line struct {
			Name     string
			Problems []string
		}
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Errorf("%v: %s", err, scanner.Text())
			continue
		}
		count++
		t.Run(line.Name, func(t *testing.T) {
			for _, problem := range line.Problems {
				t.Error(problem)
			}
		})
	}
	if err := command.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, stderr.String())
	}
	return count
}

// script runs one of the repository's scripts and returns the line that it prints.
func script(t *testing.T, path string, args ...string) string {
	t.Helper()
	//nolint:gosec // The repository's own script.
	command := exec.CommandContext(t.Context(), filepath.Join(harness.Root(t), path), args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
