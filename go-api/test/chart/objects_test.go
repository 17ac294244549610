package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/goccy/go-yaml"
	prometheus "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// objects are what a release makes, by kind and name.
type objects map[string]meta.Object

// decode reads manifests as the API server would, but for what only it knows: a field that a type does not have, or
// has twice, is an error.
func decode(t *testing.T, manifests string) objects {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme,
		certmanager.AddToScheme, gateway.Install, prometheus.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	all := objects{}
	for part := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		object, kind, err := strict.Decode([]byte(part), nil, nil)
		if err != nil {
			t.Fatalf("%v in:\n%s", err, part)
		}
		found, ok := object.(meta.Object)
		if !ok {
			t.Fatalf("%T has no metadata", object)
		}
		key := kind.Kind + "/" + found.GetName()
		if all[key] != nil {
			t.Fatalf("%s is there twice", key)
		}
		all[key] = found
	}
	return all
}

// get returns one object.
func get[T meta.Object](t *testing.T, all objects, name string) T {
	t.Helper()
	var none T
	kind := reflect.TypeOf(none).Elem().Name()
	found, ok := all[kind+"/"+name].(T)
	if !ok {
		t.Fatalf("there is no %s/%s", kind, name)
	}
	return found
}

// list returns all objects of a kind.
func list[T meta.Object](all objects) []T {
	var found []T
	for _, object := range all {
		if one, ok := object.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

// pods returns the pods of a release: templates, and that of `helm test`.
func (o objects) pods() map[string]core.PodTemplateSpec {
	pods := map[string]core.PodTemplateSpec{}
	for _, deployment := range list[*apps.Deployment](o) {
		pods[deployment.Name] = deployment.Spec.Template
	}
	for _, pod := range list[*core.Pod](o) {
		pods[pod.Name] = core.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	}
	return pods
}

// selected returns the names of the pods that labels select.
func (o objects) selected(wanted map[string]string) string {
	var found []string
	for name, pod := range o.pods() {
		if labels.SelectorFromSet(wanted).Matches(labels.Set(pod.Labels)) {
			found = append(found, name)
		}
	}
	return strings.Join(found, " ")
}

// TestObjects checks what holds for every object and whatever points from one to another.
func TestObjects(t *testing.T) {
	eachValues(t, func(t *testing.T, name, file string) {
		all := render(t, "--values", file)
		full := "quern"
		if name == "bare" {
			full = "mill"
		}
		for key, object := range all {
			if object.GetNamespace() != "data" {
				t.Errorf("%s is in %q", key, object.GetNamespace())
			}
			if wrong := validation.IsDNS1035Label(object.GetName()); wrong != nil {
				t.Errorf("%s: %v", key, wrong)
			}
			for label, value := range object.GetLabels() {
				if wrong := append(validation.IsQualifiedName(label), validation.IsValidLabelValue(value)...); wrong != nil {
					t.Errorf("%s: label %s: %v", key, label, wrong)
				}
			}
		}
		same := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s is of %q, want %q", what, got, want)
			}
		}
		for _, deployment := range list[*apps.Deployment](all) {
			same(deployment.Name, all.selected(deployment.Spec.Selector.MatchLabels), deployment.Name)
			for _, spread := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
				same(spread.TopologyKey, all.selected(spread.LabelSelector.MatchLabels), deployment.Name)
			}
			rolling := deployment.Spec.Strategy.RollingUpdate
			if rolling.MaxUnavailable.IntValue() != 0 || rolling.MaxSurge.IntValue() != 1 || deployment.Spec.MinReadySeconds == 0 {
				t.Errorf("%s stops pods before others are ready: %+v", deployment.Name, rolling)
			}
		}
		for _, budget := range list[*policy.PodDisruptionBudget](all) {
			same(budget.Name, all.selected(budget.Spec.Selector.MatchLabels), budget.Name)
		}
		for _, scaler := range list[*autoscaling.HorizontalPodAutoscaler](all) {
			if get[*apps.Deployment](t, all, scaler.Spec.ScaleTargetRef.Name).Spec.Replicas != nil {
				t.Errorf("%s has a number of replicas beside its autoscaler", scaler.Name)
			}
		}
		for _, policies := range list[*networking.NetworkPolicy](all) {
			same(policies.Name, all.selected(policies.Spec.PodSelector.MatchLabels), policies.Name)
		}
		for _, service := range list[*core.Service](all) {
			pod := all.selected(service.Spec.Selector)
			want := full + "-edge"
			if service.Name != full {
				want = service.Name
			}
			same(service.Name, pod, want)
			for _, port := range service.Spec.Ports {
				if !hasPort(all.pods()[pod], port.TargetPort.String()) {
					t.Errorf("%s: no port %s", service.Name, port.TargetPort.String())
				}
			}
		}
		checkRoutes(t, all, full)
	})
}

// hasPort says whether the pod's container has a port of the name.
func hasPort(pod core.PodTemplateSpec, name string) bool {
	for _, port := range pod.Spec.Containers[0].Ports {
		if port.Name == name {
			return true
		}
	}
	return false
}

// checkRoutes sees that whatever leads to the Service leads to ports that it has.
func checkRoutes(t *testing.T, all objects, full string) {
	t.Helper()
	service := get[*core.Service](t, all, full)
	ports := map[string]int32{}
	for _, port := range service.Spec.Ports {
		ports[port.Name] = port.Port
	}
	for _, ingress := range list[*networking.Ingress](all) {
		for _, rule := range ingress.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				backend := path.Backend.Service
				if backend.Name != full || !strings.HasSuffix(ingress.Name, backend.Port.Name) || ports[backend.Port.Name] == 0 {
					t.Errorf("%s leads to %+v", ingress.Name, backend)
				}
			}
		}
	}
	leads := func(route string, ref gateway.BackendRef, port string) {
		if string(ref.Name) != full || ref.Port == nil || *ref.Port != ports[port] {
			t.Errorf("%s leads to %+v", route, ref)
		}
	}
	for _, route := range list[*gateway.HTTPRoute](all) {
		leads(route.Name, route.Spec.Rules[0].BackendRefs[0].BackendRef, "http")
	}
	for _, route := range list[*gateway.GRPCRoute](all) {
		leads(route.Name, route.Spec.Rules[0].BackendRefs[0].BackendRef, "grpc")
	}
	for _, monitor := range list[*prometheus.ServiceMonitor](all) {
		matching := ""
		for _, service := range list[*core.Service](all) {
			if labels.SelectorFromSet(monitor.Spec.Selector.MatchLabels).Matches(labels.Set(service.Labels)) {
				matching += service.Name
			}
		}
		if endpoint := monitor.Spec.Endpoints[0]; matching != full || ports[endpoint.Port] == 0 {
			t.Errorf("%s scrapes %+v of %q", monitor.Name, endpoint, matching)
		}
	}
}

// TestEngineService sees that edges get the addresses of ready engines only, from DNS.
func TestEngineService(t *testing.T) {
	service := get[*core.Service](t, render(t), "quern-engine")
	if service.Spec.ClusterIP != core.ClusterIPNone || service.Spec.PublishNotReadyAddresses {
		t.Errorf("got %+v", service.Spec)
	}
}

// TestNetworkPolicies sees who may reach whom.
func TestNetworkPolicies(t *testing.T) {
	all := render(t)
	engine := get[*networking.NetworkPolicy](t, all, "quern-engine").Spec
	if len(engine.PolicyTypes) != 2 || len(engine.Ingress) != 1 || len(engine.Ingress[0].Ports) != 1 || len(engine.Ingress[0].From) != 1 ||
		engine.Ingress[0].Ports[0].Port.IntValue() != 9091 ||
		all.selected(engine.Ingress[0].From[0].PodSelector.MatchLabels) != "quern-edge" {
		t.Errorf("engines are reached by others than edges: %+v", engine)
	}
	edge := get[*networking.NetworkPolicy](t, all, "quern-edge").Spec
	if len(edge.PolicyTypes) != 2 || len(edge.Egress) != 2 || all.selected(edge.Egress[1].To[0].PodSelector.MatchLabels) != "quern-engine" {
		t.Errorf("edges reach more than engines and DNS: %+v", edge)
	}

	// The pod of `helm test` may call wherever callers are chosen.
	chosen := render(t, "--values", chartDir+"/ci/ingress-values.yaml")
	from := get[*networking.NetworkPolicy](t, chosen, "quern-edge").Spec.Ingress[0].From
	if len(from) != 3 || chosen.selected(from[2].PodSelector.MatchLabels) != "quern-ready" {
		t.Errorf("got %+v", from)
	}

	cached := render(t, "--set", "sharedCache.existingSecret=keys")
	if egress := get[*networking.NetworkPolicy](t, cached, "quern-edge").Spec.Egress; len(egress) != 3 || egress[2].Ports[0].Port.IntValue() != 6379 {
		t.Errorf("edges do not reach their cache: %+v", egress)
	}
	buckets := render(t, "--values", chartDir+"/ci/buckets-values.yaml")
	if egress := get[*networking.NetworkPolicy](t, buckets, "quern-engine").Spec.Egress; len(egress) != 3 || len(egress[1].Ports) != 2 {
		t.Errorf("engines do not reach their buckets: %+v", egress)
	}
}

// TestCertificates sees that certificates are made for the names that are asked for, and into the Secrets that are mounted.
func TestCertificates(t *testing.T) {
	for _, values := range []string{"ha", "everything", "tls-cert-manager"} {
		all := render(t, "--values", chartDir+"/ci/"+values+"-values.yaml")
		issuers := map[string]bool{"private": true, "public": true}
		for _, issuer := range list[*certmanager.Issuer](all) {
			issuers[issuer.Name] = true
		}
		made := map[string]*certmanager.Certificate{}
		for _, certificate := range list[*certmanager.Certificate](all) {
			made[certificate.Spec.SecretName] = certificate
			if !issuers[certificate.Spec.IssuerRef.Name] {
				t.Errorf("%s: %s is of an issuer %q that nobody makes", values, certificate.Name, certificate.Spec.IssuerRef.Name)
			}
		}
		for name, pod := range all.pods() {
			for _, volume := range pod.Spec.Volumes {
				if volume.Secret != nil && made[volume.Secret.SecretName] == nil {
					t.Errorf("%s: %s mounts %s, which nobody makes", values, name, volume.Secret.SecretName)
				}
			}
		}
		edge, engine := variables(all, "quern-edge"), variables(all, "quern-engine")
		for secret, name := range map[string]string{
			"quern-engine-tls": edge["QUERN_ENGINE_TLS_NAME"], "quern-edge-tls": engine["QUERN_ENGINE_LISTEN_TLS_CLIENT_NAME"],
		} {
			spec := made[secret].Spec
			if got := fmt.Sprint(append(spec.DNSNames, spec.URIs...)); got != "["+name+"]" {
				t.Errorf("%s: %s is for %s, asked for is %q", values, secret, got, name)
			}
		}
	}
}

// TestSettings sees that quern.yaml is what was set.
func TestSettings(t *testing.T) {
	values := chartDir + "/ci/ha-values.yaml"
	all := render(t, "--values", values)
	var want struct{ Settings any }
	if err := yaml.Unmarshal([]byte(readFile(t, values)), &want); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := yaml.Unmarshal([]byte(get[*core.ConfigMap](t, all, "quern-settings").Data["quern.yaml"]), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want.Settings) {
		t.Errorf("got %v, want %v", got, want.Settings)
	}
}

// TestMonitoring sees that rules and dashboard are those of deploy/monitoring.
func TestMonitoring(t *testing.T) {
	all := render(t, "--values", chartDir+"/ci/everything-values.yaml")
	var want struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, "../../../deploy/monitoring/alerts.yaml")), &want); err != nil {
		t.Fatal(err)
	}
	got := get[*prometheus.PrometheusRule](t, all, "quern").Spec.Groups[0].Rules
	if len(got) == 0 || len(got) != len(want.Groups[0].Rules) {
		t.Fatalf("got %d rules", len(got))
	}
	for i, rule := range want.Groups[0].Rules {
		if got[i].Alert != rule.Alert || got[i].Expr.String() != rule.Expr {
			t.Errorf("got %s %q", got[i].Alert, got[i].Expr.String())
		}
	}
	dashboard := get[*core.ConfigMap](t, all, "quern-dashboard").Data["quern.json"]
	if strings.TrimSpace(dashboard) != strings.TrimSpace(readFile(t, "../../../deploy/monitoring/dashboard.json")) {
		t.Error("the dashboard differs from deploy/monitoring/dashboard.json")
	}
}

// read returns a file of the chart.
func read(t *testing.T, name string) string {
	t.Helper()
	return readFile(t, filepath.Join(chartDir, name))
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
