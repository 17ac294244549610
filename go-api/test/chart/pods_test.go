package chart

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/quern-data/quern/go-api/test/harness"
)

// variables returns the plain variables of a pod's container.
func variables(all objects, pod string) map[string]string {
	found := map[string]string{}
	for _, variable := range all.pods()[pod].Spec.Containers[0].Env {
		found[variable.Name] = variable.Value
	}
	return found
}

// TestPodSecurity sees that a namespace with the restricted standard lets every pod in.
func TestPodSecurity(t *testing.T) {
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	eachValues(t, func(t *testing.T, name, file string) {
		for pod, template := range render(t, "--values", file).pods() {
			result := policy.AggregateCheckResults(checks.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec))
			// A folder of the node is what the standard forbids.
			if allowed := name != "host-folder" || pod != "quern-engine"; result.Allowed != allowed {
				t.Errorf("%s: %s: %s", pod, result.ForbiddenReason(), result.ForbiddenDetail())
			}
		}
	})
}

// TestPods checks what holds for every pod.
func TestPods(t *testing.T) {
	known := knownVariables(t)
	eachValues(t, func(t *testing.T, _, file string) {
		all := render(t, "--values", file)
		for name, pod := range all.pods() {
			spec, container := pod.Spec, pod.Spec.Containers[0]
			if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
				t.Errorf("%s has a token", name)
			}
			// A Service named quern would be QUERN_PORT.
			if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
				t.Errorf("%s has variables of services", name)
			}
			if context := container.SecurityContext; context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
				t.Errorf("%s writes to its image", name)
			}
			if account := spec.ServiceAccountName; account != "default" && account != "shared" {
				if token := get[*core.ServiceAccount](t, all, account).AutomountServiceAccountToken; token == nil || *token {
					t.Errorf("%s gives tokens out", account)
				}
			}
			seen := map[string]bool{}
			for _, variable := range container.Env {
				if strings.HasPrefix(variable.Name, "QUERN_") && !known[container.Name][variable.Name] {
					t.Errorf("%s does not read %s", name, variable.Name)
				}
				if seen[variable.Name] {
					t.Errorf("%s has %s twice", name, variable.Name)
				}
				seen[variable.Name] = true
			}
			checkMounts(t, name, spec)
			if spec.RestartPolicy == core.RestartPolicyOnFailure {
				continue
			}
			checkStop(t, all, name)
			if container.StartupProbe == nil || container.LivenessProbe == nil || container.ReadinessProbe == nil {
				t.Errorf("%s has not all probes", name)
			}
		}
	})
}

// knownVariables are those that the edge's reference page and the engine's configuration have.
func knownVariables(t *testing.T) map[string]map[string]bool {
	t.Helper()
	known := map[string]map[string]bool{"edge": {}, "engine": {}}
	for container, source := range map[string]struct{ file, pattern string }{
		"edge":   {"docs/reference/configuration.md", "`(QUERN_[A-Z_]+)`"},
		"engine": {"rust-engine/crates/server/src/config.rs", `env = "(QUERN_[A-Z_]+)"`},
	} {
		text := readFile(t, filepath.Join(harness.Root(t), source.file))
		for _, found := range regexp.MustCompile(source.pattern).FindAllStringSubmatch(text, -1) {
			known[container][found[1]] = true
		}
	}
	return known
}

// checkMounts sees that volumes are mounted that are there, and as folders: a file by subPath would not follow its changes.
func checkMounts(t *testing.T, pod string, spec core.PodSpec) {
	t.Helper()
	unused := map[string]bool{}
	for _, volume := range spec.Volumes {
		unused[volume.Name] = true
	}
	for _, mount := range spec.Containers[0].VolumeMounts {
		if !unused[mount.Name] {
			t.Errorf("%s mounts %s, which is not there", pod, mount.Name)
		}
		delete(unused, mount.Name)
		if mount.SubPath != "" || !mount.ReadOnly && mount.Name != "scratch" && mount.Name != "tmp" {
			t.Errorf("%s mounts %+v", pod, mount)
		}
	}
	if len(unused) > 0 {
		t.Errorf("%s does not mount %v", pod, unused)
	}
}

// checkStop sees that a pod is not killed while it still drains.
func checkStop(t *testing.T, all objects, pod string) {
	t.Helper()
	set := variables(all, pod)
	var needs time.Duration
	for _, name := range []string{"QUERN_DRAIN_DELAY", "QUERN_GRACE_PERIOD"} {
		duration, err := time.ParseDuration(set[name])
		if err != nil {
			t.Errorf("%s: %s: %v", pod, name, err)
		}
		needs += duration
	}
	if grace := all.pods()[pod].Spec.TerminationGracePeriodSeconds; grace == nil || time.Duration(*grace)*time.Second <= needs {
		t.Errorf("%s may take %d s, and needs more than %s", pod, grace, needs)
	}
}

// TestScratch sees that what an engine may write fits into its volume: a pod that goes beyond is evicted.
func TestScratch(t *testing.T) {
	for values, kind := range map[string]string{"defaults": "emptyDir", "ha": "ephemeral", "buckets": "emptyDir"} {
		all := render(t, "--values", chartDir+"/ci/"+values+"-values.yaml")
		var size resource.Quantity
		for _, volume := range all.pods()["quern-engine"].Spec.Volumes {
			switch {
			case volume.Name != "scratch":
			case volume.EmptyDir != nil && kind == "emptyDir":
				size = *volume.EmptyDir.SizeLimit
			case volume.Ephemeral != nil && kind == "ephemeral":
				size = volume.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests[core.ResourceStorage]
			}
		}
		writes := int64(0)
		for _, name := range []string{"QUERN_SPILL_BYTES", "QUERN_HOT_SPILL_BYTES"} {
			limit := resource.MustParse(strings.TrimSuffix(variables(all, "quern-engine")[name], "B"))
			writes += limit.Value()
		}
		if size.Value() <= writes {
			t.Errorf("%s: the volume has %s, and the engine writes %d", values, size.String(), writes)
		}
	}
}

// TestSources sees what engines serve.
func TestSources(t *testing.T) {
	for values, want := range map[string]string{
		"defaults":    "/data",
		"host-folder": "/data",
		"bucket-only": "s3://data",
		"buckets":     "/data s3://data/flights gs://more --bucket-poll=30s",
	} {
		container := render(t, "--values", chartDir+"/ci/"+values+"-values.yaml").pods()["quern-engine"].Spec.Containers[0]
		if got := strings.Join(container.Args, " "); got != want {
			t.Errorf("%s: the engine serves %q, want %q", values, got, want)
		}
	}
}

// TestProbes sees that probes ask ports that answer them: with the callers' TLS, and without that of the edges.
func TestProbes(t *testing.T) {
	for values, scheme := range map[string]core.URIScheme{"defaults": core.URISchemeHTTP, "tls-secrets": core.URISchemeHTTPS} {
		pods := render(t, "--values", chartDir+"/ci/"+values+"-values.yaml").pods()
		edge, engine := pods["quern-edge"].Spec.Containers[0], pods["quern-engine"].Spec.Containers[0]
		for _, probe := range []*core.Probe{edge.StartupProbe, edge.LivenessProbe, edge.ReadinessProbe} {
			if probe.HTTPGet.Scheme != scheme {
				t.Errorf("%s: the edge is asked by %s", values, probe.HTTPGet.Scheme)
			}
		}
		if edge.LivenessProbe.HTTPGet.Path == edge.ReadinessProbe.HTTPGet.Path || *engine.LivenessProbe.GRPC.Service != "liveness" || engine.ReadinessProbe.GRPC.Service != nil {
			t.Errorf("%s: a pod that can't serve is killed", values)
		}
		for _, probe := range []*core.Probe{engine.StartupProbe, engine.LivenessProbe, engine.ReadinessProbe} {
			if probe.GRPC.Port != 9092 {
				t.Errorf("%s: the engine is asked at port %d", values, probe.GRPC.Port)
			}
		}
	}
}

// TestEdgeTakesItsSettings starts the edge with the variables, flags and quern.yaml of a rendered pod.
func TestEdgeTakesItsSettings(t *testing.T) {
	all := render(t, "--values", chartDir+"/ci/ha-values.yaml", "--set", "tls.engine.enabled=false",
		"--set", "edge.extraArgs={--slow-query,5s}", "--set", "sharedCache.existingSecret=,sharedCache.url=redis://127.0.0.1:1")
	settings := filepath.Join(t.TempDir(), "quern.yaml")
	writeFile(t, settings, get[*core.ConfigMap](t, all, "quern-settings").Data["quern.yaml"])
	var env []string
	for name, value := range variables(all, "quern-edge") {
		switch name {
		case "QUERN_CONFIG":
			value = settings
		case "QUERN_ENGINE":
			value = "dns:///localhost:1"
		}
		env = append(env, name+"="+value)
	}
	args := all.pods()["quern-edge"].Spec.Containers[0].Args
	server := harness.StartWithEnv(t, env, "", args[1:]...)
	if _, err := server.Get(t.Context(), "/healthz"); err != nil {
		t.Error(err)
	}
	if _, err := server.Get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("without an engine it is ready: %v", err)
	}
}
