package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
)

// Metadata keys, the same as the HTTP header names in lower case.
const (
	RequestIDKey   = "x-request-id"
	TraceParentKey = "traceparent"
	TraceStateKey  = "tracestate"
)

var (
	requestIDPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~:-]{0,127}$`)
	traceParentPattern = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$`)
	traceStatePattern  = regexp.MustCompile(`^[\x20-\x7e]{1,512}$`)
)

// Identity names one request in logs, responses and calls to the engine.
type Identity struct {
	// RequestID is the caller's X-Request-Id where it is well formed, else a new UUID version 7.
	RequestID string
	// TraceParent is a W3C traceparent whose parent is this edge's part of the request.
	TraceParent string
	// TraceState is the caller's tracestate, empty without a valid traceparent.
	TraceState string
	// caller is the caller's traceparent where it is valid: the parent of this edge's part.
	caller string
}

// Identify makes a request's identity from what the caller sent; anything malformed is replaced, never passed on.
func Identify(requestID, traceParent, traceState string) Identity {
	id := Identity{RequestID: requestID}
	if requestID == "" || !requestIDPattern.MatchString(requestID) {
		id.RequestID = newRequestID()
	}
	id.TraceParent = newTraceParent()
	if traceParent == "" {
		return id
	}
	if parent := traceParentPattern.FindStringSubmatch(traceParent); validParent(parent) {
		id.caller = traceParent
		id.TraceParent = "00-" + parent[2] + id.TraceParent[traceIDEnd:traceIDEnd+spanLength] + parent[4]
		if traceStatePattern.MatchString(traceState) {
			id.TraceState = traceState
		}
	}
	return id
}

// Where the parts of a traceparent of version 00 stand: `00-`, the trace id, `-`, the span id, `-`, the flags.
const (
	traceIDEnd = 3 + 32
	spanLength = 1 + 16 + 1
)

// newTraceParent begins a trace that nobody asked to record.
func newTraceParent() string {
	var random [24]byte
	// crypto/rand.Read never fails: it ends the process when the system has no randomness.
	_, _ = rand.Read(random[:])
	var text [traceIDEnd + spanLength + 2]byte
	copy(text[:], "00-")
	hex.Encode(text[3:], random[:16])
	text[traceIDEnd] = '-'
	hex.Encode(text[traceIDEnd+1:], random[16:])
	copy(text[traceIDEnd+spanLength-1:], "-00")
	return string(text[:])
}

// TraceID returns the 32 hex digits that name the trace.
func (id Identity) TraceID() string {
	if len(id.TraceParent) < traceIDEnd {
		return ""
	}
	return id.TraceParent[3:traceIDEnd]
}

// Metadata returns the identity as gRPC metadata.
func (id Identity) Metadata() metadata.MD {
	md := metadata.Pairs(RequestIDKey, id.RequestID, TraceParentKey, id.TraceParent)
	if id.TraceState != "" {
		md.Set(TraceStateKey, id.TraceState)
	}
	return md
}

// FromIncoming reads the identity that an interceptor or the REST layer has laid into a call's metadata.
func FromIncoming(ctx context.Context) Identity {
	md, _ := metadata.FromIncomingContext(ctx)
	return Identity{
		RequestID:   First(md, RequestIDKey),
		TraceParent: First(md, TraceParentKey),
		TraceState:  First(md, TraceStateKey),
	}
}

// Outgoing returns a context whose calls carry the request's identity to the engine.
func Outgoing(ctx context.Context) context.Context {
	id := FromIncoming(ctx)
	if id.RequestID == "" {
		return ctx
	}
	if parent := Parent(ctx); parent != "" {
		id.TraceParent = parent
	}
	return metadata.NewOutgoingContext(ctx, id.Metadata())
}

// First returns the first value of a metadata key, or the empty string.
func First(md metadata.MD, key string) string {
	if values := md.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// validParent applies the rules of W3C Trace Context: version ff and all-zero ids are invalid, and version 00 has
// exactly four parts.
func validParent(parent []string) bool {
	const noTrace, noSpan = "00000000000000000000000000000000", "0000000000000000"
	return parent != nil && parent[1] != "ff" && parent[2] != noTrace && parent[3] != noSpan &&
		(parent[1] != "00" || parent[5] == "")
}

func newRequestID() string {
	id, err := uuid.NewV7()
	if err != nil {
		return randomHex(16)
	}
	return id.String()
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	// crypto/rand.Read never fails: it ends the process when the system has no randomness.
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}
