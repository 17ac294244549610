package e2e

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// absent in an expectation means that the member must not be there.
const absent = "<absent>"

// matchText compares a text with what is expected of it: `~ ` starts a regular expression.
func matchText(want, got string) error {
	pattern, isPattern := strings.CutPrefix(want, "~ ")
	if !isPattern {
		if want != got {
			return fmt.Errorf("want %q, got %q", want, got)
		}
		return nil
	}
	expression, err := regexp.Compile("(?s)" + pattern)
	if err != nil {
		return err
	}
	if !expression.MatchString(got) {
		return fmt.Errorf("want a match of %q, got %q", pattern, got)
	}
	return nil
}

// contains says where got doesn't hold want: members of objects may be more than wanted, elements of lists not.
func contains(want, got any, path string) error {
	switch wanted := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: want an object, got %s", path, render(got))
		}
		for name, member := range wanted {
			found, there := object[name]
			if member == absent {
				if there {
					return fmt.Errorf("%s.%s: want none, got %s", path, name, render(found))
				}
				continue
			}
			if !there {
				return fmt.Errorf("%s: no member %q in %s", path, name, render(got))
			}
			if err := contains(member, found, path+"."+name); err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(wanted) {
			return fmt.Errorf("%s: want %d elements, got %s", path, len(wanted), render(got))
		}
		for i, element := range wanted {
			if err := contains(element, list[i], fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case string:
		text, ok := got.(string)
		if !ok {
			return fmt.Errorf("%s: want text %q, got %s", path, wanted, render(got))
		}
		if err := matchText(wanted, text); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	case bool, nil:
		if want != got {
			return fmt.Errorf("%s: want %v, got %s", path, want, render(got))
		}
		return nil
	default:
		return containsNumber(want, got, path)
	}
}

func containsNumber(want, got any, path string) error {
	number, ok := got.(json.Number)
	if !ok {
		return fmt.Errorf("%s: want the number %v, got %s", path, want, render(got))
	}
	wanted, valid := new(big.Rat).SetString(fmt.Sprint(want))
	found, parsed := new(big.Rat).SetString(number.String())
	if !valid || !parsed || wanted.Cmp(found) != 0 {
		return fmt.Errorf("%s: want %v, got %s", path, want, number)
	}
	return nil
}

func render(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	if len(text) > 600 {
		return string(text[:600]) + "…"
	}
	return string(text)
}

// parse reads JSON with all digits of its numbers.
func parse(text []byte) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("not JSON: %w: %.300s", err, text)
	}
	return value, nil
}
