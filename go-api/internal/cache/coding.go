package cache

import (
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Coding is a content coding (RFC 9110, 8.4.1) that answers can be sent in.
type Coding int

// The codings, in no order of preference.
const (
	Identity Coding = iota
	Gzip
	Zstd
	codings
)

// String returns the coding's name in Accept-Encoding and Content-Encoding.
func (c Coding) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	case Identity, codings:
	}
	return "identity"
}

// Tag returns the entity tag of an answer in this coding: each coding is a representation of its own.
func (c Coding) Tag(tag Tag) string {
	if c == Identity {
		return `"` + string(tag) + `"`
	}
	return `"` + string(tag) + "-" + c.String() + `"`
}

// Encoder compresses a stream. Flush makes all that was written readable on the other side.
type Encoder interface {
	io.WriteCloser
	Flush() error
}

// zstdWindow bounds what a client must hold to decode, and what the encoder holds. RFC 9659 allows 8 MiB.
const zstdWindow = 512 << 10

// NewEncoder returns an encoder of the coding that writes to out.
func (c Coding) NewEncoder(out io.Writer) (Encoder, error) {
	if c == Zstd {
		return zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow))
	}
	return gzip.NewWriterLevel(out, gzip.BestSpeed)
}
