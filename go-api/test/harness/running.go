package harness

import (
	"os"
	"strings"
	"testing"
)

// runningVariable names a fleet that runs already, and that tests which need a URL only are to use: the folder that it
// serves, then REST base and gRPC address of each way in, all separated by spaces.
const runningVariable = "QUERN_TEST_RUNNING"

// RunningEnv returns the variable for the tests of another process.
func RunningEnv(dir string, ways ...*Server) string {
	fields := []string{dir}
	for _, way := range ways {
		fields = append(fields, way.URL, way.GRPC)
	}
	return runningVariable + "=" + strings.Join(fields, " ")
}

// Running returns the folder and the ways in of the fleet that runs already, nothing where the test is to start its own.
func Running(t testing.TB) (dir string, ways []*Server) {
	t.Helper()
	fields := strings.Fields(os.Getenv(runningVariable))
	if len(fields) == 0 {
		return "", nil
	}
	if len(fields)%2 == 0 || len(fields) < 3 {
		t.Fatalf("%s must be a folder, then pairs of a URL and a gRPC address", runningVariable)
	}
	for at := 1; at < len(fields); at += 2 {
		ways = append(ways, &Server{URL: fields[at], GRPC: fields[at+1], Dir: fields[0]})
	}
	return fields[0], ways
}
