package cache

import (
	"strings"
	"testing"
)

func TestCanonicalSQL(t *testing.T) {
	same := [][]string{
		{"SELECT a FROM t", " SELECT\n\ta  FROM t ", "SELECT a -- why\nFROM t", "SELECT/* x */a\r\nFROM t--end", "SELECT a FROM/**/t"},
		{"SELECT 'a  b', \"c  d\"", "SELECT  'a  b',  \"c  d\""},
		{"SELECT $1, $name", "SELECT $1,  $name"},
	}
	for _, texts := range same {
		for _, text := range texts[1:] {
			if got := CanonicalSQL(text); got != CanonicalSQL(texts[0]) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	different := []string{
		"SELECT 'a b'", "SELECT 'a  b'", "SELECT 'a' 'b'", "SELECT 'a''b'", "SELECT \"a b\"", "SELECT 'a -- b'", "SELECT 'a'", "SELECT '/* */'",
		"SELECT a b", "SELECT ab", "SELECT E'\\' -- '", "SELECT E'\\' '", "SELECT $$a  b$$", "SELECT $$a b$$", "SELECT $x$a  b$x$", "SELECT $x$a b$x$",
		"SELECT 1 /* /* */ + 1 */", "SELECT 1 /* /* */ +  1 */", "SELECT `a  b`", "SELECT `a b`", "SELECT 'a  b", "SELECT 'a b", "SELECT 1 -- a\r+1", "SELECT 1 -- b\r+1",
	}
	seen := map[string]string{}
	for _, text := range different {
		canonical := CanonicalSQL(text)
		if other, ok := seen[canonical]; ok {
			t.Errorf("%q and %q are one", text, other)
		}
		seen[canonical] = text
	}
}

func FuzzCanonicalSQL(f *testing.F) {
	for _, seed := range []string{"SELECT  1", "'a' --x\n", "/*a*/ /* b", "$1 $$ x $$", "\"a\"\"b\"  c", "\r", "--\r\n", "a/-b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		once := CanonicalSQL(sql)
		if twice := CanonicalSQL(once); twice != once {
			t.Errorf("%q, then %q", once, twice)
		}
		if len(once) > len(sql) {
			t.Errorf("%q grew to %q", sql, once)
		}
		if bare := strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", ""); !strings.ContainsAny(sql, "-/") && bare.Replace(once) != bare.Replace(sql) {
			t.Errorf("%q lost something: %q", sql, once)
		}
	})
}
