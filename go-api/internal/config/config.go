// Package config is the only reader of flags and environment. Each setting is a flag, a QUERN_* variable and a default;
// the reference page is rendered from the same definitions. It knows nothing of what the settings do.
package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// Config is how to serve.
type Config struct {
	// Sources are the folders and buckets that a local engine serves; empty where Engine is set.
	Sources []string
	// Engine is the URL of a running engine; empty where a local one is to be started.
	Engine string
	// EngineBin is the path of the local engine's binary, empty to look for it.
	EngineBin string
	// HTTP and GRPC are the addresses to listen on.
	HTTP string
	GRPC string
	// TLS is how the edge serves and calls over TLS.
	TLS TLS
	// DrainDelay is how long requests are still taken after SIGTERM, while /readyz says no.
	DrainDelay time.Duration
	// GracePeriod is how long requests under way may take after SIGTERM.
	GracePeriod time.Duration
	// StallTimeout is how long an HTTP caller may take no bytes before its connection is cut.
	StallTimeout time.Duration
	// MaxConnections bounds the connections to HTTP, and those to GRPC.
	MaxConnections int
	// CORSOrigins lists the origins whose pages may call.
	CORSOrigins []string
	// TimeoutDefault and TimeoutMax bound each request's time.
	TimeoutDefault time.Duration
	TimeoutMax     time.Duration
	// CacheBytes bounds the front cache; 0 keeps nothing. MaxEntryBytes bounds one answer in it.
	CacheBytes    int64
	MaxEntryBytes int64
	// Settings is the path of quern.yaml, empty for the one in the first folder.
	Settings string
	// CacheRedis is the URL of the level that a fleet shares, empty for none.
	CacheRedis string
	// LogLevel is debug, info, warn or error.
	LogLevel string
	// SlowQuery is how long an answer takes that is logged with its statement's shape; 0 logs none.
	SlowQuery time.Duration
	// Admin is the loopback address of the profiler, empty for none.
	Admin string
	// Traces says that the environment names a collector of OpenTelemetry.
	Traces bool
	// Version is that of this program.
	Version string

	engineFlags []string
	flags       *pflag.FlagSet
}

// engineSetting is a setting that is handed to a local engine under the same name, and that the edge does not read.
type engineSetting struct{ name, usage string }

var engineSettings = []engineSetting{
	{"memory", "memory for all queries together, such as 4GiB; 60 % of the machine's or container's by default, less below 1 GiB"},
	{"hot-bytes", "how much of --memory decoded columns may take while queries leave it, such as 1GiB; a quarter of the machine's or container's by default, 0 keeps none"},
	{"hot-spill-bytes", "disk space for text files that were decoded and whose columns did not stay in memory; 10GiB by default, 0 for none"},
	{"query-memory", "memory for one query, such as 512MiB; half of --memory by default, a quarter below 512 MiB"},
	{"spill-bytes", "disk space for queries that do not fit into memory; 10GiB by default"},
	{"spill-dir", "folder for what is spilled; the system's temporary folder by default"},
	{"max-concurrent-queries", "queries that run at the same time; eight for each thread by default, sixteen at least, and one for each 24 MiB of --memory at most"},
	{"max-queued-queries", "queries that wait for their turn, one more is refused; four times as many as may run by default"},
	{"bucket-poll", "how often buckets are listed, 5s by default: a change is seen one interval and one listing later at the latest"},
	{"threads", "threads that plan, execute and encode; one for each core by default"},
}

// Register defines the settings of `quern serve` on flags.
func Register(flags *pflag.FlagSet) *Config {
	c := &Config{flags: flags}
	flags.SortFlags = false
	flags.StringVar(&c.HTTP, "http", defaultHTTP, "address for REST, HTTP/1.1 and HTTP/2; port 0 takes a free one")
	flags.StringVar(&c.GRPC, "grpc", "127.0.0.1:9090", "address for gRPC; port 0 takes a free one")
	flags.StringVar(&c.Engine, "engine", "", "`URL` of a running engine, dns:///host:port, tcp://host:port or unix:///path, instead of a local one")
	flags.StringVar(&c.EngineBin, "engine-bin", "", "`path` of the engine's binary; without it, quern-engine beside this program, then on PATH")
	c.TLS.register(flags)
	flags.DurationVar(&c.DrainDelay, "drain-delay", 0, "how long new requests are still answered after SIGTERM, while /readyz says 503: as long as callers take to learn of it; a second SIGTERM ends it")
	flags.DurationVar(&c.GracePeriod, "grace-period", 20*time.Second, "how long requests under way may take after SIGTERM and --drain-delay")
	flags.DurationVar(&c.StallTimeout, "stall-timeout", 30*time.Second, "how long an HTTP caller may take no bytes before its connection is cut")
	flags.IntVar(&c.MaxConnections, "max-connections", 10_000, "connections to --http, and as many to --grpc; fewer where memory or file handles are short. When all are taken, a new one to --http takes the place of an idle one")
	flags.StringArrayVar(&c.CORSOrigins, "cors-origin", nil, "`origin` whose pages may call from a browser, such as https://example.com, or * for all; may be repeated")
	flags.DurationVar(&c.TimeoutDefault, "timeout-default", 30*time.Second, "time limit of a request that names none")
	flags.DurationVar(&c.TimeoutMax, "timeout-max", 5*time.Minute, "most that a request may ask for; longer wishes are cut to it")
	c.CacheBytes, c.MaxEntryBytes = defaultCacheBytes, defaultMaxEntryBytes
	flags.Var((*size)(&c.CacheBytes), "cache-bytes", "memory for answers that are kept, such as 256MiB; 0 keeps none; less by default in a container with a small memory limit")
	flags.Var((*size)(&c.MaxEntryBytes), "max-entry-bytes", "largest answer that is kept")
	flags.StringVar(&c.Settings, "config", "", "`path` of quern.yaml; without it the one in the first folder, if there is one")
	flags.StringVar(&c.CacheRedis, "cache-redis", "", "`URL` of a Redis or Valkey that several edges share as a second level, redis://[user:password@]host:port[/db], or rediss:// with TLS")
	flags.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	flags.DurationVar(&c.SlowQuery, "slow-query", time.Second, "how long an answer takes that is logged with the shape of its statement; 0 logs none")
	flags.StringVar(&c.Admin, "admin", "", "loopback `address` for Go's profiler, such as 127.0.0.1:6060; port 0 takes a free one")
	for _, setting := range engineSettings {
		flags.String(setting.name, "", setting.usage+" (local engine)")
	}
	return c
}

// Complete reads the environment for every flag that was not given, and checks the whole. sources are the arguments.
func (c *Config) Complete(sources []string, lookup func(string) (string, bool)) error {
	c.Sources = sources
	var failures []error
	c.flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed || flag.Name == "help" {
			return
		}
		value, ok := lookup(variable(flag.Name))
		if !ok || value == "" {
			return
		}
		if err := setAll(c.flags, flag, value); err != nil {
			failures = append(failures, fmt.Errorf("%s=%q: %w", variable(flag.Name), value, err))
		}
	})
	failures = append(failures, c.check()...)
	traces, err := tracesWanted(lookup)
	c.Traces = traces
	failures = append(failures, err)
	c.engineFlags = c.collectEngineFlags()
	return errors.Join(failures...)
}

// setAll sets a flag from a variable; one that may be repeated takes a comma-separated list.
func setAll(flags *pflag.FlagSet, flag *pflag.Flag, value string) error {
	values := []string{value}
	if flag.Value.Type() == "stringArray" {
		values = strings.Split(value, ",")
	}
	for _, one := range values {
		if err := flags.Set(flag.Name, strings.TrimSpace(one)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) check() []error {
	var failures []error
	add := func(format string, args ...any) { failures = append(failures, fmt.Errorf(format, args...)) }
	switch {
	case c.Engine == "" && len(c.Sources) == 0:
		add("nothing to serve: name a folder, as in `quern serve DIR`, or a running engine with --engine URL")
	case c.Engine != "" && len(c.Sources) > 0:
		add("--engine and folders exclude each other: the engine at %s has its own", c.Engine)
	}
	for _, source := range c.Sources {
		if err := checkSource(source); err != nil {
			failures = append(failures, err)
		}
	}
	failures = append(failures, c.TLS.check(c.Engine)...)
	for name, address := range map[string]string{"http": c.HTTP, "grpc": c.GRPC} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			add("--%s %q is no address; write host:port, such as 127.0.0.1:0", name, address)
		}
	}
	for name, duration := range map[string]time.Duration{
		"timeout-default": c.TimeoutDefault, "timeout-max": c.TimeoutMax, "stall-timeout": c.StallTimeout,
	} {
		if duration <= 0 {
			add("--%s must be more than zero: nothing runs without a limit", name)
		}
	}
	if c.Settings != "" {
		if _, err := os.Stat(c.Settings); err != nil {
			add("--config %s: %w", c.Settings, err)
		}
	}
	if c.MaxConnections < 1 {
		add("--max-connections must be at least 1")
	}
	if c.GracePeriod < 0 {
		add("--grace-period must not be negative")
	}
	if c.DrainDelay < 0 {
		add("--drain-delay must not be negative; 0 drains at once")
	}
	if c.SlowQuery < 0 {
		add("--slow-query must not be negative; 0 logs none")
	}
	if err := checkAdmin(c.Admin); err != nil {
		failures = append(failures, err)
	}
	if c.TimeoutDefault > c.TimeoutMax {
		add("--timeout-default %s is longer than --timeout-max %s", c.TimeoutDefault, c.TimeoutMax)
	}
	for _, origin := range c.CORSOrigins {
		if parsed, err := url.Parse(origin); origin != "*" && (err != nil || parsed.Scheme == "" || parsed.Host == "" || parsed.Path != "") {
			add("--cors-origin %q is no origin; write scheme://host[:port], or * for all", origin)
		}
	}
	return failures
}

// checkSource checks a folder, or the URL of a bucket.
func checkSource(source string) error {
	if scheme, _, isURL := strings.Cut(source, "://"); isURL {
		if !slices.Contains(bucketSchemes, scheme) {
			return fmt.Errorf("can't serve %s: write a folder, or a bucket as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix", source)
		}
		return nil
	}
	if info, err := os.Stat(source); err != nil {
		return fmt.Errorf("can't serve %s: %w", source, err)
	} else if !info.IsDir() {
		return fmt.Errorf("can't serve %s: it is a file; name the folder that holds it", source)
	}
	return nil
}

// bucketSchemes are those that the engine knows.
var bucketSchemes = []string{"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"}

// SettingsPath returns the path of quern.yaml, which need not be there unless it was named; empty where there can be none.
func (c *Config) SettingsPath() string {
	if c.Settings == "" && len(c.Sources) > 0 && !strings.Contains(c.Sources[0], "://") {
		return filepath.Join(c.Sources[0], "quern.yaml")
	}
	return c.Settings
}

// CacheSized says whether the operator has said how large the front cache may be.
func (c *Config) CacheSized() bool { return c.flags.Changed("cache-bytes") }

// EngineArgs returns the local engine's flags and sources.
func (c *Config) EngineArgs() []string {
	return append(append([]string{}, c.engineFlags...), c.Sources...)
}

func (c *Config) collectEngineFlags() []string {
	args := []string{"--timeout-default", c.TimeoutDefault.String(), "--timeout-max", c.TimeoutMax.String(), "--log-level", c.LogLevel}
	for _, setting := range engineSettings {
		if flag := c.flags.Lookup(setting.name); flag != nil && flag.Value.String() != "" {
			args = append(args, "--"+setting.name, flag.Value.String())
		}
	}
	return args
}

const (
	defaultHTTP          = "127.0.0.1:8080"
	defaultCacheBytes    = 256 << 20
	defaultMaxEntryBytes = 8 << 20
)

// size is a flag of bytes: 512, 64KiB, 256MiB, 1GB.
type size int64

// String implements pflag.Value.
func (s *size) String() string {
	return strings.ReplaceAll(humanize.IBytes(uint64(max(*s, 0))), " ", "")
}

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	bytes, err := humanize.ParseBytes(text)
	if err != nil || bytes > math.MaxInt64 {
		return fmt.Errorf("%q is no size; write one such as 256MiB", text)
	}
	*s = size(bytes)
	return nil
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }

// variable returns the name of a flag's environment variable.
func variable(flag string) string {
	return "QUERN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
