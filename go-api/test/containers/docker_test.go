package containers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	// startLimit bounds what starts: a Docker engine, a container until it is healthy.
	startLimit = 90 * time.Second
	// commandLimit bounds every command, downloads of Debian packages included.
	commandLimit = 5 * time.Minute
)

// docker is a Docker engine: the one that runs on this machine, else one that lives for the test.
type docker struct {
	root string
	env  []string
	// images were made here and are removed in the end.
	images []string
}

// ifPossible is the value of a test's variable with which it skips where no Docker engine can be had; with 1 it fails there.
const ifPossible = "if-possible"

// openDocker finds or starts a Docker engine. The test's end removes what was made. The test is asked for by mode.
func openDocker(t *testing.T, mode string) *docker {
	t.Helper()
	d := &docker{root: harness.Root(t), env: os.Environ()}
	client, err := d.try(t.Context(), ".ci/debian", "docker", "bin/docker", "docker.io")
	if err != nil {
		lacks(t, mode, fmt.Errorf("%w: %s", err, client))
	}
	d.env = append(d.env, "PATH="+filepath.Dir(client)+":"+os.Getenv("PATH"))
	t.Setenv("PATH", filepath.Dir(client)+":"+os.Getenv("PATH"))
	if _, err := d.try(t.Context(), "docker", "version"); err != nil {
		if err := d.start(t); err != nil {
			lacks(t, mode, err)
		}
	}
	t.Cleanup(func() { d.removeImages(t) })
	return d
}

// lacks ends a test that can't be had on this machine: it fails where it was asked for, and is skipped where only if possible.
func lacks(t *testing.T, mode string, why error) {
	t.Helper()
	if mode == ifPossible {
		t.Skipf("it can't be had here: %v", why)
	}
	t.Fatal(why)
}

// start runs Debian's dockerd in a folder that goes with the test.
func (d *docker) start(t *testing.T) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return errors.New("none runs here, and only root can start one")
	}
	// The test fails where something is left that can't be removed.
	folder := t.TempDir()
	logs, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(d.root, ".ci", "dockerd"), folder)
	command.Stdout, command.Stderr = logs, logs
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(startLimit):
			_ = command.Process.Kill()
			t.Errorf("dockerd did not end within %s of SIGTERM", startLimit)
		}
		_ = logs.Close()
	})
	d.env = append(d.env, "DOCKER_HOST=unix://"+folder+"/docker.sock")
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, err := d.try(t.Context(), "docker", "version"); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(logs.Name())
			return fmt.Errorf("dockerd ended: %w\n%s", err, text)
		default:
		}
	}
	return fmt.Errorf("dockerd did not answer within %s", startLimit)
}

// try runs a command at the repository's root and returns what it printed, without the last line's end.
func (d *docker) try(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		name = filepath.Join(d.root, name)
	}
	command := exec.CommandContext(ctx, name, args...)
	command.Dir, command.Env = d.root, d.env
	var problem strings.Builder
	command.Stderr = &problem
	out, err := command.Output()
	text := strings.TrimSuffix(string(out), "\n")
	if err != nil {
		return text + problem.String(), err
	}
	return text, nil
}

// run is try where a failure ends the test.
func (d *docker) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := d.try(t.Context(), name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// name returns a name of this run alone for an image.
func (d *docker) name(image string) string {
	name := "quern-test-" + strings.ToLower(rand.Text()[:8]) + "/" + image
	d.images = append(d.images, name)
	return name
}

func (d *docker) removeImages(t *testing.T) {
	// The test's own context has ended.
	ctx := context.Background()
	for i := len(d.images) - 1; i >= 0; i-- {
		if out, err := d.try(ctx, "docker", "image", "rm", "--force", d.images[i]); err != nil && !strings.Contains(out, "No such image") {
			t.Errorf("can't remove the image %s: %v %s", d.images[i], err, out)
		}
	}
}

// inspect decodes what `docker inspect` says of one thing.
func inspect[T any](t testing.TB, d *docker, id string) T {
	t.Helper()
	var found []T
	if err := json.Unmarshal([]byte(d.run(t, "docker", "inspect", id)), &found); err != nil || len(found) != 1 {
		t.Fatalf("docker inspect %s: %v", id, err)
	}
	return found[0]
}

// image is what is checked of an image.
type image struct {
	Size   int64
	Config struct {
		User        string
		Labels      map[string]string
		Healthcheck struct{ Test []string }
		Entrypoint  []string
	}
}

// container is what is checked of a container.
type container struct {
	State struct {
		Pid       int
		Running   bool
		OOMKilled bool
		StartedAt time.Time
		ExitCode  int
		Health    *struct{ Status string }
	}
	RestartCount    int
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
		Ports    map[string][]struct{ HostIP, HostPort string }
	}
}

// address returns the container's address in its one network.
func (c container) address(t testing.TB) string {
	t.Helper()
	for _, network := range c.NetworkSettings.Networks {
		if network.IPAddress != "" {
			return network.IPAddress
		}
	}
	t.Fatal("the container has no address")
	return ""
}
