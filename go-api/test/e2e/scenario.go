// Package e2e runs the scenarios of go-api/test/scenarios, and the tests of processes, faults and hostile
// queries, against the real binaries. It knows the public surface only.
package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// scenario is one file of go-api/test/scenarios: a folder of data, and steps against a server on it.
type scenario struct {
	// About says in one line what the scenario shows.
	About string `yaml:"about"`
	// FolderOnly says why a bucket can't show it.
	FolderOnly string `yaml:"folder_only"`
	// Args are flags of `quern serve` beyond the defaults.
	Args []string `yaml:"args"`
	// Files are written before the server starts, by path.
	Files map[string]content `yaml:"files"`
	// Steps run in order.
	Steps []step `yaml:"steps"`
}

// content is a file's text, or how to make it.
type content struct {
	// Text is written as it is.
	Text string
	// Head, Line and Tail make a long file: head, line N times with {n} replaced by 1…N, tail.
	Head  string `yaml:"head"`
	Line  string `yaml:"line"`
	Times int    `yaml:"times"`
	Tail  string `yaml:"tail"`
	// BOM puts a byte order mark before it all.
	BOM bool `yaml:"bom"`
	// Cut removes so many bytes from the end.
	Cut int `yaml:"cut"`
	// Gzip compresses the content (before the cut).
	Gzip bool `yaml:"gzip"`
	// Copy takes the content of a file that this test writes: `sample/nation.parquet`.
	Copy string `yaml:"copy"`
	// Link makes a symbolic link to this target instead of a file.
	Link string `yaml:"link"`
	// Folder makes an empty folder instead of a file.
	Folder bool `yaml:"folder"`
}

// UnmarshalYAML takes a plain string as the text.
func (c *content) UnmarshalYAML(raw []byte) error {
	var text string
	if yaml.Unmarshal(raw, &text) == nil {
		c.Text = text
		return nil
	}
	type plain content
	return yaml.UnmarshalWithOptions(raw, (*plain)(c), yaml.Strict())
}

// step changes the folder, or asks and checks the answer.
type step struct {
	// Write, Append and Remove change files while the server runs.
	Write  map[string]content `yaml:"write"`
	Append map[string]content `yaml:"append"`
	Remove []string           `yaml:"remove"`
	// Rename moves files, from: to.
	Rename map[string]string `yaml:"rename"`

	// HTTP is a request line such as `GET /v1/tables`.
	HTTP string `yaml:"http"`
	// Headers are sent with it.
	Headers map[string]string `yaml:"headers"`
	// JSON is sent as the body; Body is sent as it is.
	JSON any    `yaml:"json"`
	Body string `yaml:"body"`
	// BodyOf makes a long body.
	BodyOf *content `yaml:"body_of"`

	// GRPC is a method such as `quern.v1.QueryService/Query`; Message is its request.
	GRPC    string         `yaml:"grpc"`
	Message map[string]any `yaml:"message"`

	// Expect is the answer.
	Expect expectation `yaml:"expect"`
}

// expectation is what must hold of an answer; what isn't named isn't checked.
type expectation struct {
	Status  int               `yaml:"status"`
	Headers map[string]string `yaml:"headers"`
	// Trailers are checked after the body was read.
	Trailers map[string]string `yaml:"trailers"`
	// Code is the gRPC code, over REST too (`error.status`).
	Code string `yaml:"code"`
	// Reason is the one ErrorInfo's reason.
	Reason string `yaml:"reason"`
	// Message is matched with the error's message.
	Message string `yaml:"message"`
	// JSON must be contained in the body: objects may hold more members, lists may not hold more elements.
	JSON any `yaml:"json"`
	// Text is the whole body; Contains and Lacks are parts that it must and must not hold.
	Text     *string  `yaml:"text"`
	Contains []string `yaml:"contains"`
	Lacks    []string `yaml:"lacks"`
	// Within is the longest the answer may take.
	Within time.Duration `yaml:"within"`
}

func loadScenario(t *testing.T, path string) scenario {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var loaded scenario
	if err := yaml.UnmarshalWithOptions(text, &loaded, yaml.Strict()); err != nil {
		t.Fatalf("%s: %s", path, yaml.FormatError(err, false, true))
	}
	if loaded.About == "" || len(loaded.Steps) == 0 {
		t.Fatalf("%s: a scenario needs `about` and `steps`", path)
	}
	return loaded
}

// bytes gives the file's content.
func (c content) bytes(t *testing.T, sample string) []byte {
	t.Helper()
	var out bytes.Buffer
	if c.BOM {
		out.WriteString("\ufeff")
	}
	out.WriteString(c.Text)
	out.WriteString(c.Head)
	for n := 1; n <= c.Times; n++ {
		out.WriteString(strings.ReplaceAll(c.Line, "{n}", fmt.Sprint(n)))
	}
	out.WriteString(c.Tail)
	if c.Copy != "" {
		copied, err := os.ReadFile(filepath.Join(sample, strings.TrimPrefix(c.Copy, "sample/")))
		if err != nil {
			t.Fatal(err)
		}
		out.Write(copied)
	}
	whole := out.Bytes()
	if c.Gzip {
		whole = gzipped(t, whole)
	}
	return whole[:len(whole)-c.Cut]
}

func gzipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := writer.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// put makes the file, link or folder, such that an engine that runs as another user can read it; files appear whole,
// by rename.
func (c content) put(t *testing.T, path, sample string) {
	t.Helper()
	parent := filepath.Dir(path)
	must(t, os.MkdirAll(parent, 0o755))
	switch {
	case c.Link != "":
		must(t, os.Symlink(c.Link, path))
	case c.Folder:
		must(t, os.MkdirAll(path, 0o755))
	default:
		hidden := filepath.Join(parent, "."+filepath.Base(path)+".tmp")
		must(t, os.WriteFile(hidden, c.bytes(t, sample), 0o644))
		must(t, os.Rename(hidden, path))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
