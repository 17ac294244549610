package rowquery

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// spell writes terms as nested calls, words as they are, texts in quotes, numbers after a #.
func spell(terms []*enginev1.FilterTerm) (string, error) {
	var stack []string
	for _, term := range terms {
		switch kind := term.GetKind().(type) {
		case *enginev1.FilterTerm_Column:
			stack = append(stack, "<"+strings.Join(kind.Column.GetNames(), "|")+">")
		case *enginev1.FilterTerm_Word:
			stack = append(stack, kind.Word)
		case *enginev1.FilterTerm_Text:
			stack = append(stack, fmt.Sprintf("%q", kind.Text))
		case *enginev1.FilterTerm_Number:
			stack = append(stack, "#"+kind.Number)
		case *enginev1.FilterTerm_Call:
			first := len(stack) - int(kind.Call.GetArity())
			if first < 0 {
				return "", errors.New("a call takes more terms than there are")
			}
			call := kind.Call.GetFunction() + "(" + strings.Join(stack[first:], " ") + ")"
			stack = append(stack[:first], call)
		}
	}
	if len(stack) > 1 {
		return "", errors.New("terms are left over")
	}
	return strings.Join(stack, ""), nil
}

func TestFilters(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		" \n":                            "",
		`delay > 60 AND origin = "SFO"`:  `AND(>(<delay> #60) =(<origin> "SFO"))`,
		"a = 1 OR a = 2 OR a = 3":        "OR(=(<a> #1) =(<a> #2) =(<a> #3))",
		"(a = 1 AND b = 2) OR NOT c = 3": "OR(AND(=(<a> #1) =(<b> #2)) NOT(=(<c> #3)))",
		"-(a = -1)":                      "NOT(=(<a> #-1))",
		`"Body Mass (g)" >= 6000.50`:     ">=(<Body Mass (g)> #6000.50)",
		"zip = 02134":                    "=(<zip> #02134)",
		"x = 9007199254740993123":        "=(<x> #9007199254740993123)",
		"carrier.code = BL AND carrier.name != null": "AND(=(<carrier|code> BL) !=(<carrier|name> null))",
		`"a.b".c:*`:                              ":(<a.b|c> *)",
		"host = example.com":                     "=(<host> example.com)",
		`tags:"late" AND m:key`:                  `AND(:(<tags> "late") :(<m> key))`,
		`in(origin, SFO, "OAK", 3)`:              `in(<origin> SFO "OAK" #3)`,
		`contains(lower(name), 'x\'y')`:          `contains(lower(<name>) "x'y")`,
		`at < timestamp("2024-02-29T12:00:00Z")`: `<(<at> "2024-02-29T12:00:00Z")`,
		"at > ago(24h) AND n = 1":                "AND(>(<at> ago(\"24h\")) =(<n> #1))",
		`at < minus(now(), 1.2s)`:                `<(<at> minus(now() "1.2s"))`,
		`d <= plus(date("2024-02-29"), 1d12h)`:   `<=(<d> plus("2024-02-29" "1d12h"))`,
		`at > ago(duration("20s"))`:              `>(<at> ago("20s"))`,
		"t = 20s":                                `=(<t> "20s")`,
		"x > 1e30 OR zip = 02134x":               `OR(>(<x> "1e30") =(<zip> "02134x"))`,
		"x = 0x1F AND v.2:9":                     "AND(=(<x> #0x1F) :(<v|2> #9))",
		"active AND NOT gone":                    "AND(<active> NOT(<gone>))",
		"AND(active)":                            "AND(<active>)",
	} {
		terms, err := Filter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := spell(terms); got != want || err != nil {
			t.Errorf("%s is %s (%v), want %s", text, got, err, want)
		}
	}
}

func TestRefusedFilters(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1 AND b = 2 OR c = 3":          "at character 17: AND and OR stand side by side",
		" a = 1 b = 2":                      "at character 8: AND or OR, in capitals",
		"a = 1 and b = 2":                   "at character 7: AND or OR, in capitals",
		"a >":                               "at character 4: the text ends where more must follow",
		"a = 1)":                            "at character 6: this parenthesis closes none",
		"(a = 1":                            "at character 6: a parenthesis is not closed",
		`a = "x`:                            "at character 5: unterminated string",
		"a = \"\xff\"":                      "invalid UTF-8",
		"5 > a":                             "at character 1: a column's name must stand here",
		"a = lower(b)":                      "at character 5: a value must stand here; conditions can't be compared with, and of functions only ago(), minus(), now(), plus()",
		" at > ago(20s) b":                  "at character 16: AND or OR, in capitals",
		"at > ago(5m":                       "at character 11: a parenthesis is not closed",
		"at > ago(-5m)":                     "at character 10: durations have no sign; write plus()",
		"at > ago(1h) - b":                  "at character 15: unexpected token",
		"a = (b = 1)":                       "at character 6: a value must stand here",
		"(a = 1) = 2":                       "at character 9: unexpected token =",
		strings.Repeat("(", 31) + "a":       "nested more than 30 deep",
		strings.Repeat("a = 1 OR ", 12_000): "longer than 16 KiB",
	} {
		if terms, err := Filter(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v and %v, want %s", text, terms, err, want)
		}
	}
	var placed *Error
	if _, err := Filter("  a ="); !errors.As(err, &placed) || placed.At != 5 {
		t.Errorf("%v does not count what stands before", err)
	}
}

func TestFieldsAndOrder(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "[]",
		"delay":                           "[delay]",
		` a.b , "Body Mass (g)","x.y".z `: "[a|b Body Mass (g) x.y|z]",
	} {
		paths, err := Fields(text)
		got := []string{}
		for _, path := range paths {
			got = append(got, strings.Join(path.GetNames(), "|"))
		}
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("fields %q are %v (%v), want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                          "[]",
		"delay desc, origin":        "[delay- origin+]",
		`"a b" DESC,c.d asc , desc`: "[a b- c|d+ desc+]",
	} {
		terms, err := Order(text)
		got := []string{}
		for _, term := range terms {
			sign := "+"
			if term.GetDescending() {
				sign = "-"
			}
			got = append(got, strings.Join(term.GetColumn().GetNames(), "|")+sign)
		}
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("order %q is %v (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{",", "a,", "a,,b", "a b", "a-b", "a.", `"a`, "1", "AND"} {
		if paths, err := Fields(text); err == nil {
			t.Errorf("fields %q are %v", text, paths)
		}
	}
	for _, text := range []string{",", "a up", "a desc desc", "a desc,", "a desc b"} {
		if terms, err := Order(text); err == nil {
			t.Errorf("order %q is %v", text, terms)
		}
	}
}

// FuzzFilter checks that whatever passes is one expression, and that refusals say where.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`delay > 60 AND origin = "SFO"`, "(a OR b) c", `in(a, 1, 'x\u0041')`, "a.b.1:*", "-a", "NOT (a = .5)", "AND(a)", "0x1F = a", "a:-1.",
		"a = 1 OR (b = 2 AND NOT c:d)", "\"\"=\"\"", "f()", "timestamp(x) < date(y)", "FUZZY(a, b)",
		"at > ago(1h30m) OR b = 1.5d", "a.20s = 20ms b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		terms, err := Filter(text)
		var placed *Error
		switch {
		case err != nil:
			if !errors.As(err, &placed) || placed.At < 0 || placed.At > len(text) || placed.Message == "" {
				t.Errorf("%q is refused with %v", text, err)
			}
		case (len(terms) == 0) != (strings.TrimSpace(text) == ""):
			t.Errorf("%q has %d terms", text, len(terms))
		default:
			if _, err := spell(terms); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			for _, term := range terms {
				if int(term.GetAt()) >= max(len(text), 1) {
					t.Errorf("%q: a term stands at %d", text, term.GetAt())
				}
			}
		}
	})
}
