package harness

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Secret must never be shown.
const S3Secret = "a-secret-that-must-never-be-shown"

const (
	s3User = "quern-test"
	// bucketPoll is how often the tests' servers list their buckets.
	bucketPoll = 100 * time.Millisecond
)

// S3 is a running S3 server, with a proxy before it that can misbehave.
type S3 struct {
	// Endpoint is the proxy's URL.
	Endpoint string

	client *minio.Client
	fault  atomic.Pointer[Fault]
	cmd    *exec.Cmd
	binary string
	data   string
	addr   string

	// listings counts those that were asked for and those that were answered.
	mu               sync.Mutex
	began, completed int
}

// Fault changes how the proxy answers. It gets each request, and may answer it by itself or change the answer.
type Fault struct {
	// Before answers instead of the server, and says whether it did.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// After changes the server's answer.
	After func(response *http.Response) error
}

// StartS3 starts an S3 server. The test's end stops it.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	out, err := exec.Command(filepath.Join(Root(t), ".ci", "minio")).Output() //nolint:gosec // The repository's own script.
	if err != nil {
		t.Fatalf("no S3 server: %v", err)
	}
	s := &S3{binary: strings.TrimSpace(string(out)), data: t.TempDir(), addr: freeAddress(t)}
	s.start(t)
	t.Cleanup(s.Kill)
	target, err := url.Parse("http://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.proxy(target), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	s.Endpoint = "http://" + listener.Addr().String()
	s.client, err = minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(s3User, S3Secret, "")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func (s *S3) start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.binary, "server", s.data, "--address", s.addr, "--quiet") //nolint:gosec // Built by the repository.
	s.cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+s3User, "MINIO_ROOT_PASSWORD="+S3Secret, "MINIO_BROWSER=off",
		"MINIO_UPDATE=off", "MINIO_CI_CD=1")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, startTimeout, "the S3 server is ready", func() bool {
		response, err := http.Get("http://" + s.addr + "/minio/health/ready") //nolint:noctx // Tried until it answers.
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// Kill ends the server at once; its data stays.
func (s *S3) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Restart starts it again.
func (s *S3) Restart(t testing.TB) {
	t.Helper()
	s.start(t)
}

// Set lets the proxy misbehave, nil lets it be good again.
func (s *S3) Set(fault *Fault) { s.fault.Store(fault) }

func (s *S3) proxy(target *url.URL) http.Handler {
	forward := &httputil.ReverseProxy{
		// The host stays the proxy's: it is signed.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		FlushInterval: -1,
		ModifyResponse: func(response *http.Response) error {
			if fault := s.fault.Load(); fault != nil && fault.After != nil {
				return fault.After(response)
			}
			return nil
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("list-type") {
			number := s.begin()
			defer s.complete(number)
		}
		if fault := s.fault.Load(); fault != nil && fault.Before != nil && fault.Before(w, r) {
			return
		}
		forward.ServeHTTP(w, r)
	})
}

func (s *S3) begin() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began++
	return s.began
}

func (s *S3) complete(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.completed = max(s.completed, number)
}

// waitListed waits until a listing that begins from now on was answered.
func (s *S3) waitListed(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	next := s.began + 1
	s.mu.Unlock()
	Eventually(t, startTimeout, "the bucket is listed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.completed >= next
	})
	// The engine has the listing's last bytes, and some milliseconds to make use of them.
	time.Sleep(50 * time.Millisecond)
}

// Bucket is a bucket of an S3 server that is kept like a folder.
type Bucket struct {
	// URL is how it is served: s3://name/prefix.
	URL string

	s3     *S3
	name   string
	synced map[string]fs.FileInfo
}

// Bucket makes a bucket.
func (s *S3) Bucket(t testing.TB, name string) *Bucket {
	t.Helper()
	if err := s.client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return &Bucket{URL: "s3://" + name + "/some/data", s3: s, name: name, synced: map[string]fs.FileInfo{}}
}

// Env is what a server needs to know to read it.
func (s *S3) Env() []string {
	return []string{
		"AWS_ENDPOINT=" + s.Endpoint, "AWS_ACCESS_KEY_ID=" + s3User, "AWS_SECRET_ACCESS_KEY=" + S3Secret, "AWS_REGION=us-east-1",
		"QUERN_BUCKET_POLL=" + bucketPoll.String(),
	}
}

// Put writes an object.
func (b *Bucket) Put(ctx context.Context, name string, content io.Reader, size int64) error {
	_, err := b.s3.client.PutObject(ctx, b.name, "some/data/"+name, content, size, minio.PutObjectOptions{DisableMultipart: true})
	return err
}

// Remove removes an object.
func (b *Bucket) Remove(ctx context.Context, name string) error {
	return b.s3.client.RemoveObject(ctx, b.name, "some/data/"+name, minio.RemoveObjectOptions{})
}

// Fill gives the bucket what is in a folder.
func (b *Bucket) Fill(t testing.TB, dir string) {
	t.Helper()
	if err := b.sync(t.Context(), dir); err != nil {
		t.Fatalf("fill the bucket: %v", err)
	}
}

// Sync gives the bucket what is in a folder, and waits until its server has seen that.
func (b *Bucket) Sync(t testing.TB, dir string) {
	t.Helper()
	b.Fill(t, dir)
	b.s3.waitListed(t)
}

func (b *Bucket) sync(ctx context.Context, dir string) error {
	found := map[string]fs.FileInfo{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found[name] = info
		if known, ok := b.synced[name]; ok && known.Size() == info.Size() && known.ModTime().Equal(info.ModTime()) && os.SameFile(known, info) {
			return nil
		}
		file, err := os.Open(path) //nolint:gosec // A file of the test's own folder.
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		return b.Put(ctx, name, file, info.Size())
	})
	if err != nil {
		return err
	}
	for name := range b.synced {
		if _, ok := found[name]; !ok {
			if err := b.Remove(ctx, name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	b.synced = found
	return nil
}
