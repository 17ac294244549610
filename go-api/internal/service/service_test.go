package service

import (
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
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
	line, err := FormatReceipt(publicReceipt(&enginev1.Receipt{
		Rows: 1, Bytes: 2, Sha256: []byte{0xff},
		Snapshots: []*enginev1.TableSnapshot{{Table: "b", Snapshot: "2"}, {Table: "a", Snapshot: "1"}},
	}))
	const want = `rows=1, bytes=2, digest="sha-256=:/w==:", snapshots=("a";id="1" "b";id="2")`
	if err != nil || line != want {
		t.Errorf("%s %v, want %s", line, err, want)
	}
	if line, err := FormatReceipt(&quernv1.Receipt{}); err != nil || line != `rows=0, bytes=0, digest="", snapshots=()` {
		t.Errorf("%s %v", line, err)
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
