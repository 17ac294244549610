package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/quern-data/quern/go-api/test/harness"
)

// TestTLSByTheBook runs what docs/tls.md says of openssl, and starts engine and edge with the flags there, on ports that
// are free.
func TestTLSByTheBook(t *testing.T) {
	page, err := os.ReadFile("../../../docs/tls.md")
	must(t, err)
	dir := t.TempDir()
	shell := func(script string) string {
		command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		command.Dir = dir
		said, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", script, err, said)
		}
		return string(said)
	}
	scripts := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(scripts) != 4 {
		t.Fatalf("found %d scripts in docs/tls.md", len(scripts))
	}
	var said string
	for _, script := range scripts {
		said = shell(script[1])
	}
	if strings.Count(said, ": OK") != 3 {
		t.Errorf("openssl verify says %s", said)
	}

	// What cert-manager is told is YAML, and makes the names that the flags ask for.
	manifest := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if manifest == nil {
		t.Fatal("docs/tls.md shows no manifests")
	}
	names := map[string][]string{}
	for part := range strings.SplitSeq(string(manifest[1]), "---\n") {
		var resource struct {
			Kind string
			Spec struct {
				SecretName string   `yaml:"secretName"`
				DNSNames   []string `yaml:"dnsNames"`
			}
		}
		must(t, yaml.Unmarshal([]byte(part), &resource))
		names[resource.Spec.SecretName] = resource.Spec.DNSNames
	}
	if !slices.Equal(names["quern-engine-tls"], []string{engineName}) || !slices.Equal(names["quern-edge-tls"], []string{edgeName}) {
		t.Errorf("the certificates are for %v", names)
	}

	console := regexp.MustCompile("(?s)```console\n(.*?)```").FindSubmatch(page)
	if console == nil {
		t.Fatal("docs/tls.md shows no commands")
	}
	commands := strings.Split(strings.ReplaceAll(strings.TrimPrefix(string(console[1]), "$ "), "\\\n", ""), "\n$ ")
	if len(commands) != 3 {
		t.Fatalf("docs/tls.md shows %q", commands)
	}
	flags := func(command string, but ...string) []string {
		kept := []string{}
		words := strings.Fields(command)
		for i := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, "--") }); i+1 < len(words); i += 2 {
			if value := words[i+1]; !slices.Contains(but, words[i]) {
				if file := filepath.Join(dir, value); exists(file) {
					value = file
				}
				kept = append(kept, words[i], value)
			}
		}
		return kept
	}
	engine := harness.StartTCPEngine(t, numbersDir(t), flags(commands[0], "--listen")...)
	server := harness.StartEdge(t, engine.URL, append(flags(commands[1], "--http", "--engine"), "--engine-tls-name", engineName)...)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	if answer := shell(strings.ReplaceAll(commands[2], "localhost:8080", "localhost:"+port)); !strings.Contains(answer, `"numbers"`) {
		t.Errorf("%s answers %s", commands[2], answer)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
