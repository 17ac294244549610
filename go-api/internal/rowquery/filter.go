package rowquery

import (
	"slices"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// maxDepth bounds how deep parentheses may be nested.
const maxDepth = 30

// Filter reads a filter by AIP-160 into reverse Polish notation; nothing where the text is blank.
func Filter(text string) ([]*enginev1.FilterTerm, error) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "" {
		return nil, nil
	}
	all, err := tokens(text)
	if err != nil {
		return nil, err
	}
	if err := checkNesting(all); err != nil {
		return nil, err
	}
	source, err := quoteWords(text, all)
	if err != nil {
		return nil, err
	}
	// The parser trims too, and counts from there.
	trimmed = strings.TrimSpace(source.text)
	offset := strings.Index(source.text, trimmed)
	place := func(at int) int { return source.original(at + offset) }
	var parser filtering.Parser
	parser.Init(trimmed)
	parsed, err := parser.Parse()
	if err != nil {
		return nil, located(err, place)
	}
	w := writer{text: trimmed, place: place, positions: parsed.GetSourceInfo().GetPositions()}
	if err := w.condition(parsed.GetExpr()); err != nil {
		return nil, err
	}
	return w.terms, nil
}

// checkNesting bounds the parentheses, and refuses AND beside OR: in AIP-160 OR binds tighter, elsewhere AND does.
func checkNesting(all []filtering.Token) error {
	var joined []filtering.TokenType
	joined = append(joined, "")
	for _, token := range all {
		at := int(token.Position.Offset)
		switch token.Type {
		case filtering.TokenTypeLeftParen:
			if joined = append(joined, ""); len(joined) > maxDepth+1 {
				return failf(at, "parentheses are nested more than %d deep", maxDepth)
			}
		case filtering.TokenTypeRightParen:
			if len(joined) == 1 {
				return failf(at, "this parenthesis closes none")
			}
			joined = joined[:len(joined)-1]
		case filtering.TokenTypeAnd, filtering.TokenTypeOr:
			last := &joined[len(joined)-1]
			if *last != "" && *last != token.Type {
				return failf(at, "AND and OR stand side by side, which some read one way and some the other; put parentheses around one of them")
			}
			*last = token.Type
		default:
		}
	}
	if len(joined) > 1 {
		return failf(int(all[len(all)-1].Position.Offset), "a parenthesis is not closed")
	}
	return nil
}

// writer writes a parsed filter as terms.
type writer struct {
	text string
	// place says where in the filter as it was given a place in text is.
	place     func(int) int
	positions map[int64]int32
	terms     []*enginev1.FilterTerm
}

func (w *writer) at(e *expr.Expr) int { return w.place(int(w.positions[e.GetId()])) }

func (w *writer) put(e *expr.Expr, term *enginev1.FilterTerm) {
	term.At = uint32(w.at(e)) //nolint:gosec // within the text, whose length is bounded
	w.terms = append(w.terms, term)
}

func (w *writer) call(e *expr.Expr, function string, arity int) {
	w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Call{Call: &enginev1.FilterCall{
		Function: function, Arity: uint32(arity), //nolint:gosec // within the text, whose length is bounded
	}}})
}

// comparators are the operators with a column on their left and a value on their right.
var comparators = []string{
	filtering.FunctionEquals, filtering.FunctionNotEquals, filtering.FunctionLessThan, filtering.FunctionLessEquals,
	filtering.FunctionGreaterThan, filtering.FunctionGreaterEquals, filtering.FunctionHas,
}

func (w *writer) condition(e *expr.Expr) error {
	call := e.GetCallExpr()
	if call == nil {
		return w.operand(e)
	}
	// The grammar lets functions have the operators' names; what has not their arguments is no operator.
	arity := len(call.GetArgs())
	switch function := call.GetFunction(); {
	case function == filtering.FunctionFuzzyAnd && arity == 2:
		first := call.GetArgs()
		for inner := first; inner != nil; inner = fuzzy(inner[0]) {
			first = inner
		}
		return failf(w.at(first[1]), "AND or OR, in capitals, must stand before this")
	case (function == filtering.FunctionAnd || function == filtering.FunctionOr) && arity == 2:
		parts := operands(e, function)
		for _, part := range parts {
			if err := w.condition(part); err != nil {
				return err
			}
		}
		w.call(e, function, len(parts))
		return nil
	case function == filtering.FunctionNot && arity == 1:
		if err := w.condition(call.GetArgs()[0]); err != nil {
			return err
		}
		w.call(e, function, 1)
		return nil
	case slices.Contains(comparators, function):
		left, right := call.GetArgs()[0], call.GetArgs()[1]
		if err := w.operand(left); err != nil {
			return err
		}
		if err := w.value(right); err != nil {
			return err
		}
		w.call(e, function, 2)
		return nil
	default:
		return w.function(e)
	}
}

// fuzzy returns the two conditions between which no operator stands, or nil.
func fuzzy(e *expr.Expr) []*expr.Expr {
	if call := e.GetCallExpr(); call.GetFunction() == filtering.FunctionFuzzyAnd && len(call.GetArgs()) == 2 {
		return call.GetArgs()
	}
	return nil
}

// operands lists what a chain of one operator joins, in order: the parser nests it to the left, as deep as it is long.
func operands(e *expr.Expr, function string) []*expr.Expr {
	var parts []*expr.Expr
	for e.GetCallExpr().GetFunction() == function && len(e.GetCallExpr().GetArgs()) == 2 {
		args := e.GetCallExpr().GetArgs()
		parts = append(parts, args[1])
		e = args[0]
	}
	parts = append(parts, e)
	slices.Reverse(parts)
	return parts
}

// function writes a call by name: its first argument is a column, the others are values. Whether a value may stand there
// too is the function's to say.
func (w *writer) function(e *expr.Expr) error {
	call := e.GetCallExpr()
	for i, arg := range call.GetArgs() {
		var err error
		if constant := arg.GetConstExpr(); i == 0 && (constant == nil || isText(constant)) {
			err = w.operand(arg)
		} else {
			err = w.value(arg)
		}
		if err != nil {
			return err
		}
	}
	w.call(e, call.GetFunction(), len(call.GetArgs()))
	return nil
}

func isText(constant *expr.Constant) bool {
	_, ok := constant.GetConstantKind().(*expr.Constant_StringValue)
	return ok
}

// operand writes what stands on the left: a column, its name in quotes or not, or a function.
func (w *writer) operand(e *expr.Expr) error {
	if call := e.GetCallExpr(); call != nil {
		if isOperator(call.GetFunction()) {
			return failf(w.at(e), "a column's name must stand here, not a condition")
		}
		return w.function(e)
	}
	names := path(e)
	if constant, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue); ok {
		names = []string{constant.StringValue}
	}
	if names == nil {
		return failf(w.at(e), "a column's name must stand here, and the value on the right; put names that are no plain words in double quotes")
	}
	w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Column{Column: &enginev1.ColumnPath{Names: names}}})
	return nil
}

// path returns the names of a column and of nested fields, or nil.
func path(e *expr.Expr) []string {
	switch kind := e.GetExprKind().(type) {
	case *expr.Expr_IdentExpr:
		return []string{kind.IdentExpr.GetName()}
	case *expr.Expr_SelectExpr:
		if names := path(kind.SelectExpr.GetOperand()); names != nil {
			return append(names, kind.SelectExpr.GetField())
		}
	}
	return nil
}

var (
	// conversions are the functions whose text is the value.
	conversions = []string{"timestamp", "date", "duration"}
	// times are the functions that compute a value.
	times = []string{"ago", "minus", "now", "plus"}
)

// value writes what stands on the right.
func (w *writer) value(e *expr.Expr) error {
	if call := e.GetCallExpr(); call != nil {
		args := call.GetArgs()
		if slices.Contains(conversions, call.GetFunction()) && len(args) == 1 && args[0].GetCallExpr() == nil {
			return w.value(args[0])
		}
		if !slices.Contains(times, call.GetFunction()) {
			return failf(w.at(e), "a value must stand here; conditions can't be compared with, and of functions only %s",
				strings.Join(times, "(), ")+"()")
		}
		for _, arg := range args {
			if err := w.value(arg); err != nil {
				return err
			}
		}
		w.call(e, call.GetFunction(), len(args))
		return nil
	}
	if constant := e.GetConstExpr(); constant != nil {
		if text, ok := constant.GetConstantKind().(*expr.Constant_StringValue); ok && !w.bare(e) {
			w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Text{Text: text.StringValue}})
			return nil
		} else if ok {
			// The parser turns the word after a colon into text.
			w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Word{Word: text.StringValue}})
			return nil
		}
		w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Number{Number: w.number(e)}})
		return nil
	}
	if names := path(e); names != nil {
		w.put(e, &enginev1.FilterTerm{Kind: &enginev1.FilterTerm_Word{Word: strings.Join(names, ".")}})
		return nil
	}
	return failf(w.at(e), "a value must stand here")
}

// bare says whether a text was written without quotes.
func (w *writer) bare(e *expr.Expr) bool {
	at := int(w.positions[e.GetId()])
	return at >= len(w.text) || w.text[at] != '"' && w.text[at] != '\''
}

// number returns a number as it was written: the parser's own value may have fewer digits, and takes 010 for eight.
func (w *writer) number(e *expr.Expr) string {
	rest := w.text[w.positions[e.GetId()]:]
	digits := strings.TrimLeft(strings.TrimPrefix(rest, "-"), "0123456789abcdefABCDEFxX.")
	return rest[:len(rest)-len(digits)]
}

func isOperator(function string) bool {
	return slices.Contains(comparators, function) || slices.Contains([]string{
		filtering.FunctionAnd, filtering.FunctionOr, filtering.FunctionNot, filtering.FunctionFuzzyAnd,
	}, function)
}
