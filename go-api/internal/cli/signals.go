package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signals returns two contexts. The first SIGTERM or SIGINT ends leaving; a second one, or delay, ends ctx. The next one
// ends the process at once.
func signals(parent context.Context, delay time.Duration) (ctx, leaving context.Context, stop func()) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGTERM, os.Interrupt)
	ctx, stop = context.WithCancel(parent)
	leaving, leave := context.WithCancel(ctx)
	go func() {
		select {
		case <-got:
		case <-ctx.Done():
		}
		leave()
		select {
		case <-got:
		case <-time.After(delay):
		case <-ctx.Done():
		}
		signal.Stop(got)
		stop()
	}()
	return ctx, leaving, stop
}
