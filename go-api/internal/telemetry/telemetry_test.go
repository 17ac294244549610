package telemetry

import (
	"bytes"
	"strings"
	"testing"
)

func TestIdentify(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	cases := []struct {
		parent string
		kept   bool
	}{
		{"00-" + trace + "-00f067aa0ba902b7-01", true},
		{"cc-" + trace + "-00f067aa0ba902b7-01-later", true},
		{"00-" + trace + "-00f067aa0ba902b7-01-later", false},
		{"ff-" + trace + "-00f067aa0ba902b7-01", false},
		{"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", false},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false},
		{"00-" + strings.ToUpper(trace) + "-00f067aa0ba902b7-01", false},
		{"", false},
		{"rubbish", false},
	}
	for _, c := range cases {
		id := Identify("", c.parent, "vendor=1")
		if (id.TraceID() == trace) != c.kept || (id.TraceState != "") != c.kept || !validParent(traceParentPattern.FindStringSubmatch(id.TraceParent)) {
			t.Errorf("%q became %+v", c.parent, id)
		}
	}
	for _, good := range []string{"a", "a.b-c_D~9:x", strings.Repeat("a", 128)} {
		if Identify(good, "", "").RequestID != good {
			t.Errorf("%q was replaced", good)
		}
	}
	for _, bad := range []string{"", " a", "a b", "a\nb", "é", "-a", strings.Repeat("a", 129)} {
		if Identify(bad, "", "").RequestID == bad {
			t.Errorf("%q was kept", bad)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("id", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=b")
	f.Fuzz(func(t *testing.T, requestID, parent, state string) {
		id := Identify(requestID, parent, state)
		if !requestIDPattern.MatchString(id.RequestID) || !validParent(traceParentPattern.FindStringSubmatch(id.TraceParent)) {
			t.Errorf("%+v", id)
		}
	})
}

func TestNewLogger(t *testing.T) {
	var out bytes.Buffer
	logger, err := NewLogger(&out, "warn")
	if err != nil {
		t.Fatal(err)
	}
	logger.Info("no")
	logger.Warn("yes")
	if !strings.Contains(out.String(), `"level":"WARN","msg":"yes"`) || strings.Contains(out.String(), "no") {
		t.Error(out.String())
	}
	if _, err := NewLogger(&out, "loud"); err == nil {
		t.Error("an unknown level was taken")
	}
}
