package service

import (
	"slices"
	"strconv"
	"strings"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
)

// Format is an encoding of results as callers name it.
type Format struct {
	// Name is the word in `format`.
	Name string
	// MediaType is the Content-Type.
	MediaType string
	// Envelope says that the body ends with its own receipt.
	Envelope bool
	// Binary says that the body is compressed or gains nothing from a content coding.
	Binary bool

	engine enginev1.Format
}

// Formats lists every format; the first is the default. Accept picks the first one of its media type, so the bare
// array, whose type is that of the envelope, is had by name only.
var Formats = []Format{
	{Name: "json", MediaType: "application/json", Envelope: true, engine: enginev1.Format_FORMAT_JSON},
	{Name: "json-array", MediaType: "application/json", engine: enginev1.Format_FORMAT_JSON_ARRAY},
	{Name: "ndjson", MediaType: "application/x-ndjson", engine: enginev1.Format_FORMAT_NDJSON},
	{Name: "csv", MediaType: "text/csv; charset=utf-8", engine: enginev1.Format_FORMAT_CSV},
	{Name: "arrow", MediaType: "application/vnd.apache.arrow.stream", Binary: true, engine: enginev1.Format_FORMAT_ARROW},
	{Name: "parquet", MediaType: "application/vnd.apache.parquet", Binary: true, engine: enginev1.Format_FORMAT_PARQUET},
}

// FormatNamed returns the format of that name, or the error FORMAT_UNKNOWN, which lists them all.
func FormatNamed(name string) (Format, error) {
	at := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == name })
	if at < 0 {
		return Format{}, apierr.Field(apierr.FormatUnknown, "format", "`format` "+quote(name)+" is unknown; it is one of "+
			join(Formats, func(f Format) string { return f.Name }))
	}
	return Formats[at], nil
}

// join lists one property of the formats, each value once.
func join(formats []Format, property func(Format) string) string {
	var words []string
	for _, format := range formats {
		if word := property(format); len(words) == 0 || words[len(words)-1] != word {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// quote shows a caller's word in a message: cut to a length that a log line bears.
func quote(word string) string {
	const most = 60
	if len(word) > most {
		word = strings.ToValidUTF8(word[:most], "") + "…"
	}
	return strconv.Quote(word)
}
