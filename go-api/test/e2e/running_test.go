package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

// runningFor returns the folder for a scenario's files: a new one, or that of a fleet which runs already
// (harness.Running), and then its first way in, or its last where one edge's cache is looked at. It skips what needs a
// server of its own.
func runningFor(t *testing.T, s scenario) (string, *harness.Server) {
	t.Helper()
	dir, fleet := harness.Running(t)
	if fleet == nil {
		return t.TempDir(), nil
	}
	_, settings := s.Files["quern.yaml"]
	if settings || len(s.Args) > 0 {
		t.Skip("it needs flags or settings of its own")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	for _, path := range left {
		must(t, os.RemoveAll(path))
	}
	for _, step := range s.Steps {
		if step.Expect.Headers["Cache-Status"] != "" {
			return dir, fleet[len(fleet)-1]
		}
	}
	return dir, fleet[0]
}
