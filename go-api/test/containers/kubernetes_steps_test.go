package containers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// prepare makes what the chart's user has before: a namespace that enforces the strictest security standard, and a claim of a
// volume with data.
func (d *deployed) prepare(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(d.fleet.data, 0o755); err != nil {
		t.Fatal(err)
	}
	// The pods' user must get there.
	for dir := d.fleet.data; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeNumbers(t, d.fleet.data, 1)
	out, err := d.apply(t, `
apiVersion: v1
kind: Namespace
metadata: {name: `+namespace+`, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: data}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  storageClassName: ""
  hostPath: {path: `+d.fleet.data+`}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: `+namespace+`}
spec: {accessModes: [ReadOnlyMany], storageClassName: "", volumeName: data, resources: {requests: {storage: 1Gi}}}
`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// helm runs a command of helm in the namespace; its failure ends the test.
func (d *deployed) helm(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.try(t.Context(), d.Helm, append([]string{"--namespace", namespace}, args...)...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s\n%s", strings.Join(args, " "), err, out, d.describe(t))
	}
	return out
}

// values are those that this cluster needs: images that are there already, and few reserves.
func (d *deployed) values(t testing.TB) string {
	t.Helper()
	small := map[string]any{"requests": map[string]any{"cpu": "50m", "memory": "128Mi"}, "limits": map[string]any{"memory": "640Mi"}}
	image := func(name string) map[string]any {
		return map[string]any{"repository": "docker.io/" + name, "tag": "latest", "pullPolicy": "Never"}
	}
	text, err := json.Marshal(map[string]any{
		"data":   map[string]any{"volume": map[string]any{"persistentVolumeClaim": map[string]any{"claimName": "data", "readOnly": true}}},
		"edge":   map[string]any{"image": image(d.Edge), "resources": small},
		"engine": map[string]any{"image": image(d.Engine), "resources": small},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.file("values.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return d.file("values.json")
}

// install installs the chart with two edges and two engines, and finds its Service.
func (d *deployed) install(t *testing.T) {
	t.Helper()
	start := time.Now()
	d.helm(t, "install", release, "deploy/helm/quern", "--values", d.values(t), "--wait", "--timeout", "4m",
		"--set", "edge.replicas=2,engine.replicas=2")
	t.Logf("installed and ready after %s", time.Since(start).Round(100*time.Millisecond))
	address := d.kubectl(t, "get", "service", release, "--output", "jsonpath={.spec.clusterIP}")
	d.fleet.proxy = &harness.Server{URL: "http://" + address + ":8080", GRPC: address + ":9090", Dir: d.fleet.data}
	d.fleet.proxy.WaitReady(t)
	t.Log(d.kubectl(t, "get", "all,networkpolicy,poddisruptionbudget", "--output", "name"))
}

// upgradeTo changes values of the release, and keeps all others.
func (d *deployed) upgradeTo(t *testing.T, set ...string) {
	t.Helper()
	d.helm(t, "upgrade", release, "deploy/helm/quern", "--reuse-values", "--wait", "--timeout", "4m", "--set", strings.Join(set, ","))
}

// describe says how the pods are.
func (d *deployed) describe(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods,endpointslices", "--output", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--selector", "app.kubernetes.io/component=engine", "--tail", "5"},
		{"logs", "--selector", "app.kubernetes.io/component=edge", "--tail", "15"},
	} {
		out, _ := d.tryKubectl(t.Context(), args...)
		lines := strings.Split(out, "\n")
		fmt.Fprintln(&text, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return text.String()
}

// pods returns the names of a component's pods.
func (d *deployed) pods(t testing.TB, component string) []string {
	t.Helper()
	return strings.Fields(d.kubectl(t, "get", "pods", "--selector", "app.kubernetes.io/component="+component,
		"--field-selector", "status.phase=Running", "--output", "jsonpath={.items[*].metadata.name}"))
}

// edge returns the way to one edge, past the Service.
func (d *deployed) edge(t testing.TB) *harness.Server {
	t.Helper()
	address := d.kubectl(t, "get", "pod", d.pods(t, "edge")[0], "--output", "jsonpath={.status.podIP}")
	return &harness.Server{URL: "http://" + address + ":8080", GRPC: address + ":9090", Dir: d.fleet.data}
}

// checkRestricted sees that the namespace refuses what the standard forbids, and that the policies stand.
func (d *deployed) checkRestricted(t *testing.T) {
	out, err := d.apply(t, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": "`+namespace+`"},
		"spec": {"containers": [{"name": "root", "image": "`+d.Pause+`", "securityContext": {"privileged": true}}]}}`)
	if err == nil || !strings.Contains(out, "PodSecurity") {
		t.Errorf("a privileged pod got in: %v %s", err, out)
	}
	policies := strings.Fields(d.kubectl(t, "get", "networkpolicy", "--output", "jsonpath={.items[*].metadata.name}"))
	if len(policies) == 0 {
		t.Error("no NetworkPolicy")
	}
}

// runScenarios runs the scenarios of go-api/test/e2e through the Service.
func (d *deployed) runScenarios(t *testing.T) {
	command := exec.CommandContext(t.Context(), d.file("e2e.test"), "-test.run", "^TestScenarios$", "-test.v", "-test.timeout", "5m")
	command.Dir = filepath.Join(d.root, "go-api/test/e2e")
	command.Env = append(os.Environ(), harness.RunningEnv(d.fleet.data, d.fleet.proxy, d.edge(t)))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	passed := strings.Count(string(out), "--- PASS: ")
	t.Logf("%d tests passed", passed)
	if passed == 0 {
		t.Errorf("no test ran:\n%s", out)
	}
}

// changeConfig gives a table a key: the edges read it without being started again.
func (d *deployed) changeConfig(t *testing.T) {
	d.fleet.settle(t, 1)
	before := d.pods(t, "edge")
	row := d.fleet.proxy.URL + "/v1/tables/numbers/rows/17"
	if status := statusOf(t, row); status == http.StatusOK {
		t.Fatalf("a table without a key has a row 17")
	}
	d.upgradeTo(t, "settings.tables.numbers.key=n")
	harness.Eventually(t, startLimit, "the key is known", func() bool { return statusOf(t, row) == http.StatusOK })
	if after := d.pods(t, "edge"); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("the edges were %v and are %v", before, after)
	}
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Timeout: startLimit}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// under does something while 200 requests are sent each second, and before and after; it returns how many failed.
func (d *deployed) under(t *testing.T, by int, do func()) int64 {
	t.Helper()
	d.fleet.settle(t, by)
	l := d.fleet.startPacedLoad(t, by, loadPause)
	l.awaitAnswers(t, 200)
	do()
	l.awaitAnswers(t, 500)
	return l.end(t)
}

// roll replaces all pods of a component under load: no request may fail.
func (d *deployed) roll(t *testing.T, component string) {
	before := d.pods(t, component)
	failed := d.under(t, 3, func() {
		d.kubectl(t, "rollout", "restart", "deployment", "--selector", "app.kubernetes.io/component="+component)
		d.kubectl(t, "rollout", "status", "deployment/"+release+"-"+component, "--timeout", rolloutLimit)
		// Those of before end when their time has come.
		for _, pod := range before {
			d.kubectl(t, "wait", "--for=delete", "pod/"+pod, "--timeout", rolloutLimit)
		}
	})
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
}

// upgrade changes both Deployments by helm under load, and asks the release how it is.
func (d *deployed) upgrade(t *testing.T) {
	failed := d.under(t, 4, func() {
		d.upgradeTo(t, "edge.replicas=3", "edge.podAnnotations.step=upgrade", "engine.podAnnotations.step=upgrade")
	})
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
	if edges := d.pods(t, "edge"); len(edges) < 3 {
		t.Errorf("three edges were asked for: %v", edges)
	}
	t.Log(d.helm(t, "test", release, "--timeout", "2m"))
}

// killEnginePod kills the process of one engine: what it had begun to answer fails, and nothing else.
func (d *deployed) killEnginePod(t *testing.T) {
	engines := processesOf(t, "/usr/bin/quern-engine")
	if len(engines) != 2 {
		t.Fatalf("%d engines run, want 2", len(engines))
	}
	failed := d.under(t, 5, func() {
		if err := syscall.Kill(engines[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, startLimit, "the engine is started again", func() bool { return len(processesOf(t, "/usr/bin/quern-engine")) == 2 })
		d.kubectl(t, "rollout", "status", "deployment/"+release+"-engine", "--timeout", rolloutLimit)
	})
	// All answers of the load are of one chunk: where nothing was sent, the other engine was asked.
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
}

// processesOf returns the processes that run a program of that path, each in its own root.
func processesOf(t *testing.T, program string) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == program {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// drainNode evicts the pods of the only node: the budgets keep one of each, and no request fails.
func (d *deployed) drainNode(t *testing.T) {
	failed := d.under(t, 6, func() {
		out, err := d.tryKubectl(t.Context(), "drain", "node", "--delete-emptydir-data", "--timeout", "30s")
		if err == nil || !strings.Contains(out, "disruption budget") {
			t.Errorf("the node was drained, against the budgets: %v %s", err, out)
		}
		for _, component := range []string{"edge", "engine"} {
			if left := d.pods(t, component); len(left) == 0 {
				t.Errorf("no %s is left", component)
			}
		}
	})
	d.kubectl(t, "uncordon", "node")
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
	for _, component := range []string{"edge", "engine"} {
		d.kubectl(t, "rollout", "status", "deployment/"+release+"-"+component, "--timeout", rolloutLimit)
	}
}

// loseEngines takes all engines away: the edges live and are not ready, and are again when an engine is back.
func (d *deployed) loseEngines(t *testing.T) {
	edges := d.pods(t, "edge")
	d.kubectl(t, "scale", "deployment/"+release+"-engine", "--replicas=0")
	for _, edge := range edges {
		d.kubectl(t, "wait", "--for=condition=Ready=false", "pod/"+edge, "--timeout=60s")
	}
	d.kubectl(t, "scale", "deployment/"+release+"-engine", "--replicas=1")
	for _, edge := range edges {
		d.kubectl(t, "wait", "--for=condition=Ready", "pod/"+edge, "--timeout=60s")
	}
	restarts := d.kubectl(t, "get", "pods", "--selector", "app.kubernetes.io/component=edge",
		"--output", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
	if strings.Trim(restarts, "0 ") != "" {
		t.Errorf("edges were started again: %s", restarts)
	}
	d.fleet.proxy.WaitReady(t)
}

// speakTLS has edges and engines trust each other by certificates, and gives them others while they run.
func (d *deployed) speakTLS(t *testing.T) {
	authority := harness.NewAuthority(t)
	give := func() {
		for component, name := range map[string]string{"edge": release + "-edge." + namespace + ".svc", "engine": release + "-engine." + namespace + ".svc"} {
			secret := map[string]any{
				"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
				"metadata": map[string]any{"name": release + "-" + component + "-tls", "namespace": namespace},
				"data":     authority.Issue(t, name),
			}
			text, err := json.Marshal(secret)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := d.apply(t, string(text)); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
	give()
	d.upgradeTo(t, "tls.engine.enabled=true")
	d.fleet.proxy.WaitReady(t)
	failed := d.under(t, 8, func() {
		give()
		// The files change within the kubelet's period; connections of before stay, so new ones are asked for.
		time.Sleep(5 * time.Second)
		d.kubectl(t, "delete", "pod", d.pods(t, "edge")[0])
		d.kubectl(t, "rollout", "status", "deployment/"+release+"-edge", "--timeout", rolloutLimit)
	})
	if failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
	if logs := d.kubectl(t, "logs", "--selector", "app.kubernetes.io/component=engine", "--tail=-1"); !strings.Contains(logs, `"tls":true`) {
		t.Errorf("the engines don't speak TLS:\n%s", logs)
	}
}

// uninstall removes the release, and nothing of it is left.
func (d *deployed) uninstall(t *testing.T) {
	d.helm(t, "uninstall", release, "--wait", "--timeout", "2m")
	d.kubectl(t, "wait", "--for=delete", "pod", "--selector", "app.kubernetes.io/instance="+release, "--timeout", rolloutLimit)
	left := d.kubectl(t, "get", "all,configmap,secret,networkpolicy,poddisruptionbudget,serviceaccount",
		"--selector", "app.kubernetes.io/instance="+release, "--output", "name")
	t.Logf("left: %q", left)
	for name := range strings.Lines(left) {
		// The secret of page tokens stays on purpose: tokens outlive a release that is installed again.
		if !strings.HasPrefix(name, "secret/") {
			t.Errorf("left behind: %s", name)
		}
	}
}
