package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

// TestReadmeTour runs every command of README.md's tour on the data that `make run` serves and compares the answer
// with the one that the README shows; `…` there stands for any text.
func TestReadmeTour(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	must(t, err)
	blocks := regexp.MustCompile("(?s)```console\n\\$ (.*?)\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 5 {
		t.Fatalf("found %d commands in README.md", len(blocks))
	}
	server := harness.Start(t, sampleDir)
	for _, block := range blocks {
		command := strings.ReplaceAll(block[1], "127.0.0.1:8080", strings.TrimPrefix(server.URL, "http://"))
		//nolint:gosec // The command is the repository's own README's.
		answer, err := exec.CommandContext(t.Context(), "bash", "-c", command).Output()
		if err != nil {
			t.Errorf("%s: %v", block[1], err)
			continue
		}
		if !shown(block[2], string(answer)) {
			t.Errorf("README.md shows another answer\ncommand: %s\nshown:   %s\nanswer:  %s", block[1], block[2], answer)
		}
	}
}

// shown compares without regard to the line's end: a terminal shows both alike.
func shown(want, got string) bool {
	want = strings.TrimSpace(want)
	got = strings.TrimSpace(strings.ReplaceAll(got, "\r\n", "\n"))
	pattern := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + "$"
	return regexp.MustCompile(pattern).MatchString(got)
}
