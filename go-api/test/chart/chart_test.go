// Package chart renders deploy/helm/quern with the values of its ci folder and some more, and checks what comes out
// without a cluster: types, selectors, Pod Security, variables, and that wrong values are refused.
package chart

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

const chartDir = "../../../deploy/helm/quern"

// noCluster keeps Helm from the cluster that a developer is logged in to.
const noCluster = "/nonexistent"

// helmPath is Helm, from PATH or built once.
var helmPath = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../../../.ci/helm").Output()
	return strings.TrimSpace(string(out)), err
})

// helm runs Helm and returns what it writes to standard output, and to standard error.
func helm(t *testing.T, args ...string) (out, errs string, err error) {
	t.Helper()
	return helmIn(t, noCluster, args...)
}

// helmIn is helm in the cluster of a kubeconfig.
func helmIn(t *testing.T, cluster string, args ...string) (out, errs string, err error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatalf("no Helm: %v", err)
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), path, args...)
	command.Env = append(command.Environ(), "KUBECONFIG="+cluster)
	command.Stdout, command.Stderr = &stdout, &stderr
	err = command.Run()
	return stdout.String(), stderr.String(), err
}

// render returns what a release named quern in the namespace data makes.
func render(t *testing.T, args ...string) objects {
	t.Helper()
	out, errs, err := helm(t, append([]string{"template", "quern", chartDir, "--namespace", "data"}, args...)...)
	if err != nil {
		t.Fatalf("helm template %v: %v\n%s", args, err, errs)
	}
	return decode(t, out)
}

// eachValues runs test for each file of the ci folder.
func eachValues(t *testing.T, test func(t *testing.T, name, file string)) {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/ci/*-values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("the ci folder has %v %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), "-values.yaml")
		t.Run(name, func(t *testing.T) { test(t, name, file) })
	}
}

func TestLint(t *testing.T) {
	eachValues(t, func(t *testing.T, _, file string) {
		if out, errs, err := helm(t, "lint", "--strict", chartDir, "--values", file); err != nil {
			t.Errorf("%v\n%s%s", err, out, errs)
		}
	})
}

// TestWrongValues sees that each wrong value is refused by a message that names it.
func TestWrongValues(t *testing.T) {
	for set, message := range map[string]string{
		"replicas=3":                        `additional properties 'replicas' not allowed`,
		"edge.replica=3":                    `at '/edge': additional properties 'replica' not allowed`,
		"edge.replicas=two":                 `at '/edge/replicas': got string, want integer`,
		"engine.scratch.spillGiB=0":         `at '/engine/scratch/spillGiB': minimum: got 0, want 1`,
		"engine.image.digest=sha256:12":     `at '/engine/image/digest': 'sha256:12' does not match`,
		"engine.gracePeriodSeconds=25s":     `at '/engine/gracePeriodSeconds': got string, want integer`,
		"edge.service.type=Cluster":         `at '/edge/service/type': value must be one of 'ClusterIP'`,
		"edge.service.httpPort=70000":       `at '/edge/service/httpPort'`,
		"edge.topologySpread[0].maxSkew=1":  `missing property 'topologyKey'`,
		"data.buckets={http://x}":           `at '/data/buckets/0': 'http://x' does not match`,
		"data.bucketSecret=Credentials":     `at '/data/bucketSecret'`,
		"settings.tables.a.cache.max_age=1": `at '/settings/tables/a/cache/max_age': got number, want string`,
		"settings.table.a.key=id":           `at '/settings': additional properties 'table' not allowed`,
		"sharedCache.url=redis://u:p@host":  `at '/sharedCache/url'`,
		"logLevel=trace":                    `at '/logLevel': value must be one of 'error'`,
		"networkPolicy.bucketPorts={x}":     `at '/networkPolicy/bucketPorts/0': got string, want integer`,
		"monitoring.rules.label=x":          `at '/monitoring/rules': additional properties 'label' not allowed`,
		"data.volume.emptyDir.medium=Memory,data.volume.hostPath.path=/x": `at '/data/volume'`,
		// What one value asks of another.
		"ingress.http.enabled=true":                                          `ingress.http.hosts must name a host`,
		"ingress.grpc.enabled=true":                                          `ingress.grpc.hosts must name a host`,
		"gateway.http.enabled=true":                                          `gateway.parentRefs must name a gateway`,
		"tls.callers.enabled=true,tls.callers.certificate.create=true":       `tls.callers.certificate.issuerRef must name an issuer`,
		"tls.callers.enabled=true,monitoring.serviceMonitor.enabled=true":    `monitoring.serviceMonitor.tlsConfig must say`,
		"tls.engine.certificates.issuerRef.Name=x,tls.engine.edgeName=other": `at '/tls/engine/certificates/issuerRef': additional properties 'Name' not allowed`,
	} {
		t.Run(set, func(t *testing.T) {
			out, errs, err := helm(t, "template", "quern", chartDir, "--set", set)
			if err == nil {
				t.Fatalf("it is taken:\n%s", out)
			}
			if !strings.Contains(errs, message) {
				t.Errorf("want %q in:\n%s", message, errs)
			}
		})
	}
}

func TestOldClustersAreRefused(t *testing.T) {
	_, errs, err := helm(t, "template", "quern", chartDir, "--kube-version", "1.28.9")
	if err == nil || !strings.Contains(errs, "1.29.0") {
		t.Errorf("got %v: %s", err, errs)
	}
	// Clouds have versions with suffixes.
	render(t, "--kube-version", "v1.29.1-gke.100")
}

// TestPartOfAnotherChart sees that the schema lets through what Helm hands to parts.
func TestPartOfAnotherChart(t *testing.T) {
	render(t, "--set", "global.region=eu")
}

// TestNotes reads what `helm install` says at its end.
func TestNotes(t *testing.T) {
	notes := func(args ...string) string {
		out, errs, err := helm(t, append([]string{"install", "quern", chartDir, "--namespace", "data", "--dry-run=client"}, args...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, errs)
		}
		return out[strings.LastIndex(out, "NOTES:"):]
	}
	plain := notes()
	for _, want := range []string{"http://quern.data.svc:8080", "nothing to serve", "tls.engine.enabled"} {
		if !strings.Contains(plain, want) {
			t.Errorf("want %q in:\n%s", want, plain)
		}
	}
	full := notes("--values", chartDir+"/ci/everything-values.yaml")
	if !strings.Contains(full, "https://quern.data.svc:443") || strings.Contains(full, "nothing to serve") || strings.Contains(full, "without TLS") {
		t.Errorf("got:\n%s", full)
	}
}

// TestPackage sees that the packaged chart has what its links point to, and none of the tests' values.
func TestPackage(t *testing.T) {
	dir := t.TempDir()
	if _, errs, err := helm(t, "package", chartDir, "--destination", dir); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	packages, err := filepath.Glob(dir + "/quern-*.tgz")
	if err != nil || len(packages) != 1 {
		t.Fatalf("got %v %v", packages, err)
	}
	files, err := exec.CommandContext(t.Context(), "tar", "-tzf", packages[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"quern/files/alerts.yaml\n", "quern/files/dashboard.json\n", "quern/values.schema.json\n"} {
		if !strings.Contains(string(files), want) {
			t.Errorf("want %q in:\n%s", want, files)
		}
	}
	if strings.Contains(string(files), "quern/ci/") {
		t.Errorf("the tests' values are packaged:\n%s", files)
	}
}

// TestVersions sees that the chart is released with what it installs.
func TestVersions(t *testing.T) {
	chart := read(t, "Chart.yaml")
	engine := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindStringSubmatch(readFile(t, filepath.Join(harness.Root(t), "rust-engine", "Cargo.toml")))
	if engine == nil || !strings.Contains(chart, "\nappVersion: "+engine[1]+"\n") {
		t.Errorf("appVersion is not the engine's %v:\n%s", engine, chart)
	}
}
