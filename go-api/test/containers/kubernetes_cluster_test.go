package containers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
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
	// nodeAddress is the address that .ci/kubernetes/isolated gives the node.
	nodeAddress = "10.88.0.1"
	apiServer   = "https://" + nodeAddress + ":6443"
	// adminToken is the token of the test, and of Kubernetes' own parts: nobody else reaches them.
	adminToken = "quern-test"
	// stopLimit bounds how long a part of Kubernetes takes to end.
	stopLimit = 20 * time.Second
)

// plan is what is made ready outside for a cluster in namespaces without a network: programs, images, tests.
type plan struct {
	// Folder is where everything of the cluster lies, images.tar and e2e.test among it.
	Folder string
	// Kubernetes is the folder of its programs; Helm the path of helm.
	Kubernetes, Helm string
	// Tools are the folders of nft, conntrack and runc; CNI that of the network plugins.
	Tools []string
	CNI   string
	// Edge, Engine and Pause are images in images.tar.
	Edge, Engine, Pause string
	// Cgroup is the name of the cgroup of all pods, below the root of each hierarchy.
	Cgroup string
}

// cluster is a Kubernetes of one node, in the test's own namespaces.
type cluster struct {
	plan
	root string
	env  []string
}

// startCluster starts all parts and waits until the node is ready and holds the images.
func startCluster(t *testing.T, p plan) *cluster {
	t.Helper()
	c := &cluster{plan: p, root: harness.Root(t)}
	path := strings.Join(append(p.Tools, p.Kubernetes, os.Getenv("PATH")), ":")
	c.env = append(os.Environ(), "PATH="+path, "KUBECONFIG="+c.file("kubeconfig"), "HOME="+c.file("home"))
	c.configure(t)
	kube := filepath.Join(p.Kubernetes, "kube")

	c.start(t, "etcd", filepath.Join(p.Kubernetes, "etcd"), "--data-dir", c.file("etcd"), "--unsafe-no-fsync")
	c.start(t, "kube-apiserver", kube, "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+nodeAddress, "--service-cluster-ip-range=10.96.0.0/16", "--cert-dir="+c.file("apiserver"),
		"--service-account-issuer="+apiServer, "--service-account-key-file="+c.file("accounts.pub"),
		"--service-account-signing-key-file="+c.file("accounts.key"), "--token-auth-file="+c.file("tokens"),
		"--authorization-mode=AlwaysAllow", "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP")
	harness.Eventually(t, startLimit, "the API server is ready", func() bool {
		out, err := c.try(t.Context(), kube, "kubectl", "get", "--raw", "/readyz")
		return err == nil && out == "ok"
	})
	c.start(t, "kube-controller-manager", kube, "kube-controller-manager", "--kubeconfig="+c.file("kubeconfig"), "--leader-elect=false",
		"--service-account-private-key-file="+c.file("accounts.key"), "--use-service-account-credentials=false",
		"--authorization-always-allow-paths=*")
	c.start(t, "kube-scheduler", kube, "kube-scheduler", "--kubeconfig="+c.file("kubeconfig"), "--leader-elect=false")
	c.start(t, "coredns", filepath.Join(p.Kubernetes, "coredns"), "-conf", c.file("Corefile"))
	c.start(t, "kube-proxy", kube, "kube-proxy", "--kubeconfig="+c.file("kubeconfig"), "--proxy-mode=nftables", "--hostname-override=node",
		"--conntrack-max-per-core=0", "--cluster-cidr=10.244.0.0/16")
	c.start(t, "containerd", filepath.Join(p.Kubernetes, "containerd"), "--config", c.file("containerd.toml"))
	harness.Eventually(t, startLimit, "containerd answers", func() bool {
		_, err := c.ctr(t.Context(), "version")
		return err == nil
	})
	if out, err := c.ctr(t.Context(), "images", "import", c.file("images.tar")); err != nil {
		t.Fatalf("import the images: %v\n%s", err, out)
	}
	c.start(t, "kubelet", kube, "kubelet", "--config="+c.file("kubelet.yaml"), "--kubeconfig="+c.file("kubeconfig"),
		"--root-dir="+c.file("kubelet"), "--cert-dir="+c.file("kubelet-certs"), "--node-ip="+nodeAddress, "--hostname-override=node")
	harness.Eventually(t, startLimit, "the node is there", func() bool {
		_, err := c.try(t.Context(), kube, "kubectl", "get", "node", "node")
		return err == nil
	})
	c.kubectl(t, "wait", "--for=condition=Ready", "node/node", "--timeout=90s")
	return c
}

func (c *cluster) file(name string) string { return filepath.Join(c.Folder, name) }

// configure writes the files that the parts start from.
func (c *cluster) configure(t *testing.T) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"accounts.key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"accounts.pub": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"tokens":       adminToken + ",admin,admin,system:masters\n",
		"kubeconfig": `{"apiVersion": "v1", "kind": "Config", "current-context": "test",
			"clusters": [{"name": "test", "cluster": {"server": "` + apiServer + `", "insecure-skip-tls-verify": true}}],
			"users": [{"name": "test", "user": {"token": "` + adminToken + `"}}],
			"contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}`,
		"Corefile": ".:53 {\n  bind " + nodeAddress + "\n  errors\n  kubernetes cluster.local {\n    kubeconfig " + c.file("kubeconfig") + "\n  }\n}\n",
		"kubelet.yaml": c.fill(`
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://FOLDER/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /CGROUP
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
# Other disks' fullness is none of the pods' business here.
evictionHard: {memory.available: "0%"}
imageGCHighThresholdPercent: 100
clusterDNS: [` + nodeAddress + `]
clusterDomain: cluster.local
resolvConf: ""
volumePluginDir: FOLDER/volume-plugins
# How soon a changed ConfigMap or Secret reaches its files.
syncFrequency: 2s
`),
		"containerd.toml": c.fill(`
version = 3
root = 'FOLDER/containerd'
state = 'FOLDER/containerd-state'
[grpc]
  address = 'FOLDER/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'docker.io/PAUSE:latest'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['CNI']
    conf_dir = 'FOLDER/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = 'RUNC'
`),
		"cni/pods.conflist": c.fill(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0",
			"isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "FOLDER/addresses",
			"ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`),
	}
	for _, folder := range []string{"home", "cni", "apiserver", "addresses", "volume-plugins"} {
		if err := os.MkdirAll(c.file(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(c.file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// fill puts the plan's names into a file's text.
func (c *cluster) fill(text string) string {
	runc, err := exec.LookPath("runc")
	for _, tools := range c.Tools {
		if found, missing := exec.LookPath(filepath.Join(tools, "runc")); missing == nil {
			runc, err = found, nil
		}
	}
	if err != nil {
		runc = "runc"
	}
	return strings.NewReplacer("FOLDER", c.Folder, "CGROUP", c.Cgroup, "PAUSE", c.Pause, "CNI", c.CNI, "RUNC", runc).Replace(text)
}

// start runs a part until the test ends; its log is shown where the test fails.
func (c *cluster) start(t *testing.T, name, program string, args ...string) {
	t.Helper()
	logs, err := os.Create(c.file(name + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, args...)
	command.Env, command.Dir = c.env, c.Folder
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
		case <-time.After(stopLimit):
			_ = command.Process.Kill()
		}
		_ = logs.Close()
		if t.Failed() {
			text, _ := os.ReadFile(logs.Name())
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
}

// try runs a command at the repository's root and returns what it printed, without the last line's end.
func (c *cluster) try(ctx context.Context, name string, args ...string) (string, error) {
	return (&docker{root: c.root, env: c.env}).try(ctx, name, args...)
}

func (c *cluster) ctr(ctx context.Context, args ...string) (string, error) {
	return c.try(ctx, filepath.Join(c.Kubernetes, "ctr"), append([]string{"--address", c.file("containerd.sock"), "--namespace", "k8s.io"}, args...)...)
}

// kubectl runs a command of kubectl in the namespace of the test; its failure ends the test.
func (c *cluster) kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.tryKubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cluster) tryKubectl(ctx context.Context, args ...string) (string, error) {
	return c.try(ctx, filepath.Join(c.Kubernetes, "kube"), append([]string{"kubectl", "--namespace", namespace}, args...)...)
}

// apply hands objects to the API server, and returns what it says.
func (c *cluster) apply(t testing.TB, text string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c.tryKubectl(t.Context(), "apply", "--filename", file)
}

// readPlan returns the plan of the test outside, nil where there is none.
func readPlan(t *testing.T) *plan {
	t.Helper()
	path := os.Getenv(planVariable)
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &plan{}
	if err := json.Unmarshal(text, p); err != nil {
		t.Fatal(err)
	}
	return p
}
