package containers

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	// planVariable names the plan's file to the test inside.
	planVariable = "QUERN_TEST_KUBERNETES_PLAN"
	// namespace is where the chart is installed, release its release there.
	namespace, release = "data", "quern"
	// rolloutLimit bounds one rollout.
	rolloutLimit = "180s"
	// loadPause makes ten askers ask 200 times a second.
	loadPause = 50 * time.Millisecond
)

// TestKubernetes makes everything ready that needs a network or a Docker engine, and then runs TestInKubernetes in namespaces
// of its own.
func TestKubernetes(t *testing.T) {
	mode := os.Getenv("QUERN_TEST_KUBERNETES")
	if mode == "" {
		t.Skip("the chart is tested by `make test-k8s`, with QUERN_TEST_KUBERNETES=1")
	}
	d := openDocker(t, mode)
	if out, err := d.try(t.Context(), ".ci/kubernetes/isolated", "true"); err != nil {
		lacks(t, mode, fmt.Errorf("a Kubernetes in namespaces of its own needs root: %w %s", err, out))
	}
	p := plan{Folder: t.TempDir(), Pause: d.name("pause"), Cgroup: "quern-test-" + strings.ToLower(rand.Text()[:8])}
	built := buildImages(t, d)
	p.Edge, p.Engine = built.edge, built.engine
	p.Kubernetes, p.Helm = lastLine(d.run(t, ".ci/kubernetes/build")), lastLine(d.run(t, ".ci/helm"))
	for name, packages := range map[string][]string{
		"nft":       {"sbin/nft", "nftables", "libnftables1", "libjansson4", "libedit2", "libmnl0", "libnftnl11", "libxtables12", "libgmp10", "libbsd0", "libmd0"},
		"conntrack": {"sbin/conntrack", "conntrack", "libnetfilter-conntrack3", "libnfnetlink0", "libmnl0"},
		"runc":      {"sbin/runc", "runc", "libseccomp2"},
	} {
		p.Tools = append(p.Tools, filepath.Dir(d.run(t, ".ci/debian", append([]string{name}, packages...)...)))
	}
	plugins := d.run(t, ".ci/debian", "cni", "lib/cni/bridge", "containernetworking-plugins")
	p.CNI = filepath.Join(filepath.Dir(plugins), "tree/usr/lib/cni")
	d.run(t, "sh", "-c", `tar -C "$0" -c pause | docker import --change 'ENTRYPOINT ["/pause"]' --change 'USER 65535:65535' - "$1"`, p.Kubernetes, p.Pause)
	d.run(t, "docker", "save", "--output", filepath.Join(p.Folder, "images.tar"), p.Edge, p.Engine, p.Pause)
	d.run(t, "go", "test", "-c", "-o", filepath.Join(p.Folder, "e2e.test"), "./go-api/test/e2e")

	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.Folder, "plan.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroups(t, p.Cgroup) })
	makeCgroups(t, p.Cgroup)
	inside := exec.CommandContext(t.Context(), filepath.Join(d.root, ".ci/kubernetes/isolated"),
		os.Args[0], "-test.run", "^TestInKubernetes$", "-test.v", "-test.timeout", "40m")
	inside.Env = append(os.Environ(), planVariable+"="+file)
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	if err := inside.Run(); err != nil {
		t.Errorf("in Kubernetes: %v", err)
	}
}

// lastLine returns what a script prints at its end: its tools may say more before.
func lastLine(text string) string {
	lines := strings.Split(text, "\n")
	return lines[len(lines)-1]
}

// makeCgroups makes a cgroup in each hierarchy, one of version 2 or several of version 1.
func makeCgroups(t *testing.T, name string) {
	t.Helper()
	const root = "/sys/fs/cgroup"
	if controllers, err := os.ReadFile(root + "/cgroup.controllers"); err == nil {
		enabled := "+" + strings.Join(strings.Fields(string(controllers)), " +")
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte(enabled), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
		return
	}
	hierarchies, err := filepath.Glob(root + "/*/tasks")
	if err != nil || len(hierarchies) == 0 {
		t.Fatalf("no cgroups below %s: %v", root, err)
	}
	for _, tasks := range hierarchies {
		parent := filepath.Dir(tasks)
		if err := os.MkdirAll(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
		// Nothing can run in a cpuset that names no processors and no memory.
		for _, setting := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(parent, setting)); err == nil {
				if err := os.WriteFile(filepath.Join(parent, name, setting), value, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// removeCgroups removes the cgroups of the pods; the processes in them have ended with their namespaces.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		var folders []string
		_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		for i := len(folders) - 1; i >= 0; i-- {
			if err := os.Remove(folders[i]); err != nil {
				t.Errorf("left behind: %v", err)
			}
		}
	}
}

// deployed is the chart, installed.
type deployed struct {
	*cluster
	// fleet holds the folder that is served, and the Service as its proxy.
	fleet *fleet
}

// TestInKubernetes installs the chart and goes through the life of the release; each step leaves it up for the next.
func TestInKubernetes(t *testing.T) {
	p := readPlan(t)
	if p == nil {
		t.Skip("TestKubernetes runs it where a Kubernetes can be")
	}
	c := startCluster(t, *p)
	d := &deployed{cluster: c, fleet: &fleet{data: c.file("data")}}
	d.prepare(t)
	d.install(t)
	for _, step := range []struct {
		name string
		run  func(*deployed, *testing.T)
	}{
		{"PodsAreRestricted", (*deployed).checkRestricted},
		{"Scenarios", (*deployed).runScenarios},
		{"ConfigIsReadAgain", (*deployed).changeConfig},
		{"EdgesRoll", func(d *deployed, t *testing.T) { d.roll(t, "edge") }},
		{"EnginesRoll", func(d *deployed, t *testing.T) { d.roll(t, "engine") }},
		{"Upgrade", (*deployed).upgrade},
		{"EngineKilled", (*deployed).killEnginePod},
		{"NodeDrained", (*deployed).drainNode},
		{"NoEngine", (*deployed).loseEngines},
		{"MutualTLS", (*deployed).speakTLS},
		{"Uninstall", (*deployed).uninstall},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(d, t) }) {
			t.Log(d.describe(t))
		}
	}
}
