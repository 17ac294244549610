package rest

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/service"
)

const (
	maxBody     = 1 << 20
	bodyTimeout = 30 * time.Second
	formatField = "format"
	paramsField = "params"
)

// checkRequest refuses what the gateway would pass over in silence or report without its reason: unknown query
// parameters, and those of a wrong type. No resource behind the gateway takes a body.
func checkRequest(route *route, r *http.Request) error {
	// The gateway would read a body to its end, which may never come.
	r.Body = http.NoBody
	return readParameters(route, r.URL.RawQuery, dynamicOf(route))
}

// readRequest reads a request for a result from the URL or the body into an empty message, strictly: nothing unknown, no
// number that would lose digits. The path's parameters are left to the caller.
func readRequest(route *route, w http.ResponseWriter, r *http.Request, into proto.Message) error {
	if err := readParameters(route, r.URL.RawQuery, into); err != nil {
		return err
	}
	if !route.hasBody {
		return nil
	}
	message, field := into.ProtoReflect(), route.input.Fields().ByName(formatField)
	format := message.Get(field)
	if format.String() != "" {
		if _, err := service.FormatNamed(format.String()); err != nil {
			return err
		}
	}
	if err := checkMediaType(r.Header); err != nil {
		return err
	}
	raw, err := readBody(w, r)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return apierr.New(apierr.BodyTooLarge, "the request's body is over 1 MiB; a statement may have 256 KiB, the rest is for params")
	}
	if err != nil {
		return apierr.New(apierr.BodyInvalid, "the request's body broke off or came too slowly")
	}
	// The body's own format wins.
	message.Clear(field)
	if err := readJSON(raw, into, route.pathNames()); err != nil {
		return err
	}
	if message.Get(field).String() == "" {
		message.Set(field, format)
	}
	return nil
}

// limitBody gives a body its time. What of it no handler reads, net/http does when the request is answered. http.Server's own
// ReadTimeout would bound that too, but it runs on while the request is answered, and ends long answers.
func limitBody(control *http.ResponseController, r *http.Request) {
	if r.ContentLength != 0 {
		// Every connection of the server has deadlines; a test's recorder has none and needs none.
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// readBody reads the body to its end, and lifts its limit.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	return raw, err
}

// checkMediaType takes JSON, nothing said, and what curl -d says unasked.
func checkMediaType(header http.Header) error {
	if coding := header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return apierr.Newf(apierr.MediaTypeUnsupported, "a request with Content-Encoding %s can't be read; send plain JSON", shown(coding))
	}
	given := header.Get("Content-Type")
	if given == "" {
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json") ||
		mediaType == "application/x-www-form-urlencoded") {
		return nil
	}
	return apierr.Newf(apierr.MediaTypeUnsupported, "Content-Type %s can't be read; send application/json", shown(given))
}

// readParameters parses the query parameters strictly, each known, once but for lists, and of its type, into a message.
func readParameters(route *route, rawQuery string, into proto.Message) error {
	if rawQuery == "" {
		return nil
	}
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return apierr.New(apierr.QueryParameterInvalid,
			"the URL's query can't be read; percent-encode what is not a letter or digit, a semicolon as %3B and a percent sign as %25")
	}
	for name, given := range values {
		field := route.queryField(name)
		if field == nil {
			return apierr.Field(apierr.QueryParameterUnknown, shown(name), unknownName("query parameter", name, route.queryNames()))
		}
		if len(given) > 1 && !field.IsList() {
			return apierr.Field(apierr.QueryParameterInvalid, name, "query parameter `"+name+"` is given more than once")
		}
		for _, value := range given {
			if err := readParameter(into, field, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func readParameter(into proto.Message, field protoreflect.FieldDescriptor, value string) error {
	name := string(field.Name())
	if name == paramsField {
		if err := checkJSON([]byte(value), "`params`", apierr.QueryParameterInvalid); err != nil {
			return err
		}
		if err := checkNumbers([]byte(value)); err != nil {
			return err
		}
	}
	if runtime.PopulateFieldFromPath(into, name, value) != nil {
		return apierr.Field(apierr.QueryParameterInvalid, name,
			"query parameter `"+name+"` can't be "+shown(value)+"; it is "+expected(field))
	}
	return nil
}

// dynamicOf returns an empty request message of a route.
func dynamicOf(route *route) proto.Message { return dynamicpb.NewMessage(route.input) }

// expected says in words what a field takes.
func expected(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return "a whole number"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.MessageKind:
		if field.Message().FullName() == "google.protobuf.Duration" {
			return "a number of seconds with an s, such as 5s or 0.25s"
		}
	default:
	}
	return "text"
}

// unknownName says that a name is unknown and which are known.
func unknownName(what, name string, known []string) string {
	message := what + " `" + shown(name) + "` is unknown"
	if len(known) == 0 {
		return message + "; there are none here"
	}
	slices.Sort(known)
	return message + "; known are " + strings.Join(known, ", ")
}
