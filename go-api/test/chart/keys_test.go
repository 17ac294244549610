package chart

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clusterWith returns the kubeconfig of an API server that has one Secret, and knows the kinds of the bare chart.
func clusterWith(t *testing.T, secret *core.Secret) string {
	t.Helper()
	resources := func(group string, kinds ...string) meta.APIResourceList {
		list := meta.APIResourceList{TypeMeta: meta.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: group}
		for _, kind := range kinds {
			list.APIResources = append(list.APIResources, meta.APIResource{Name: strings.ToLower(kind) + "s", Kind: kind, Namespaced: true, Verbs: meta.Verbs{"get"}})
		}
		return list
	}
	apps := meta.GroupVersionForDiscovery{GroupVersion: "apps/v1", Version: "v1"}
	answers := map[string]any{
		"/version": map[string]string{"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
		"/api":     meta.APIVersions{TypeMeta: meta.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}},
		"/apis": meta.APIGroupList{
			TypeMeta: meta.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
			Groups:   []meta.APIGroup{{Name: "apps", Versions: []meta.GroupVersionForDiscovery{apps}, PreferredVersion: apps}},
		},
		"/api/v1":       resources("v1", "Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"),
		"/apis/apps/v1": resources("apps/v1", "Deployment"),
		fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", secret.Namespace, secret.Name): secret,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		if !known {
			w.WriteHeader(http.StatusNotFound)
			answer = meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: meta.StatusFailure, Reason: meta.StatusReasonNotFound, Code: http.StatusNotFound}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, config, fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test,
		clusters: [{name: test, cluster: {server: %q}}], contexts: [{name: test, context: {cluster: test, user: test}}], users: [{name: test, user: {}}]}`, server.URL))
	return config
}

// TestPageTokensAreKept sees that an upgrade keeps what page tokens are sealed with, and that each release has another.
func TestPageTokensAreKept(t *testing.T) {
	made := func(cluster string, args ...string) string {
		t.Helper()
		out, errs, err := helmIn(t, cluster, append([]string{
			"template", "quern", chartDir, "--namespace", "data", "--set",
			"networkPolicy.enabled=false,edge.disruptionBudget.enabled=false,engine.disruptionBudget.enabled=false",
		}, args...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, errs)
		}
		return string(get[*core.Secret](t, decode(t, out), "quern-page-tokens").Data["page-token-secret"])
	}
	first, second := made(noCluster), made(noCluster)
	if len(first) < 32 || first == second {
		t.Errorf("made %q, then %q", first, second)
	}
	there := &core.Secret{
		TypeMeta: meta.TypeMeta{Kind: "Secret", APIVersion: "v1"},
		ObjectMeta: meta.ObjectMeta{
			Name: "quern-page-tokens", Namespace: "data",
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "Helm"},
			Annotations: map[string]string{"meta.helm.sh/release-name": "quern", "meta.helm.sh/release-namespace": "data"},
		},
		Data: map[string][]byte{"page-token-secret": []byte(first)},
	}
	if kept := made(clusterWith(t, there), "--dry-run=server", "--disable-openapi-validation"); kept != first {
		t.Errorf("%q became %q", first, kept)
	}
	there.Name = "another"
	if other := made(clusterWith(t, there), "--dry-run=server", "--disable-openapi-validation"); other == first {
		t.Error("it has that of another release")
	}

	out, errs, err := helm(t, "template", "quern", chartDir, "--set", "pageTokens.existingSecret=mine")
	if err != nil || strings.Contains(out, "kind: Secret") {
		t.Errorf("a Secret is made beside the one that is there: %v %s", err, errs)
	}
}
