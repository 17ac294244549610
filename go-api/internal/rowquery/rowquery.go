// Package rowquery reads what a request for rows says in text: the filter (AIP-160), the order (AIP-132) and the list
// of fields. It knows the grammar and no table: the engine finds the columns and gives values their types.
package rowquery

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.einride.tech/aip/filtering"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// maxText bounds each of the texts, in bytes.
const maxText = 16 << 10

// Error says what is wrong with a text, and where.
type Error struct {
	// At is where, in bytes from 0.
	At int
	// Message is one sentence that says what would work.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("at character %d: %s", e.At+1, e.Message) }

func failf(at int, format string, args ...any) error {
	return &Error{At: at, Message: fmt.Sprintf(format, args...)}
}

// tokens splits a text by AIP-160's rules.
func tokens(text string) ([]filtering.Token, error) {
	if len(text) > maxText {
		return nil, failf(maxText, "it is longer than %d KiB", maxText>>10)
	}
	var lexer filtering.Lexer
	lexer.Init(text)
	var all []filtering.Token
	for {
		token, err := lexer.Lex()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, located(err, func(at int) int { return at })
		}
		all = append(all, token)
	}
}

// located finds the innermost error of the library, which says most, and where it is; place makes that a place in what
// was given.
func located(err error, place func(int) int) error {
	inner := &Error{At: place(0), Message: "it can't be read"}
	for ; err != nil; err = errors.Unwrap(err) {
		//nolint:errorlint // Each error of the chain is looked at by itself.
		if placed, ok := err.(interface {
			Position() filtering.Position
			Message() string
		}); ok {
			inner = &Error{At: place(int(placed.Position().Offset)), Message: placed.Message()}
		}
	}
	if inner.Message == "parse token" {
		// The library's word for the end of the text where it looked for more.
		inner.Message = "the text ends where more must follow"
	}
	return inner
}

// list reads items separated by commas.
type list struct {
	tokens []filtering.Token
	end    int
}

func (l *list) peek() (filtering.Token, bool) {
	if len(l.tokens) == 0 {
		return filtering.Token{Position: filtering.Position{Offset: int32(min(l.end, maxText))}}, false //nolint:gosec // within the bound
	}
	return l.tokens[0], true
}

func (l *list) space() {
	for len(l.tokens) > 0 && l.tokens[0].Type == filtering.TokenTypeWhitespace {
		l.tokens = l.tokens[1:]
	}
}

// path reads a column's name, and those of nested fields after dots.
func (l *list) path() (*enginev1.ColumnPath, error) {
	path := &enginev1.ColumnPath{}
	for {
		token, ok := l.peek()
		if !ok || !token.Type.IsValue() {
			return nil, failf(int(token.Position.Offset), "a column's name must stand here; put names that are no plain words in double quotes")
		}
		name, err := token.Unquote()
		if err != nil {
			return nil, failf(int(token.Position.Offset), "the quoted name can't be read")
		}
		path.Names = append(path.Names, name)
		l.tokens = l.tokens[1:]
		if next, ok := l.peek(); !ok || next.Type != filtering.TokenTypeDot {
			return path, nil
		}
		l.tokens = l.tokens[1:]
	}
}

// eachOf calls read for each item of a text; not at all where it is blank.
func eachOf(text string, read func(*list) error) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	all, err := tokens(text)
	if err != nil {
		return err
	}
	items := &list{tokens: all, end: len(text)}
	for {
		items.space()
		if err := read(items); err != nil {
			return err
		}
		items.space()
		token, ok := items.peek()
		if !ok {
			return nil
		}
		if token.Type != filtering.TokenTypeComma {
			return failf(int(token.Position.Offset), "a comma or the end must stand here; put names that are no plain words in double quotes")
		}
		items.tokens = items.tokens[1:]
	}
}

// Fields reads a list of columns; none where the text is blank.
func Fields(text string) ([]*enginev1.ColumnPath, error) {
	var paths []*enginev1.ColumnPath
	err := eachOf(text, func(items *list) error {
		path, err := items.path()
		paths = append(paths, path)
		return err
	})
	return paths, err
}

// Order reads a list of columns, each with `asc` or `desc` after it or nothing; none where the text is blank.
func Order(text string) ([]*enginev1.OrderTerm, error) {
	var terms []*enginev1.OrderTerm
	err := eachOf(text, func(items *list) error {
		path, err := items.path()
		if err != nil {
			return err
		}
		term := &enginev1.OrderTerm{Column: path}
		terms = append(terms, term)
		items.space()
		token, ok := items.peek()
		if !ok || token.Type != filtering.TokenTypeText {
			return nil
		}
		switch strings.ToLower(token.Value) {
		case "asc":
		case "desc":
			term.Descending = true
		default:
			return failf(int(token.Position.Offset), "asc or desc may stand here, and nothing else")
		}
		items.tokens = items.tokens[1:]
		return nil
	})
	return terms, err
}
