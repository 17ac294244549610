package config

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// WriteDocs writes the reference page of the settings.
func WriteDocs(out io.Writer) error {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	Register(flags)
	var page strings.Builder
	page.WriteString(docsHead)
	flags.VisitAll(func(flag *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(flag)
		fallback := "`" + flag.DefValue + "`"
		if flag.DefValue == "" || flag.DefValue == "[]" {
			fallback = "none"
		}
		fmt.Fprintf(&page, "| `--%s` | `%s` | %s | %s |\n", flag.Name, variable(flag.Name), fallback, usage)
	})
	page.WriteString(docsFoot)
	_, err := io.WriteString(out, page.String())
	return err
}

const docsHead = `# Configuration

<!-- Rendered from go-api/internal/config by a test; change the code, then run: go test ./go-api/internal/config -update -->

` + "`quern serve SOURCE…`" + ` serves folders, and buckets by their URLs, with a local engine, which it starts, watches and restarts
([buckets](../buckets.md)). ` + "`quern serve --engine URL`" + `
uses a running one. Each setting is a flag or an environment variable; the flag wins. Durations are written like
` + "`30s`, `5m` or `1m30s`" + `, sizes like ` + "`512MiB`" + `.

| flag | variable | default | what it sets |
|---|---|---|---|
`

const docsFoot = `
The settings marked *(local engine)* are handed to the engine that ` + "`quern serve SOURCE…`" + ` starts, and so are
` + "`--timeout-default`, `--timeout-max` and `--log-level`" + `; an engine that runs elsewhere has its own. Where one of them is not given,
the engine's default holds. ` + "`QUERN_CORS_ORIGIN`" + ` takes several origins separated by commas.
What the flags of TLS mean together, and the engine's own: [TLS](../tls.md).

Traces are set by OpenTelemetry's own variables, ` + "`OTEL_EXPORTER_OTLP_ENDPOINT`" + ` first of all: see [observability](../observability.md).

Other subcommands: ` + "`quern version`" + ` prints the version; ` + "`quern healthcheck [URL]`" + ` asks ` + "`/readyz`" + ` of a running server, by
default the one on this machine that listens as ` + "`QUERN_HTTP`" + ` says, and ends with 0 when it is ready, for container health checks.
`
