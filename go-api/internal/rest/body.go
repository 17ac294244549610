package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/quern-data/quern/go-api/internal/apierr"
)

const (
	maxDepth = 64
	// maxExactInteger is 2^53: every integer up to it is a float64 of its own.
	maxExactInteger = 1 << 53
)

// readJSON reads a JSON body strictly into an empty message. Fields named elsewhere, in the path, it must not have.
func readJSON(raw []byte, into proto.Message, elsewhere []string) error {
	const what = "the request's body"
	if at := tooDeep(raw); at >= 0 {
		return tooDeepAt(raw, at, what, apierr.BodyInvalid)
	}
	message := into.ProtoReflect()
	unread := protojson.Unmarshal(raw, into)
	if params := message.Descriptor().Fields().ByName(paramsField); unread == nil && len(elsewhere) == 0 &&
		(params == nil || !message.Has(params)) {
		return nil
	}
	// protojson's own messages name no place and little else; and it takes fields from elsewhere, and numbers that lose digits.
	example := `{"sql": "SELECT 1"}`
	if message.Descriptor().FullName() == batchGetRows {
		example = `{"keys": ["a", "b"]}`
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return apierr.New(apierr.BodyInvalid, what+" is empty; send a JSON object such as "+example)
	}
	if err := checkJSON(raw, what, apierr.BodyInvalid); err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		return apierr.New(apierr.BodyInvalid, what+" is not a JSON object such as "+example)
	}
	known := message.Descriptor()
	for name := range fields {
		if slices.Contains(elsewhere, name) ||
			known.Fields().ByName(protoreflect.Name(name)) == nil && known.Fields().ByJSONName(name) == nil {
			return apierr.Field(apierr.FieldUnknown, shown(name), unknownName("field", name, fieldNames(known, elsewhere)))
		}
	}
	if err := checkNumbers(fields[paramsField]); err != nil {
		return err
	}
	if unread == nil {
		return nil
	}
	if field := misfit(fields, message.Type()); field != "" {
		what := "field `" + field + "` of " + what
		return apierr.Field(apierr.BodyInvalid, field, what+" does not fit: "+protojsonText(unread))
	}
	return apierr.New(apierr.BodyInvalid, what+" does not fit: "+protojsonText(unread))
}

// misfit returns the first field, by name, whose value alone is refused; protojson's message does not always say.
func misfit(fields map[string]json.RawMessage, kind protoreflect.MessageType) string {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		alone, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err == nil && protojson.Unmarshal(alone, kind.New().Interface()) != nil {
			return name
		}
	}
	return ""
}

func fieldNames(message protoreflect.MessageDescriptor, but []string) []string {
	names := make([]string, 0, message.Fields().Len())
	for i := range message.Fields().Len() {
		if name := string(message.Fields().Get(i).Name()); !slices.Contains(but, name) {
			names = append(names, name)
		}
	}
	return names
}

// protojsonText drops the prefix that protojson varies on purpose.
func protojsonText(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return shown(strings.TrimPrefix(text, "proto: "))
}

// checkJSON checks syntax, encoding and depth without recursion, and names the place of the first fault.
func checkJSON(raw []byte, what string, reason apierr.Reason) error {
	if at := invalidUTF8(raw); at >= 0 {
		return apierr.Newf(reason, "%s is not UTF-8 at %s", what, position(raw, at))
	}
	if at := tooDeep(raw); at >= 0 {
		return tooDeepAt(raw, at, what, reason)
	}
	var whole json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(raw, &whole); {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		// The offset counts the bytes read, the faulty one included, but for an end that came too early.
		at := int(syntax.Offset) - 1
		if strings.Contains(syntax.Error(), "unexpected end") {
			at = len(raw)
		}
		return apierr.Newf(reason, "%s is not JSON at %s: %s", what, position(raw, max(at, 0)), syntax.Error())
	default:
		return apierr.Newf(reason, "%s is not JSON", what)
	}
}

func invalidUTF8(raw []byte) int {
	if utf8.Valid(raw) {
		return -1
	}
	for at := 0; at < len(raw); {
		char, size := utf8.DecodeRune(raw[at:])
		if char == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// tooDeep returns the place where the nesting passes maxDepth, or -1. It need not understand faulty JSON: that is
// refused afterwards.
func tooDeep(raw []byte) int {
	depth, inString := 0, false
	for at := 0; at < len(raw); at++ {
		switch char := raw[at]; {
		case inString && char == '\\':
			at++
		case char == '"':
			inString = !inString
		case inString:
		case char == '{' || char == '[':
			if depth++; depth > maxDepth {
				return at
			}
		case char == '}' || char == ']':
			depth--
		}
	}
	return -1
}

func tooDeepAt(raw []byte, at int, what string, reason apierr.Reason) error {
	return apierr.Newf(reason, "%s is nested more than %d levels deep at %s", what, maxDepth, position(raw, at))
}

// position counts lines and columns from 1, columns in characters.
func position(raw []byte, at int) string {
	before := raw[:min(at, len(raw))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

// checkNumbers refuses numbers in params that would change their value on the way to the engine, where a JSON number
// is a float64. raw is valid JSON, or empty.
func checkNumbers(raw []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return apierr.New(apierr.ParameterInvalid, "`params` is not JSON")
		}
		if number, ok := token.(json.Number); ok && !exact(number.String()) {
			return apierr.Field(apierr.ParameterInvalid, paramsField, "the number "+shown(number.String())+
				" in `params` would lose digits as a JSON number; write it as a string, \""+shown(number.String())+
				"\", and it is cast to the type that its place in the statement asks for")
		}
	}
}

// exact says whether a number survives as a float64: the shortest text of the float64 has the same value, and an
// integer is within ±2^53.
func exact(number string) bool {
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return false
	}
	if !strings.ContainsAny(number, ".eE") {
		return math.Abs(value) < maxExactInteger || strings.TrimPrefix(number, "-") == strconv.FormatInt(maxExactInteger, 10)
	}
	// ParseFloat went well, so the exponent is small, unless the value is zero whatever its exponent.
	if value == 0 {
		return !strings.ContainsAny(strings.FieldsFunc(number, func(r rune) bool { return r == 'e' || r == 'E' })[0], "123456789")
	}
	given, ok := new(big.Rat).SetString(number)
	kept, kok := new(big.Rat).SetString(strconv.FormatFloat(value, 'g', -1, 64))
	return ok && kok && given.Cmp(kept) == 0
}
