package rest

import "strings"

// matches says whether If-None-Match names a result's tag, in whatever coding, or is `*` (RFC 9110, 13.1.2). Weak and
// strong tags are alike here (8.8.3.2). What can't be read matches nothing.
func matches(lines []string, tag string) bool {
	for _, line := range lines {
		rest := line
		for {
			rest = strings.TrimLeft(rest, " \t,")
			if rest == "" {
				break
			}
			if rest == "*" {
				return true
			}
			rest = strings.TrimPrefix(rest, "W/")
			opaque, after, found := strings.Cut(strings.TrimPrefix(rest, `"`), `"`)
			if !found || rest[0] != '"' {
				break
			}
			if named, _, _ := strings.Cut(opaque, "-"); named == tag {
				return true
			}
			rest = after
		}
	}
	return false
}
