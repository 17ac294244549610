package containers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What an image may hold beyond its base.
const edgeBytes, engineBytes = 40_000_000, 150_000_000

// user is who runs in the containers.
const user = "65532"

// check looks at the images without running a fleet.
func (i images) check(t *testing.T, d *docker) {
	base := inspect[image](t, d, i.base).Size
	for name, want := range map[string]struct {
		image, binary, bill string
		bytes               int64
	}{
		"edge":   {i.edge, "quern", "usr/share/doc/quern/sbom.cdx.json", edgeBytes},
		"engine": {i.engine, "quern-engine", "usr/share/doc/quern-engine/sbom.cdx.json", engineBytes},
	} {
		found := inspect[image](t, d, want.image)
		size := found.Size - base
		t.Logf("%s: %d bytes over its base", name, size)
		if size > want.bytes {
			t.Errorf("%s: %d bytes over its base, allowed are %d", name, size, want.bytes)
		}
		if found.Config.User != user+":"+user {
			t.Errorf("%s: runs as %q", name, found.Config.User)
		}
		if version := found.Config.Labels["org.opencontainers.image.version"]; version != "1.2.3" {
			t.Errorf("%s: the label of the version is %q", name, version)
		}
		if test := strings.Join(found.Config.Healthcheck.Test, " "); test != "CMD /usr/bin/"+want.binary+" healthcheck" {
			t.Errorf("%s: checks its health by %q", name, test)
		}
		checkBill(t, d, want.image, want.bill)
		// Where no server listens the check must fail, by itself and in one line.
		out, err := d.try(t.Context(), "docker", "run", "--rm", "--network", "none", want.image, "healthcheck")
		if err == nil || !strings.HasPrefix(out, want.binary+": ") || strings.Contains(strings.TrimSpace(out), "\n") {
			t.Errorf("%s: healthcheck of nothing: %v, %q", name, err, out)
		}
	}
}

// checkBill reads the bill of materials out of an image.
func checkBill(t *testing.T, d *docker, name, path string) {
	t.Helper()
	id := d.run(t, "docker", "create", name)
	defer d.run(t, "docker", "rm", id)
	file := filepath.Join(t.TempDir(), "bill.json")
	d.run(t, "docker", "cp", id+":/"+path, file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version, Purl string }
	}
	if err := json.Unmarshal(text, &bill); err != nil || bill.Format != "CycloneDX" || len(bill.Components) < 20 {
		t.Errorf("%s: %v, a bill of %q with %d components", path, err, bill.Format, len(bill.Components))
	}
	for _, component := range bill.Components {
		if component.Name == "" || component.Version == "" {
			t.Errorf("%s: a component without a name or version: %+v", path, component)
		}
	}
}

// checkConfinement asks the kernel who runs there, and what can be written.
func (f *fleet) checkConfinement(t *testing.T) {
	for _, service := range []string{"edge-1", "edge-2", "engine", "cache", "proxy"} {
		proc := filepath.Join("/proc", strconv.Itoa(f.container(t, service).State.Pid))
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			t.Fatal(err)
		}
		fields := map[string][]string{}
		for line := range strings.Lines(string(status)) {
			name, rest, _ := strings.Cut(line, ":")
			fields[name] = strings.Fields(rest)
		}
		for _, id := range append(fields["Uid"], fields["Gid"]...) {
			if id == "0" {
				t.Errorf("%s: runs as user %v, group %v", service, fields["Uid"], fields["Gid"])
			}
		}
		if strings.Join(fields["CapEff"], "") != "0000000000000000" || strings.Join(fields["NoNewPrivs"], "") != "1" {
			t.Errorf("%s: has the capabilities %v, no new privileges: %v", service, fields["CapEff"], fields["NoNewPrivs"])
		}
		mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(mounts)) {
			mount := strings.Fields(line)
			if point, options := mount[4], mount[5]; (point == "/" || point == "/data" && service == "engine") && !strings.HasPrefix(options, "ro") {
				t.Errorf("%s: %s is mounted %s", service, point, options)
			}
		}
	}
}

// checkLimits sees that both have found their container's limits.
func (f *fleet) checkLimits(t *testing.T) {
	for _, edge := range f.edges {
		metrics := get(t, edge.URL+"/metrics")
		limit, cache := metric(t, metrics, "go_gc_gomemlimit_bytes"), metric(t, metrics, "quern_cache_max_bytes")
		if limit > edgeMemory*0.9 || limit < edgeMemory*0.85 {
			t.Errorf("Go's memory limit is %.0f in a container of %d", limit, edgeMemory)
		}
		if cache > edgeMemory*0.45 || cache < edgeMemory*0.4 {
			t.Errorf("the front cache may take %.0f in a container of %d", cache, edgeMemory)
		}
	}
	var limits struct {
		Message  string `json:"message"`
		Memory   int64  `json:"memory"`
		HotBytes int64  `json:"hot_bytes"`
		Threads  int    `json:"threads"`
	}
	logs := f.run(t, ".ci/docker-compose", "logs", "--no-color", "engine")
	for line := range strings.Lines(logs) {
		if at := strings.Index(line, "{"); at >= 0 && strings.Contains(line, `"message":"limits"`) {
			if err := json.Unmarshal([]byte(line[at:]), &limits); err != nil {
				t.Fatal(err)
			}
		}
	}
	memory, hot := engineMemory/10*6, engineMemory/4
	if limits.Memory != int64(memory) || limits.HotBytes != int64(hot) || limits.Threads != 1 {
		t.Errorf("the engine found %+v, want memory %d, hot columns %d and 1 thread in:\n%s", limits, memory, hot, logs)
	}
}

// checkSharedCache asks one edge and then the other the same, and sees a change through both.
func (f *fleet) checkSharedCache(t *testing.T) {
	const path = "/v1/query?format=csv&sql=SELECT+sum(n)+AS+shared+FROM+numbers"
	found := 0
	for round := 1; round <= 5; round++ {
		writeNumbers(t, f.data, round)
		var via []string
		for _, edge := range f.edges {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, edge.URL+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Cache-Control", "no-cache")
			body, header := do(t, request)
			if want := fmt.Sprintf("shared\r\n%d\r\n", sumOf(round)); body != want {
				t.Errorf("round %d: got %q from %s, want %q", round, body, edge.URL, want)
			}
			via = append(via, header.Get("Cache-Status"))
		}
		t.Logf("round %d: %q", round, via)
		if strings.Contains(via[1], `"quern-redis"; hit`) {
			found++
		}
	}
	if found == 0 {
		t.Error("no edge found in the shared level what the other had put there")
	}
}

// writeNumbers makes the table `numbers`: 1,000 rows times by, replaced by rename.
func writeNumbers(t *testing.T, dir string, by int) {
	t.Helper()
	var text strings.Builder
	text.WriteString("n\n")
	for n := 1; n <= 1000; n++ {
		fmt.Fprintln(&text, n*by)
	}
	hidden := filepath.Join(dir, ".numbers.tmp")
	if err := os.WriteFile(hidden, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(hidden, filepath.Join(dir, "numbers.csv")); err != nil {
		t.Fatal(err)
	}
}

// sumOf is what SELECT sum(n) FROM numbers answers.
func sumOf(by int) int { return 500_500 * by }

func get(t testing.TB, url string) string {
	t.Helper()
	body, _ := fetch(t, url)
	return body
}

func fetch(t testing.TB, url string) (string, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request)
}

func do(t testing.TB, request *http.Request) (string, http.Header) {
	t.Helper()
	client := &http.Client{Timeout: startLimit}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", request.URL, response.Status, err, body)
	}
	return string(body), response.Header
}

// metric returns a metric without labels.
func metric(t testing.TB, text, name string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
