package service

import (
	"math"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
)

func TestPageTokens(t *testing.T) {
	for _, name := range []string{"a", "flights_3m", strings.Repeat("z", 300)} {
		if got, err := decodePageToken(encodePageToken(name)); err != nil || got != name {
			t.Errorf("%s came back as %s %v", name, got, err)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add(encodePageToken("a"))
	f.Add("e30")
	f.Fuzz(func(t *testing.T, token string) {
		after, err := decodePageToken(token)
		if err != nil && apierr.Info(status.Convert(err)).GetReason() != string(apierr.PageTokenInvalid) {
			t.Error(err)
		}
		if err == nil && (after == "") != (token == "") {
			t.Errorf("%q starts the list over", token)
		}
	})
}

func TestReceipts(t *testing.T) {
	line, err := FormatReceipt(cache.Receipt{Rows: 1, Bytes: 2}, []cache.Snapshot{{Table: "a", ID: "1"}, {Table: "b", ID: "2"}})
	const want = `rows=1, bytes=2, digest="sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", snapshots=("a";id="1" "b";id="2")`
	if err != nil || line != want {
		t.Errorf("%s %v, want %s", line, err, want)
	}
	if line, err := FormatReceipt(cache.Receipt{}, nil); err != nil || !strings.HasSuffix(line, "snapshots=()") {
		t.Errorf("%s %v", line, err)
	}
	// The same snapshots as before, and others.
	for _, id := range []string{"1", "2", "2", "1"} {
		line, err := FormatReceipt(cache.Receipt{Rows: math.MaxUint64, Bytes: 3}, []cache.Snapshot{{Table: "a", ID: id}})
		if err != nil || !strings.HasPrefix(line, "rows=999999999999999, bytes=3, ") || !strings.HasSuffix(line, `, snapshots=("a";id="`+id+`")`) {
			t.Errorf("%s %v", line, err)
		}
		if _, err := httpsfv.UnmarshalDictionary([]string{line}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestDirectives(t *testing.T) {
	for text, want := range map[string]cache.Policy{
		"": cache.Use, "no-cache": cache.Revalidate, "max-age=0": cache.Revalidate, "No-Cache, no-store": cache.Bypass,
		"only-if-cached": cache.OnlyStored, "max-age=60": cache.Use, "max-stale": cache.Use, "rubbish=;;": cache.Use,
	} {
		if got := policyOf(text); got != want {
			t.Errorf("%q is policy %d, want %d", text, got, want)
		}
	}
}

func TestEveryStateHasItsWord(t *testing.T) {
	for number, name := range enginev1.TableState_name {
		want := "STATE_" + strings.TrimPrefix(name, "TABLE_STATE_")
		if got := publicState(enginev1.TableState(number)).String(); got != want {
			t.Errorf("%s became %s", name, got)
		}
	}
}

func TestEveryFormatIsTheEngines(t *testing.T) {
	if len(Formats) != len(enginev1.Format_name)-1 {
		t.Errorf("%d formats, the engine has %d", len(Formats), len(enginev1.Format_name)-1)
	}
}
