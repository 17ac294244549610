package tlsfiles_test

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/internal/tlsfiles"
	"github.com/quern-data/quern/go-api/test/harness"
)

func filesOf(secret *harness.Secret) tlsfiles.Files {
	return tlsfiles.Files{Cert: secret.Path("tls.crt"), Key: secret.Path("tls.key"), CA: secret.Path("ca.crt")}
}

func TestFilesThatCannotBeUsedAreRefused(t *testing.T) {
	authority := harness.NewAuthority(t)
	right, other := authority.Issue(t, "engine"), authority.Issue(t, "engine")
	for says, wrong := range map[string]map[string][]byte{
		"private key does not match": {"tls.key": other["tls.key"]},
		"no certificate in PEM":      {"ca.crt": []byte("none")},
		"over 1 MiB":                 {"tls.crt": bytes.Repeat([]byte("x"), 1<<20+1)},
	} {
		files := maps.Clone(right)
		maps.Copy(files, wrong)
		if _, err := tlsfiles.Open(filesOf(harness.NewSecret(t, files))); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	if _, err := tlsfiles.Open(tlsfiles.Files{Cert: t.TempDir() + "/none"}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// TestHalfAPairIsWaitedFor writes the certificate and then the key, as a script does that knows no better.
func TestHalfAPairIsWaitedFor(t *testing.T) {
	authority := harness.NewAuthority(t)
	secret := harness.NewSecret(t, authority.Issue(t, "engine"))
	store, err := tlsfiles.Open(filesOf(secret))
	if err != nil {
		t.Fatal(err)
	}
	go store.Follow(t.Context(), slog.New(slog.DiscardHandler))
	before, err := store.Server().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		next := authority.Issue(t, "engine")
		for _, name := range []string{"tls.crt", "tls.key"} {
			if err := os.WriteFile(secret.Path(name), next[name], 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		harness.Eventually(t, 10*time.Second, "the new pair is in force", func() bool {
			now, err := store.Server().GetCertificate(nil)
			changed := err == nil && now.Leaf.SerialNumber.Cmp(before.Leaf.SerialNumber) != 0
			if changed {
				before = now
			}
			return changed
		})
	}
	if store.Failures() != 0 {
		t.Errorf("%d times a certificate was paired with another's key", store.Failures())
	}
}
