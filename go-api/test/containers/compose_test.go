// Package containers builds the images, brings docker-compose.yml up, and tests what runs there from outside. It needs a
// Docker engine, or root on Debian; without QUERN_TEST_CONTAINERS=1 (`make test-containers`) it skips.
package containers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	mib = 1 << 20
	// The limits of the containers: less than any machine has, so that following them shows.
	edgeMemory, engineMemory = 128 * mib, 1024 * mib
)

// fleet is what docker-compose.yml describes, running.
type fleet struct {
	*docker
	project string
	// base is the image that all others are built on.
	base string
	// data is the folder that the engine serves.
	data string
	// proxy is the way in for users; edges are those behind it.
	proxy *harness.Server
	edges []*harness.Server
}

// TestContainers goes through the life of a fleet; each step leaves it up for the next.
func TestContainers(t *testing.T) {
	mode := os.Getenv("QUERN_TEST_CONTAINERS")
	if mode == "" {
		t.Skip("containers are tested by `make test-containers`, with QUERN_TEST_CONTAINERS=1")
	}
	d := openDocker(t, mode)
	images := buildImages(t, d)
	t.Run("Images", func(t *testing.T) { images.check(t, d) })
	t.Run("Overlays", func(t *testing.T) { checkOverlays(t, d) })
	f := images.up(t, d)
	for _, step := range []struct {
		name string
		run  func(*fleet, *testing.T)
	}{
		{"Confinement", (*fleet).checkConfinement},
		{"Limits", (*fleet).checkLimits},
		{"BothEdgesShareTheCache", (*fleet).checkSharedCache},
		{"NeverStale", func(f *fleet, t *testing.T) { f.runEndToEnd(t, "^TestNeverStale$", f.edges...) }},
		{"Scenarios", func(f *fleet, t *testing.T) { f.runEndToEnd(t, "^TestScenarios$", f.proxy, f.edges[0]) }},
		{"Starts", (*fleet).measureStarts},
		{"EngineKilled", (*fleet).killEngine},
		{"EdgeDrained", (*fleet).drainEdge},
		{"HostileClients", (*fleet).checkHostileClients},
		{"Bucket", (*fleet).serveBucket},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(f, t) })
	}
}

// images are the names of what compose runs.
type images struct{ base, edge, engine, proxy, cache string }

// buildImages makes the images of this tree, over a base that holds glibc and nothing else: no shell, no certificates.
func buildImages(t *testing.T, d *docker) images {
	t.Helper()
	i := images{base: d.name("base"), edge: d.name("edge"), engine: d.name("engine"), proxy: d.name("haproxy"), cache: d.name("redis")}
	d.run(t, ".ci/image", i.base, "", "libc6", "libgcc-s1")
	d.run(t, ".ci/image", i.proxy, `CMD ["/usr/sbin/haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]`, "haproxy")
	d.run(t, ".ci/image", i.cache, `ENTRYPOINT ["/usr/bin/redis-server"]`, "redis-server")
	// The classic builder is wherever Docker is, and stops at the target.
	d.env = append(d.env, "DOCKER_BUILDKIT=0")
	for name, file := range map[string]string{i.edge: "edge", i.engine: "engine"} {
		d.run(t, "docker", "build", "--quiet", "--target", "prebuilt", "--build-arg", "BASE_IMAGE="+i.base,
			"--build-arg", "VERSION=1.2.3", "-t", name, "-f", "deploy/docker/"+file+".Dockerfile", ".")
	}
	return i
}

// up brings the fleet up, with sample data. The test's end takes it down.
func (i images) up(t *testing.T, d *docker) *fleet {
	t.Helper()
	f := &fleet{docker: d, base: i.base, project: strings.Split(i.edge, "/")[0], data: filepath.Join(t.TempDir(), "data")}
	for dir := f.data; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		// The engine's user must get there.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeNumbers(t, f.data, 1)
	d.env = append(d.env,
		"COMPOSE_PROJECT_NAME="+f.project, "QUERN_DATA="+f.data,
		"QUERN_EDGE_IMAGE="+i.edge, "QUERN_ENGINE_IMAGE="+i.engine, "QUERN_PROXY_IMAGE="+i.proxy,
		"QUERN_CACHE_IMAGE="+i.cache, "QUERN_CACHE_CLI=redis-cli",
		"QUERN_PORT=127.0.0.1:0", "QUERN_GRPC_PORT=127.0.0.1:0",
		fmt.Sprintf("QUERN_EDGE_MEMORY=%d", edgeMemory), fmt.Sprintf("QUERN_ENGINE_MEMORY=%d", engineMemory), "QUERN_ENGINE_CPUS=1",
	)
	t.Cleanup(func() { f.down(t) })
	f.run(t, ".ci/docker-compose", "up", "--detach", "--no-build")
	for _, service := range []string{"engine", "cache", "edge-1", "edge-2"} {
		f.awaitHealthy(t, service)
	}
	ports := f.container(t, "proxy").NetworkSettings.Ports
	f.proxy = &harness.Server{URL: "http://127.0.0.1:" + ports["8080/tcp"][0].HostPort, GRPC: "127.0.0.1:" + ports["9090/tcp"][0].HostPort, Dir: f.data}
	for _, service := range []string{"edge-1", "edge-2"} {
		address := f.container(t, service).address(t)
		f.edges = append(f.edges, &harness.Server{URL: "http://" + address + ":8080", GRPC: address + ":9090", Dir: f.data})
	}
	f.proxy.WaitReady(t)
	return f
}

// down takes all of it down and looks for what is left.
func (f *fleet) down(t *testing.T) {
	t.Helper()
	// The test's own context has ended.
	ctx := context.Background()
	if t.Failed() {
		logs, _ := f.try(ctx, ".ci/docker-compose", "logs", "--no-color", "--tail", "10")
		t.Log(logs)
	}
	if out, err := f.try(ctx, ".ci/docker-compose", "down", "--volumes", "--timeout", "30"); err != nil {
		t.Errorf("docker-compose down: %v\n%s", err, out)
	}
	label := "label=com.docker.compose.project=" + f.project
	for _, list := range [][]string{{"ps", "--all"}, {"network", "ls"}, {"volume", "ls"}} {
		if left, err := f.try(ctx, "docker", append(list, "--quiet", "--filter", label)...); err != nil || left != "" {
			t.Errorf("docker %s: left behind %q %v", list[0], left, err)
		}
	}
}

// id returns the container of a service.
func (f *fleet) id(t testing.TB, service string) string {
	t.Helper()
	id := f.run(t, "docker", "ps", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+f.project, "--filter", "label=com.docker.compose.service="+service)
	if id == "" || strings.Contains(id, "\n") {
		t.Fatalf("want one container of %s, got %q", service, id)
	}
	return id
}

func (f *fleet) container(t testing.TB, service string) container {
	t.Helper()
	return inspect[container](t, f.docker, f.id(t, service))
}

func (f *fleet) awaitHealthy(t testing.TB, service string) {
	t.Helper()
	harness.Eventually(t, startLimit, service+" is healthy", func() bool {
		state := f.container(t, service).State
		return state.Running && state.Health != nil && state.Health.Status == "healthy"
	})
}

// signal sends a signal to a service's process from outside: for Docker the process ends on its own, as in a crash.
func (f *fleet) signal(t *testing.T, service string, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(f.container(t, service).State.Pid, signal); err != nil {
		t.Fatalf("%s of %s: %v; the Docker engine must run on this machine, and the test as root", signal, service, err)
	}
}

// runEndToEnd runs tests of go-api/test/e2e against the fleet.
func (f *fleet) runEndToEnd(t *testing.T, tests string, ways ...*harness.Server) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout", "30m", "-v", "-run", tests, "./go-api/test/e2e")
	command.Dir = f.root
	command.Env = append(os.Environ(), harness.RunningEnv(f.data, ways...))
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
