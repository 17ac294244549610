package fingerprint

import (
	"strings"
	"unicode/utf8"
)

// ofSQL writes a statement's tokens with a space between them, words in lower case, literals as question marks and lists
// of those as one.
func ofSQL(sql string) string {
	s := scanner{text: sql}
	for !s.done && s.at < len(s.text) && s.out.Len() <= 4*mostBytes {
		s.next()
	}
	return s.out.String()
}

// scanner reads a statement. It errs on the side of leaving out: what may be part of a literal is not written.
type scanner struct {
	text string
	at   int
	out  strings.Builder
	done bool
	// last is the token before, and before the one before that.
	last, before string
}

func (s *scanner) next() {
	char, left := s.text[s.at], s.text[s.at:]
	switch {
	case strings.IndexByte(" \t\n\r\f\v", char) >= 0:
		s.at++
	case strings.HasPrefix(left, "--"):
		s.skip(strings.IndexByte(left, '\n'))
	case strings.HasPrefix(left, "/*"):
		s.comment()
	case char == '\'':
		s.quoted(false)
	case char == '"' || char == '`':
		s.name(char)
	case char == '$':
		s.dollar()
	case isDigit(char) || char == '.' && len(left) > 1 && isDigit(left[1]):
		s.number()
	case isWord(char):
		s.word()
	default:
		s.at++
		s.write(string(char))
	}
}

// skip goes on behind a text that ends there; one that has no end takes all.
func (s *scanner) skip(end int) {
	if end < 0 {
		s.at = len(s.text)
		return
	}
	s.at += end + 1
}

// comment goes over a comment and those inside it.
func (s *scanner) comment() {
	depth := 0
	for s.at < len(s.text) {
		switch left := s.text[s.at:]; {
		case strings.HasPrefix(left, "/*"):
			depth++
			s.at += 2
		case strings.HasPrefix(left, "*/"):
			depth--
			s.at += 2
		default:
			s.at++
		}
		if depth == 0 {
			return
		}
	}
}

// quoted goes over a text in quotes. Where escapes count, a backslash takes what follows; where they don't, dialects
// differ in what it means, and the rest is left out.
func (s *scanner) quoted(escapes bool) {
	s.write(literal)
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			if !escapes {
				s.giveUp()
				return
			}
			s.at++
		case '\'':
			s.at++
			if s.at == len(s.text) || s.text[s.at] != '\'' {
				return
			}
		}
	}
}

// giveUp leaves out the rest.
func (s *scanner) giveUp() {
	s.done = true
	s.out.WriteString(" " + rest)
}

// name writes a name in quotes as it is; one that has no end may be anything.
func (s *scanner) name(quote byte) {
	end := s.at + 1
	for end < len(s.text) {
		if s.text[end] != quote {
			end++
			continue
		}
		if end+1 < len(s.text) && s.text[end+1] == quote {
			end += 2
			continue
		}
		s.write(s.text[s.at : end+1])
		s.at = end + 1
		return
	}
	s.giveUp()
}

// dollar writes a placeholder, or goes over a text in dollar quotes.
func (s *scanner) dollar() {
	end := s.at + 1
	for end < len(s.text) && isWord(s.text[end]) && s.text[end] != '$' {
		end++
	}
	if end == len(s.text) || s.text[end] != '$' {
		s.write(s.text[s.at:end])
		s.at = end
		return
	}
	quote := s.text[s.at : end+1]
	s.write(literal)
	closing := strings.Index(s.text[end+1:], quote)
	if closing < 0 {
		s.giveUp()
		return
	}
	s.at = end + 1 + closing + len(quote)
}

// number goes over a number: digits, a fraction, an exponent, hexadecimal digits.
func (s *scanner) number() {
	for s.at < len(s.text) && (isWord(s.text[s.at]) || s.text[s.at] == '.' || s.isSign()) {
		s.at++
	}
	s.write(literal)
}

// isSign says whether an exponent's sign stands here.
func (s *scanner) isSign() bool {
	char, before := s.text[s.at], s.text[s.at-1]
	return (char == '+' || char == '-') && (before == 'e' || before == 'E')
}

// word writes a keyword or name, and goes over a literal that it introduces, such as X'00'.
func (s *scanner) word() {
	start := s.at
	for s.at < len(s.text) && (isWord(s.text[s.at]) || isDigit(s.text[s.at])) {
		s.at++
	}
	word := s.text[start:s.at]
	if s.at < len(s.text) && s.text[s.at] == '\'' {
		s.quoted(strings.EqualFold(word, "e"))
		return
	}
	if !utf8.ValidString(word) {
		s.giveUp()
		return
	}
	s.write(strings.ToLower(word))
}

// write adds a token. A list of literals is written once, whatever its length.
func (s *scanner) write(token string) {
	if token == literal && s.last == "," && s.before == literal {
		s.last, s.before = literal, ""
		return
	}
	s.before, s.last = s.last, token
	if token == "," {
		// Written with what follows, unless that is one more literal.
		return
	}
	if s.before == "," {
		s.out.WriteString(",")
	}
	if s.out.Len() > 0 {
		s.out.WriteByte(' ')
	}
	s.out.WriteString(token)
}

func isDigit(char byte) bool { return char >= '0' && char <= '9' }

func isWord(char byte) bool {
	return char == '_' || char >= utf8.RuneSelf || char >= 'a' && char <= 'z' || char >= 'A' && char <= 'Z' || isDigit(char)
}
