package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
	"github.com/quern-data/quern/go-api/test/staleness"
)

// bucketAge is how old an answer from a bucket may be here: an interval, a listing, and what a busy machine needs.
const bucketAge = 2 * time.Second

// serveBucket serves a bucket that holds what a folder holds.
func serveBucket(t *testing.T, s3 *harness.S3, name, dir string, args ...string) (*harness.Server, *harness.Bucket) {
	t.Helper()
	bucket := s3.Bucket(t, name)
	bucket.Fill(t, dir)
	// The configuration is no object of the bucket.
	if config := filepath.Join(dir, "quern.yaml"); exists(config) {
		args = append([]string{"--config", config}, args...)
	}
	return harness.StartWithEnv(t, s3.Env(), "", append(args, bucket.URL)...), bucket
}

// TestScenariosOnABucket runs every scenario again with its files in a bucket.
func TestScenariosOnABucket(t *testing.T) {
	s3 := harness.StartS3(t)
	paths, err := filepath.Glob("../scenarios/*.yaml")
	must(t, err)
	for number, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			scenario := loadScenario(t, path)
			if scenario.FolderOnly != "" {
				t.Skip(scenario.FolderOnly)
			}
			dir := t.TempDir()
			runScenario(t, scenario, dir, func(t *testing.T, args ...string) (*harness.Server, func()) {
				server, bucket := serveBucket(t, s3, fmt.Sprintf("scenario-%d", number), dir, args...)
				return server, func() { bucket.Sync(t, dir) }
			})
		})
	}
}

// noted is a bucket as writers of tables see it.
type noted struct {
	t      *testing.T
	bucket *harness.Bucket
}

func (n noted) Write(name string, content []byte) error {
	return n.bucket.Put(n.t.Context(), name, bytes.NewReader(content), int64(len(content)))
}

func (n noted) Remove(name string) error { return n.bucket.Remove(n.t.Context(), name) }

// TestNeverStaleOnABucket holds answers from a bucket to the stated interval, over two edges and one engine.
func TestNeverStaleOnABucket(t *testing.T) {
	s3 := harness.StartS3(t)
	bucket := s3.Bucket(t, "changing")
	c := &check{stop: make(chan struct{}), polled: bucketAge}
	for _, kind := range staleness.Kinds() {
		writer, err := staleness.NewBucketWriter(kind, noted{t, bucket})
		must(t, err)
		c.writers = append(c.writers, writer)
	}
	engine := harness.StartEngine(t, bucket.URL, s3.Env()...)
	for range 2 {
		edge := harness.StartEdge(t, engine.URL)
		edge.WaitReady(t)
		c.edges = append(c.edges, edge)
	}
	c.run(t, 3_000, nil)
	c.expectNothingWrong(t)
}

// numbers is a folder with a table of this many rows, so large that it is read in several parts.
func numbers(t *testing.T, rows int) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("id,text\n")
	for id := range rows {
		fmt.Fprintf(&text, "%d,%s\n", id, strings.Repeat("x", 50))
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "t.csv"), []byte(text.String()), 0o600))
	return dir
}

// isData says whether a request is for an object's bytes.
func isData(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".csv")
}

// TestBucketsMisbehave reads through a network that is slow, cuts answers, throttles, and sends what nobody asked for. The
// answer is right, or it is an error that says which bucket; the server goes on.
func TestBucketsMisbehave(t *testing.T) {
	const rows = 400_000
	s3 := harness.StartS3(t)
	dir := numbers(t, rows)
	local := t.TempDir()
	must(t, os.WriteFile(filepath.Join(local, "here.csv"), []byte("a\n1\n"), 0o600))
	bucket := s3.Bucket(t, "moody")
	bucket.Fill(t, dir)
	server := harness.StartWithEnv(t, s3.Env(), "", "--hot-bytes", "0", "--timeout-default", "60s", bucket.URL, local)
	ask := func() (string, error) {
		body, err := server.Query(t.Context(), "SELECT count(*) AS n, sum(id) AS s, max(text) AS m FROM t", "csv")
		return string(body), err
	}
	want := fmt.Sprintf("n,s,m\r\n%d,%d,%s\r\n", rows, rows*(rows-1)/2, strings.Repeat("x", 50))
	expect := func(what string) {
		t.Helper()
		if got, err := ask(); err != nil || got != want {
			t.Fatalf("%s: %.200q, %v", what, got, err)
		}
	}
	expect("a good day")

	var times atomic.Int32
	s3.Set(&harness.Fault{Before: func(_ http.ResponseWriter, r *http.Request) bool {
		if isData(r) {
			time.Sleep(300 * time.Millisecond)
			times.Add(1)
		}
		return false
	}})
	expect("slow")
	if times.Load() < 2 {
		t.Errorf("the object was read by %d requests; several were meant", times.Load())
	}

	times.Store(0)
	s3.Set(&harness.Fault{After: func(response *http.Response) error {
		if isData(response.Request) && times.Add(1) <= 3 {
			response.Body = &cut{response.Body, 100_000}
		}
		return nil
	}})
	expect("cut")

	times.Store(0)
	s3.Set(&harness.Fault{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if !isData(r) || times.Add(1) > 3 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}})
	expect("throttled for a while")

	refused := func(what string) {
		t.Helper()
		got, err := ask()
		if err == nil || !strings.HasPrefix(err.Error(), "503") || !strings.Contains(err.Error(), "SOURCE_UNAVAILABLE") ||
			!strings.Contains(err.Error(), bucket.URL) {
			t.Errorf("%s: %.200q, %v", what, got, err)
		}
		if body, err := server.Query(t.Context(), "SELECT a FROM here", "csv"); err != nil || string(body) != "a\r\n1\r\n" {
			t.Errorf("%s: another source: %q, %v", what, body, err)
		}
	}
	s3.Set(&harness.Fault{After: func(response *http.Response) error {
		if isData(response.Request) {
			response.Header.Set("Content-Range", "bytes 7-10/100")
		}
		return nil
	}})
	refused("another range")

	s3.Set(&harness.Fault{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if isData(r) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return isData(r)
	}})
	refused("throttled for good")
	s3.Set(nil)
	expect("good again")

	s3.Kill()
	harness.Eventually(t, 60*time.Second, "the tables are known to be unavailable", func() bool {
		listed, err := server.Get(t.Context(), "/v1/tables")
		return err == nil && strings.Contains(string(listed), "SOURCE_UNAVAILABLE")
	})
	refused("gone")
	s3.Restart(t)
	harness.Eventually(t, 60*time.Second, "the bucket is back", func() bool { _, err := ask(); return err == nil })
	expect("back")
	if strings.Contains(server.Log(), harness.S3Secret) {
		t.Error("the log has the secret")
	}
}

// cut ends an answer in its middle.
type cut struct {
	io.ReadCloser
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestAnObjectReplacedInMidRead is answered from one state: the reading stops at the first part of another one, and begins
// again.
func TestAnObjectReplacedInMidRead(t *testing.T) {
	s3 := harness.StartS3(t)
	dir := numbers(t, 400_000)
	bucket := s3.Bucket(t, "replaced")
	bucket.Fill(t, dir)
	server := harness.StartWithEnv(t, s3.Env(), "", "--hot-bytes", "0", bucket.URL)
	server.WaitReady(t)
	if _, err := server.Query(t.Context(), "SELECT count(*) FROM t", "csv"); err != nil {
		t.Fatal(err)
	}
	var parts atomic.Int32
	s3.Set(&harness.Fault{Before: func(_ http.ResponseWriter, r *http.Request) bool {
		if isData(r) && parts.Add(1) == 3 {
			must(t, noted{t, bucket}.Write("t.csv", []byte("id,text\n7,new\n")))
		}
		return false
	}})
	var body []byte
	harness.Eventually(t, 20*time.Second, "the new object is answered", func() bool {
		var err error
		if body, err = server.Query(t.Context(), "SELECT max(id) AS id, max(text) AS text FROM t", "csv"); err == nil {
			return true
		}
		// The listing is older than the object.
		if !strings.HasPrefix(err.Error(), "409") || !strings.Contains(err.Error(), "SNAPSHOT_CHANGED") {
			t.Fatalf("want an answer or 409 SNAPSHOT_CHANGED, got %v", err)
		}
		return false
	})
	if parts.Load() < 3 {
		t.Errorf("the object was read in %d parts; it was replaced before the third", parts.Load())
	}
	if string(body) != "id,text\r\n7,new\r\n" {
		t.Errorf("%.200q is of no state", body)
	}
}

// TestPagesOfAnObjectThatWasReplaced end with a word on how to go on.
func TestPagesOfAnObjectThatWasReplaced(t *testing.T) {
	s3 := harness.StartS3(t)
	dir := numbers(t, 1_000)
	bucket := s3.Bucket(t, "paged")
	bucket.Fill(t, dir)
	server := harness.StartWithEnv(t, s3.Env(), "", "--hot-bytes", "0", bucket.URL)
	for _, order := range []string{"", "id desc", "text"} {
		parameters := url.Values{"page_size": {"10"}, "order_by": {order}}
		first := readPage(t, server.URL, "t", parameters)
		if first.status != http.StatusOK || len(first.Rows) != 10 {
			t.Fatalf("%d, %d rows: %s", first.status, len(first.Rows), first.Error.Message)
		}
		must(t, os.WriteFile(filepath.Join(dir, "t.csv"), []byte("id,text\n"+strconv.Itoa(1000+len(order))+",new\n"), 0o600))
		bucket.Sync(t, dir)
		parameters.Set("page_token", first.Next)
		gone := readPage(t, server.URL, "t", parameters)
		if gone.status != http.StatusConflict || gone.reason() != "SNAPSHOT_GONE" || !strings.Contains(gone.Error.Message, "start again") {
			t.Errorf("%q: %d %s %s", order, gone.status, gone.reason(), gone.Error.Message)
		}
		must(t, os.Rename(filepath.Join(numbers(t, 1_000), "t.csv"), filepath.Join(dir, "t.csv")))
		bucket.Sync(t, dir)
	}
}

// TestCredentialsThatAreWrong are said to be, and not shown.
func TestCredentialsThatAreWrong(t *testing.T) {
	s3 := harness.StartS3(t)
	bucket := s3.Bucket(t, "closed")
	const secret = "not-the-secret-that-it-wants"
	for what, env := range map[string]string{"credentials": "AWS_SECRET_ACCESS_KEY=" + secret, "no such bucket": ""} {
		source := bucket.URL
		if env == "" {
			source = "s3://no-such-bucket/x"
		}
		server := harness.StartWithEnv(t, append(s3.Env(), env), "", source)
		_, err := server.Query(t.Context(), "SELECT 1 FROM t", "csv")
		if err == nil || !strings.HasPrefix(err.Error(), "503") || !strings.Contains(err.Error(), what) {
			t.Errorf("want 503 and a word on %s, got %v", what, err)
		}
		if body, err := server.Query(t.Context(), "SELECT 1 AS one", "csv"); err != nil || string(body) != "one\r\n1\r\n" {
			t.Errorf("the server: %q, %v", body, err)
		}
		if strings.Contains(server.Log(), secret) || strings.Contains(err.Error(), secret) {
			t.Error("the secret is shown")
		}
	}
}
