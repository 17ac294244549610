package cache

import "strings"

// CanonicalSQL returns the statement with each run of white space and comments outside quotes as one space, and none
// at the ends. Two statements of one canonical text have the same tokens. Where the text holds something whose quoting
// depends on the dialect (backslashes, dollar quotes, backticks, carriage returns alone, hints in comments, an end
// inside a quote or comment), it is returned as it is.
func CanonicalSQL(sql string) string {
	if strings.ContainsAny(sql, "\\$`#\x00") && !onlyParameters(sql) {
		return sql
	}
	var out strings.Builder
	out.Grow(len(sql))
	pending := false
	for at := 0; at < len(sql); {
		end, blank := token(sql, at)
		if end < 0 {
			return sql
		}
		if blank {
			pending = out.Len() > 0
		} else {
			if pending {
				out.WriteByte(' ')
				pending = false
			}
			out.WriteString(sql[at:end])
		}
		at = end
	}
	return out.String()
}

// onlyParameters says that what can start a quote in some dialect is only ever the `$` of a placeholder: `$` before a
// letter or digit, and no second `$` that would close a dollar quote.
func onlyParameters(sql string) bool {
	if strings.ContainsAny(sql, "\\`#\x00") {
		return false
	}
	for at := 0; at < len(sql); at++ {
		if sql[at] != '$' {
			continue
		}
		end := at + 1
		for end < len(sql) && isWord(sql[end]) {
			end++
		}
		if end == at+1 || (end < len(sql) && sql[end] == '$') {
			return false
		}
		at = end - 1
	}
	return true
}

func isWord(char byte) bool {
	return char == '_' || char >= '0' && char <= '9' || char >= 'a' && char <= 'z' || char >= 'A' && char <= 'Z'
}

// token returns where the piece of text at `at` ends, -1 where that can't be told, and whether it is blank: white
// space or a comment.
func token(sql string, at int) (int, bool) {
	switch char := sql[at]; {
	case char == ' ' || char == '\t' || char == '\n':
		return at + 1, true
	case char == '\r':
		if !strings.HasPrefix(sql[at:], "\r\n") {
			return -1, false
		}
		return at + 2, true
	case char == '\'' || char == '"':
		return quoted(sql, at), false
	case strings.HasPrefix(sql[at:], "--"):
		return lineComment(sql, at), true
	case strings.HasPrefix(sql[at:], "/*"):
		return blockComment(sql, at), true
	default:
		// What is not special goes over as a run.
		if end := strings.IndexAny(sql[at+1:], " \t\n\r'\"-/"); end >= 0 {
			return at + 1 + end, false
		}
		return len(sql), false
	}
}

// quoted returns the end of a text or name in quotes. A doubled quote inside starts the next one at once, which comes
// to the same.
func quoted(sql string, at int) int {
	end := strings.IndexByte(sql[at+1:], sql[at])
	if end < 0 {
		return -1
	}
	return at + 1 + end + 1
}

// lineComment returns the end of a comment that starts with two dashes. A carriage return alone ends it in some
// dialects and not in others.
func lineComment(sql string, at int) int {
	end := strings.IndexByte(sql[at:], '\n')
	if end < 0 {
		end = len(sql) - at
	}
	if bare := strings.IndexByte(sql[at:at+end], '\r'); bare >= 0 && bare != end-1 {
		return -1
	}
	return at + end
}

// blockComment returns the end of a comment between slash and star. One that holds another, or is a hint, depends on
// the dialect.
func blockComment(sql string, at int) int {
	inner := sql[at+2:]
	end := strings.Index(inner, "*/")
	if end < 0 || strings.Contains(inner[:end], "/*") || strings.HasPrefix(inner, "!") || strings.HasPrefix(inner, "+") {
		return -1
	}
	return at + 2 + end + 2
}
