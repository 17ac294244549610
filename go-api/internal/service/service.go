// Package service implements the public services, one file a service; gRPC and REST callers run the same code. It checks
// requests, sets deadlines, and passes encoded bytes through. It knows neither HTTP nor how an engine is reached.
package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// outward turns an error into what callers see. What the caller can't mend is logged in full here, since the text that
// goes out says no more than that it happened.
func outward(ctx context.Context, err error, timeout time.Duration) error {
	st := status.Convert(err)
	info := apierr.Info(st)
	if info.GetReason() == string(apierr.DeadlineExceeded) {
		// The deadline was this one, whoever saw it first, and only here is it known how long it was.
		return apierr.Timeout(timeout)
	}
	if info == nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return apierr.Of(context.Canceled).Err()
		}
		if st.Code() == codes.DeadlineExceeded || pastDeadline(ctx) {
			return apierr.Timeout(timeout)
		}
		telemetry.Logger(ctx).WarnContext(ctx, "engine call failed", "error", err)
	}
	return apierr.Of(err).Err()
}

// pastDeadline says whether the deadline has passed, or will in a moment: a call has the same deadline at the engine, and
// what gives it up there may see it first and call it a cancellation.
func pastDeadline(ctx context.Context) bool {
	const moment = 50 * time.Millisecond
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < moment
}
