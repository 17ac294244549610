// Package fingerprint says what a request for a result looks like without saying what it asks for: statements and
// filters with every literal replaced, so that they may be logged and counted. Where a text can't be read for sure, its
// rest is left out. It knows no transport.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// mostBytes is the longest shape.
const mostBytes = 2 << 10

// literal stands for any literal, and rest for what is left out.
const (
	literal = "?"
	rest    = "…"
)

// Of returns the shape of a request, and a name for it: requests that differ in literals, white space, comments and the
// case of words only have the same.
func Of(request *enginev1.ExecuteRequest) (name, shape string) {
	if rows := request.GetRows(); rows != nil {
		shape = ofRows(rows)
	} else {
		shape = ofSQL(request.GetSql())
	}
	sum := sha256.Sum256([]byte(shape))
	if len(shape) > mostBytes {
		shape = strings.ToValidUTF8(shape[:mostBytes], "") + rest
	}
	return hex.EncodeToString(sum[:8]), shape
}

// ofRows writes a request for rows much as a statement.
func ofRows(rows *enginev1.ReadRows) string {
	var out strings.Builder
	out.WriteString("rows of " + rows.GetTable())
	if fields := paths(rows.GetFields()); fields != "" {
		out.WriteString(" fields " + fields)
	}
	switch {
	case rows.GetKey() != nil:
		out.WriteString(" by key " + paths(rows.GetKey().GetColumns()))
		return out.String()
	case rows.GetKeys() != nil:
		out.WriteString(" by keys " + paths(rows.GetKeys().GetColumns()))
		return out.String()
	}
	if filter := ofFilter(rows.GetFilter()); filter != "" {
		out.WriteString(" filter " + filter)
	}
	before := " order by "
	for _, term := range rows.GetOrderBy() {
		out.WriteString(before + path(term.GetColumn()))
		before = ", "
		if term.GetDescending() {
			out.WriteString(" desc")
		}
	}
	if rows.GetPageToken() != "" {
		out.WriteString(" next page")
	}
	if rows.GetCount() {
		out.WriteString(" count")
	}
	return out.String()
}

// ofFilter writes a filter, which comes in reverse Polish notation, as calls.
func ofFilter(terms []*enginev1.FilterTerm) string {
	var stack []string
	for _, term := range terms {
		switch kind := term.GetKind().(type) {
		case *enginev1.FilterTerm_Column:
			stack = append(stack, path(kind.Column))
		case *enginev1.FilterTerm_Call:
			first := len(stack) - int(kind.Call.GetArity())
			if first < 0 {
				return rest
			}
			call := kind.Call.GetFunction() + "(" + strings.Join(stack[first:], ", ") + ")"
			stack = append(stack[:first], call)
		default:
			stack = append(stack, literal)
		}
		if size := len(stack[len(stack)-1]); size > mostBytes {
			// The rest would be cut off anyway, and each call copies what it takes.
			return stack[len(stack)-1]
		}
	}
	return strings.Join(stack, " ")
}

func paths(columns []*enginev1.ColumnPath) string {
	names := make([]string, len(columns))
	for i, column := range columns {
		names[i] = path(column)
	}
	return strings.Join(names, ", ")
}

func path(column *enginev1.ColumnPath) string { return strings.Join(column.GetNames(), ".") }
