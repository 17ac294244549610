package chart

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

var update = flag.Bool("update", false, "rewrite the table of values")

const page = "../../../docs/kubernetes.md"

// value is a line of the table.
type value struct{ path, standard, comment string }

// valuesOf reads values.yaml: what has a comment is a value, and what has none is a folder of values.
func valuesOf(t *testing.T, text string) []value {
	t.Helper()
	file, err := parser.ParseBytes([]byte(text), parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var found []value
	var walk func(node ast.Node, path string)
	walk = func(node ast.Node, path string) {
		mapping, ok := node.(*ast.MappingNode)
		if !ok {
			t.Errorf("%s has no comment in values.yaml", path)
			return
		}
		for _, entry := range mapping.Values {
			name := strings.TrimPrefix(path+"."+entry.Key.String(), ".")
			comment := ""
			if group := entry.GetComment(); group != nil {
				for _, line := range group.Comments {
					comment = strings.TrimSpace(comment + " " + strings.TrimSpace(line.Token.Value))
				}
			}
			if comment == "" {
				walk(entry.Value, name)
				continue
			}
			found = append(found, value{name, flow(t, entry.Value), comment})
		}
	}
	walk(file.Docs[0].Body, "")
	return found
}

// flow returns a value on one line.
func flow(t *testing.T, node ast.Node) string {
	t.Helper()
	var decoded any
	if err := yaml.NodeToValue(node, &decoded, yaml.UseOrderedMap()); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.MarshalWithOptions(decoded, yaml.Flow(true))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestValuesTable compares the page's table with values.yaml.
func TestValuesTable(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "| value | default | what it sets |\n|---|---|---|\n")
	for _, value := range valuesOf(t, strings.SplitAfterN(read(t, "values.yaml"), "\n\n", 2)[1]) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", value.path, value.standard, value.comment)
	}
	const begin, end = "<!-- values: go test ./go-api/test/chart -run ValuesTable -update -->\n", "<!-- end of values -->"
	text := readFile(t, page)
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("docs/kubernetes.md has no place for the table")
	}
	want := before + begin + table.String() + end + after
	if *update {
		writeFile(t, page, want)
	} else if text != want {
		t.Error("the table of docs/kubernetes.md differs from values.yaml; run: go test ./go-api/test/chart -run ValuesTable -update")
	}
}

// TestSchemaKnowsWhatValuesHave sees that the schema has no value that values.yaml lacks; that it lacks none, Helm sees.
func TestSchemaKnowsWhatValuesHave(t *testing.T) {
	var schema map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	definitions, _ := schema["definitions"].(map[string]any)
	var allowed []string
	var walk func(node map[string]any, path string)
	walk = func(node map[string]any, path string) {
		if reference, ok := node["$ref"].(string); ok {
			node, _ = definitions[strings.TrimPrefix(reference, "#/definitions/")].(map[string]any)
		}
		properties, _ := node["properties"].(map[string]any)
		if properties == nil || node["additionalProperties"] != false {
			allowed = append(allowed, path)
		}
		for name, property := range properties {
			inner, _ := property.(map[string]any)
			walk(inner, strings.TrimPrefix(path+"."+name, "."))
		}
	}
	walk(schema, "")
	values := valuesOf(t, strings.SplitAfterN(read(t, "values.yaml"), "\n\n", 2)[1])
	for _, path := range allowed {
		described := slices.ContainsFunc(values, func(v value) bool {
			return v.path == path || strings.HasPrefix(path, v.path+".")
		})
		if !described && path != "global" {
			t.Errorf("the schema allows %s, which values.yaml does not have", path)
		}
	}
}

// TestPageCommands renders what the page's commands install, and what its YAML sets.
func TestPageCommands(t *testing.T) {
	text := readFile(t, page)
	commands := regexp.MustCompile(`(?m)^helm (?:install|upgrade) quern deploy/helm/quern ((?:.*\\\n)*.*)`).FindAllStringSubmatch(text, -1)
	if len(commands) < 3 {
		t.Fatalf("found %d commands", len(commands))
	}
	dir := t.TempDir()
	for _, command := range commands {
		var args []string
		for i, word := range strings.Fields(strings.ReplaceAll(command[1], "\\\n", " ")) {
			switch word = strings.Trim(word, "'"); word {
			case "--create-namespace", "--wait", "--reuse-values":
				continue
			case "values.yaml":
				word = fmt.Sprintf("%s/%d.yaml", dir, i)
				writeFile(t, word, "{}")
			}
			args = append(args, word)
		}
		if out, errs, err := helm(t, append([]string{"template", "quern", chartDir}, args...)...); err != nil {
			t.Errorf("%s: %v\n%s", command[0], err, errs)
		} else {
			decode(t, out)
		}
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) < 5 {
		t.Fatalf("found %d blocks of values", len(blocks))
	}
	for i, block := range blocks {
		if strings.Contains(block[1], "apiVersion:") {
			decode(t, block[1])
			continue
		}
		file := fmt.Sprintf("%s/block-%d.yaml", dir, i)
		writeFile(t, file, block[1])
		render(t, "--values", file)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
