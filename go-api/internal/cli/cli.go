// Package cli is the command line: it turns arguments into a configuration and calls what does the work.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"github.com/quern-data/quern/go-api/internal/app"
	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// Version is set when a release is linked.
var Version = ""

// New returns the root command. Logs and errors go to errors, answers to out.
func New(out, errs io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "quern",
		Short:         "A data API over folders of JSON, CSV and Parquet files",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(errs)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCommand(errs), versionCommand(), healthcheckCommand())
	return root
}

func serveCommand(logs io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serve SOURCE...",
		Short:   "Serve folders and buckets of data files over REST and gRPC",
		Example: "  quern serve ./data\n  quern serve s3://bucket/prefix\n  quern serve --engine unix:///run/quern/engine.sock --http :8080",
	}
	cfg := config.Register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, sources []string) error {
		cfg.Version = version()
		if err := cfg.Complete(sources, os.LookupEnv); err != nil {
			return err
		}
		logger, err := telemetry.NewLogger(logs, cfg.LogLevel)
		if err != nil {
			return err
		}
		slog.SetDefault(logger)
		// What these libraries would print, in a form of their own, the access log has already.
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
		ctx, leaving, stop := signals(cmd.Context(), cfg.DrainDelay)
		defer stop()
		return app.Run(ctx, leaving, cfg, logger, logs)
	}
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "quern", version())
			return err
		},
	}
}

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

// healthcheckLimit is shorter than the time that container platforms give a check by default.
const healthcheckLimit = 3 * time.Second

func healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck [URL]",
		Short: "Ask a running server whether it is ready",
		Long: "Asks /readyz of the server at URL, without one of the server on this machine that listens as QUERN_HTTP says, " +
			"127.0.0.1:8080 by default. Ends with 0 when it is ready, else with 1, after 3 s at the latest.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			base, err := config.LocalURL(os.LookupEnv)
			if len(args) == 1 {
				base, err = strings.TrimSuffix(args[0], "/"), nil
			}
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthcheckLimit)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", http.NoBody)
			if err != nil {
				return fmt.Errorf("%s is no URL: %w", base, err)
			}
			response, err := probeClient(request.URL).Do(request)
			if err != nil {
				return err
			}
			if err := response.Body.Close(); err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s is not ready: it answers %s; it may start, drain, or not reach its engine", base, response.Status)
			}
			return nil
		},
	}
}
