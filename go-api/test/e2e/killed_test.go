package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// killing is how long the engine is killed, and how often: QUERN_SOAK_KILLS, as a duration, with pauses of ten seconds; else a
// short run with shorter ones.
func killing(t *testing.T) (length, pause time.Duration) {
	t.Helper()
	text := os.Getenv("QUERN_SOAK_KILLS")
	if text == "" {
		return 20 * time.Second, 4 * time.Second
	}
	length, err := time.ParseDuration(text)
	must(t, err)
	return length, 10 * time.Second
}

// TestEngineKilledUnderLoad kills the engine again and again while it is asked. Nothing that is answered may be wrong; what
// had begun is cut off, and what had not is answered, or refused with the time to come again.
func TestEngineKilledUnderLoad(t *testing.T) {
	length, pause := killing(t)
	server := harness.Start(t, numbersDir(t), "--log-level", "warn")
	load := &underKills{server: server}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done sync.WaitGroup
	for _, ask := range []func() error{load.small, load.small, load.small, load.export, load.export, load.parquet} {
		done.Go(func() {
			for ctx.Err() == nil {
				load.note(ask())
			}
		})
	}
	kills := 0
	for started := time.Now(); time.Since(started)+pause < length; {
		time.Sleep(pause)
		before := load.whole.Load()
		engine := server.Engine(t)
		kill(t, engine.Pid)
		kills++
		harness.Eventually(t, recovery, "requests are answered again", func() bool { return load.whole.Load() > before+10 })
	}
	stop()
	done.Wait()
	t.Logf("%d kills: %d whole answers, %d cut off, %d told to come again, %d wrong or refused otherwise; the first of these: %v",
		kills, load.whole.Load(), load.cut.Load(), load.later.Load(), load.wrong.Load(), load.first)
	if load.wrong.Load() > 0 || kills == 0 {
		t.Errorf("%d kills, %d wrong: %v", kills, load.wrong.Load(), load.first)
	}
	// Six ask at once: no kill can cut off more.
	if most := int64(6 * kills); load.cut.Load() > most {
		t.Errorf("%d answers were cut off by %d kills", load.cut.Load(), kills)
	}
}

// underKills asks and judges.
type underKills struct {
	server                   *harness.Server
	whole, cut, later, wrong atomic.Int64
	once                     sync.Once
	first                    error
}

// cutOff is an answer that began and ended without its end; comeAgain is one that was refused for now.
type cutOff struct{ error }

type comeAgain struct{ error }

func (u *underKills) note(err error) {
	var cut cutOff
	var again comeAgain
	switch {
	case err == nil:
		u.whole.Add(1)
	case errors.As(err, &cut):
		u.cut.Add(1)
	case errors.As(err, &again):
		u.later.Add(1)
		time.Sleep(50 * time.Millisecond)
	default:
		u.wrong.Add(1)
		u.once.Do(func() { u.first = err })
	}
}

// ask sends a statement and returns the whole answer, compared with its digest where the answer has one.
func (u *underKills) ask(sql, format string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	body := fmt.Sprintf(`{"sql":%q,"format":%q}`, sql, format)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.server.URL+"/v1/query", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Cache-Control", "no-store")
	request.Header.Set("Want-Repr-Digest", "sha-256=1")
	// The digest is of what is sent.
	request.Header.Set("Accept-Encoding", "identity")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		// The edge was not killed: it always answers.
		return nil, fmt.Errorf("no answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "" && err == nil {
		return nil, comeAgain{fmt.Errorf("%s: %s", response.Status, answer)}
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, answer)
	}
	if err != nil {
		return nil, cutOff{err}
	}
	sum := sha256.Sum256(answer)
	digest := response.Trailer.Get("Repr-Digest") + response.Header.Get("Repr-Digest")
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; digest != want {
		return nil, fmt.Errorf("the digest is %q, that of what came %q", digest, want)
	}
	return answer, nil
}

// small is answered at once: its answer can't have begun when the engine dies.
func (u *underKills) small() error {
	answer, err := u.ask("SELECT count(*) AS n, sum(n) AS s FROM numbers", "csv")
	if err == nil && string(answer) != "n,s\r\n4000,8002000\r\n" {
		err = fmt.Errorf("got %q", answer)
	}
	return err
}

// export takes a while from its first byte to its last.
func (u *underKills) export() error {
	answer, err := u.ask("SELECT a.n AS x, b.n AS y FROM numbers a, numbers b WHERE b.n <= 500", "csv")
	if lines := bytes.Count(answer, []byte("\n")); err == nil && lines != 4000*500+1 {
		err = fmt.Errorf("got %d lines", lines)
	}
	return err
}

func (u *underKills) parquet() error {
	answer, err := u.ask("SELECT a.n AS x, b.n AS y FROM numbers a, numbers b WHERE b.n <= 100", "parquet")
	if err == nil && !bytes.HasSuffix(answer, []byte("PAR1")) {
		err = fmt.Errorf("a file of %d bytes without its end", len(answer))
	}
	return err
}
