package rowquery

import (
	"regexp"
	"slices"
	"strings"

	"go.einride.tech/aip/filtering"
)

var (
	// duration is what AIP-160 writes 20s or 1.2s, with more units than seconds.
	duration = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$`)
	// digitWord is any word that begins with a digit.
	digitWord = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?[\pL_][\pL\pN_]*$`)
)

// quoted is a filter whose durations, and other words that begin with a digit, stand in quotes: the library takes them for
// a number and a word side by side.
type quoted struct {
	text string
	// added holds where in text the quotes are, in order.
	added []int
}

// quoteWords puts the words of a text that begin with a digit in quotes. all are its tokens.
func quoteWords(text string, all []filtering.Token) (quoted, error) {
	var out strings.Builder
	var added []int
	for at := 0; at < len(all); {
		end := at
		for end < len(all) && partOfWord(all[end].Type) {
			end++
		}
		if end == at {
			out.WriteString(all[at].Value)
			at++
			continue
		}
		from, to := int(all[at].Position.Offset), len(text)
		if end < len(all) {
			to = int(all[end].Position.Offset)
		}
		word := text[from:to]
		isDuration := duration.MatchString(word)
		if isDuration && at > 0 && all[at-1].Type == filtering.TokenTypeMinus {
			return quoted{}, failf(from-1, "durations have no sign; write plus() for later, and minus() or ago() for earlier")
		}
		if isDuration || digitWord.MatchString(word) {
			added = append(added, out.Len(), out.Len()+len(word)+1)
			out.WriteString(`"` + word + `"`)
		} else {
			out.WriteString(word)
		}
		at = end
	}
	return quoted{text: out.String(), added: added}, nil
}

func partOfWord(token filtering.TokenType) bool {
	return token == filtering.TokenTypeNumber || token == filtering.TokenTypeDot || token == filtering.TokenTypeText
}

// original returns where in the text as it was given a place is.
func (q quoted) original(at int) int {
	before, _ := slices.BinarySearch(q.added, at)
	return at - before
}
