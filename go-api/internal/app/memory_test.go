package app

import (
	"math"
	"testing"

	"github.com/spf13/pflag"

	"github.com/quern-data/quern/go-api/internal/config"
)

func TestMemoryFollowsTheContainer(t *testing.T) {
	const mib = 1 << 20
	cases := []struct {
		name         string
		args         []string
		available    int64
		cache, limit int64
		connections  int
	}{
		{"no limit", []string{"--engine", "tcp://e:1"}, math.MaxInt64, 256 * mib, (256 + 16 + 64) * mib, 1000},
		{"a large container", []string{"--engine", "tcp://e:1"}, 4096 * mib, 256 * mib, (256 + 16 + 64) * mib, 1000},
		{"a small container", []string{"--engine", "tcp://e:1"}, 200 * mib, 90 * mib, 90*mib + 90*mib/16 + 64*mib, 720},
		{"a tiny container", []string{"--engine", "tcp://e:1"}, 100 * mib, 45 * mib, 90 * mib, 360},
		{"beside a local engine", nil, 1000 * mib, 125 * mib, 125*mib + 125*mib/16 + 64*mib, 1000},
		{"a cache that was sized", []string{"--engine", "tcp://e:1", "--cache-bytes", "150MiB"}, 200 * mib, 150 * mib, 180 * mib, 720},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
			cfg := config.Register(flags)
			if err := flags.Parse(append(c.args, "--max-connections", "1000")); err != nil {
				t.Fatal(err)
			}
			got := planMemory(cfg, c.available)
			// Shares are of whole tenths of what there is.
			if near := func(a, b int64) bool { return max(a-b, b-a) < 64 }; !near(got.cache, c.cache) || !near(got.limit, c.limit) {
				t.Errorf("got %+v, want a cache of %d and a limit of %d", got, c.cache, c.limit)
			}
			if got.connections != c.connections {
				t.Errorf("got %d connections, want %d", got.connections, c.connections)
			}
		})
	}
}
