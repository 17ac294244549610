package fingerprint

import (
	"strings"
	"testing"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/rowquery"
)

func sql(text string) string {
	_, shape := Of(&enginev1.ExecuteRequest{Sql: text})
	return shape
}

func TestSQL(t *testing.T) {
	cases := map[string]string{
		"SELECT a FROM t WHERE b = 'x' AND c > 1.5e-3":     "select a from t where b = ? and c > ?",
		"select  A\n from t -- it's\nwhere b IN (1, 2, 3)": "select a from t where b in ( ? )",
		"SELECT 'it''s', $1, $name":                        "select ?, $1, $name",
		`SELECT "Order Id" FROM "t""u" LIMIT 10`:           `select "Order Id" from "t""u" limit ?`,
		`SELECT E'a\'secret', b`:                           "select ?, b",
		`SELECT 'a\' OR secret = 'b'`:                      "select ? …",
		"SELECT $$secret$$, $q$se'cret$q$, x'00ff' a":      "select ? a",
		"SELECT /* 'a /* b */ 'c' */ 1 + 0xff":             "select ? + ?",
		"SELECT 'secret":                                   "select ?",
		`SELECT "secret`:                                   "select …",
		"SELECT t1.c2, .5":                                 "select t1 . c2, ?",
	}
	for text, want := range cases {
		if got := sql(text); got != want {
			t.Errorf("%s\n became %s\n not    %s", text, got, want)
		}
	}
	long := sql("SELECT " + strings.Repeat("a + ", 10_000))
	if len(long) > mostBytes+len(rest) || !strings.HasSuffix(long, rest) {
		t.Error(len(long))
	}
}

func TestNamesAreOfShapes(t *testing.T) {
	name := func(text string) string {
		name, _ := Of(&enginev1.ExecuteRequest{Sql: text})
		return name
	}
	if name("select a from t where b = 1") != name("SELECT a FROM t  WHERE b = 22 -- x") {
		t.Error("literals and white space tell statements apart")
	}
	if name("select a from t") == name("select b from t") || len(name("select 1")) != 16 {
		t.Error(name("select a from t"), name("select b from t"))
	}
}

func TestRows(t *testing.T) {
	filter, err := rowquery.Filter(`name = "secret" AND (delay > 31337 OR origin = hidden) AND at < ago(24h)`)
	if err != nil {
		t.Fatal(err)
	}
	order, err := rowquery.Order("delay desc, name")
	if err != nil {
		t.Fatal(err)
	}
	_, shape := Of(&enginev1.ExecuteRequest{Rows: &enginev1.ReadRows{Table: "flights", Filter: filter, OrderBy: order, PageToken: "tok", Count: true}})
	for _, word := range []string{"secret", "31337", "hidden", "24h", "tok"} {
		if strings.Contains(shape, word) {
			t.Errorf("%s is in %s", word, shape)
		}
	}
	const ends = " order by delay desc, name next page count"
	if !strings.HasPrefix(shape, "rows of flights filter AND(") || !strings.HasSuffix(shape, ends) || !strings.Contains(shape, "=(name, ?)") {
		t.Error(shape)
	}
	_, shape = Of(&enginev1.ExecuteRequest{Rows: &enginev1.ReadRows{
		Table: "t", Key: &enginev1.RowKey{Columns: []*enginev1.ColumnPath{{Names: []string{"id"}}}, Values: []string{"secret"}},
	}})
	if shape != "rows of t by key id" {
		t.Error(shape)
	}
}

// FuzzSQL puts a literal behind any text that leaves a lexer of standard SQL outside of quotes and comments.
func FuzzSQL(f *testing.F) {
	f.Add("select 1")
	f.Add(`select "a" /* b */ from t where c = `)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "'\"`$\\/-#") || strings.Contains(text, "zq") {
			return
		}
		if shape := ofSQL(text + " 'zq9secret' 77zq"); strings.Contains(shape, "zq") {
			t.Error(shape)
		}
	})
}
