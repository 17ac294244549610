package observe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/quern-data/quern/go-api/test/harness"
)

// complaints takes what is wrong.
type complaints interface {
	Errorf(format string, args ...any)
}

// counted counts complaints.
type counted int

// Errorf implements complaints.
func (c *counted) Errorf(string, ...any) { *c++ }

// series are the samples of a running system: by name the labels, and by label the values.
type series map[string]map[string]map[string]bool

// seriesOf names the samples as Prometheus stores them, with the labels that it adds.
func seriesOf(families map[string]*dto.MetricFamily) series {
	all := series{}
	add := func(name string, metric *dto.Metric, more ...string) {
		known := all[name]
		if known == nil {
			known = map[string]map[string]bool{"instance": {}, "job": {}}
			all[name] = known
		}
		for _, label := range metric.GetLabel() {
			if known[label.GetName()] == nil {
				known[label.GetName()] = map[string]bool{}
			}
			known[label.GetName()][label.GetValue()] = true
		}
		for _, label := range more {
			known[label] = map[string]bool{}
		}
	}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetType() == dto.MetricType_HISTOGRAM {
				add(name+"_bucket", metric, "le")
				add(name+"_sum", metric)
				add(name+"_count", metric)
				continue
			}
			add(name, metric)
		}
	}
	return all
}

// check parses an expression and looks for each name and label in it. It returns how many metrics it names, and the labels
// that its result may have.
func (s series) check(t complaints, where, expr string) (metrics int, result map[string]bool) {
	tree, err := parser.ParseExpr(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
	if err != nil {
		t.Errorf("%s: %v\n%s", where, err, expr)
		return 0, nil
	}
	known := map[string]bool{}
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		metrics++
		found := s[selector.Name]
		if found == nil {
			t.Errorf("%s: nothing is called %s", where, selector.Name)
			return nil
		}
		for name := range found {
			known[name] = true
		}
		for _, matcher := range selector.LabelMatchers {
			values, has := found[matcher.Name]
			switch {
			case matcher.Name == labels.MetricName:
			case !has:
				t.Errorf("%s: %s has no label %s", where, selector.Name, matcher.Name)
			case matcher.Type == labels.MatchEqual && !values[matcher.Value]:
				t.Errorf("%s: %s of %s is never %q", where, matcher.Name, selector.Name, matcher.Value)
			}
		}
		return nil
	})
	result = known
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		grouping := []string{}
		switch node := node.(type) {
		case *parser.AggregateExpr:
			grouping = node.Grouping
			result = map[string]bool{}
			for _, name := range grouping {
				result[name] = true
			}
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				grouping = node.VectorMatching.MatchingLabels
			}
		}
		for _, name := range grouping {
			if !known[name] {
				t.Errorf("%s: nothing in it has the label %s", where, name)
			}
		}
		return nil
	})
	return metrics, result
}

var (
	templateLabel = regexp.MustCompile(`\{\{ \$labels\.(\w+) \}\}`)
	legendLabel   = regexp.MustCompile(`\{\{(\w+)\}\}`)
)

func labelsIn(t *testing.T, where string, pattern *regexp.Regexp, text string, has map[string]bool) {
	t.Helper()
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		if !has[match[1]] {
			t.Errorf("%s: the result has no label %s", where, match[1])
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(t), "deploy", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(read(t, "dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	running := seriesOf(scrape(t, used(t)))
	shown, metrics := map[string]bool{}, 0
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			count, has := running.check(t, panel.Title, target.Expr)
			metrics += count
			labelsIn(t, panel.Title, legendLabel, target.LegendFormat, has)
			for name := range running {
				shown[name] = shown[name] || strings.Contains(target.Expr, name)
			}
		}
	}
	if metrics < 50 {
		t.Errorf("the dashboard names only %d metrics: is its format another one?", metrics)
	}
	for _, variable := range dashboard.Templating.List {
		const head = "label_values("
		if name, found := strings.CutPrefix(variable.Definition, head); found && running[name[:strings.Index(name, ",")]] == nil {
			t.Errorf("variable %s: %s", variable.Name, variable.Definition)
		}
	}
}

func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(read(t, "alerts.yaml"), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	running := seriesOf(scrape(t, used(t)))
	rules := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			rules++
			_, has := running.check(t, rule.Alert, rule.Expr)
			for _, text := range rule.Annotations {
				labelsIn(t, rule.Alert, templateLabel, text, has)
			}
			if rule.Alert == "" || rule.For == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%+v is not whole", rule)
			}
		}
	}
	if rules < 10 {
		t.Errorf("%d rules", rules)
	}
}

// TestTheCheckFails keeps the two tests above from passing whatever the files hold.
func TestTheCheckFails(t *testing.T) {
	running := series{"a_total": {"instance": {}, "pool": {"cpu": true}}}
	for _, wrong := range []string{"rate(a_total[", "b_total", `a_total{zone="x"}`, `a_total{pool="gpu"}`, "sum by (zone) (a_total)"} {
		var found counted
		if running.check(&found, "probe", wrong); found == 0 {
			t.Errorf("%s passes", wrong)
		}
	}
	if count, _ := running.check(t, "good", `sum by (pool) (rate(a_total{pool="cpu"}[$__rate_interval]))`); count != 1 {
		t.Error(count)
	}
}
