package e2e

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

// Rows of several files and segments, which readers share, come in the order of all of them, first of files and then of
// memory, whichever way they lie.
func TestOrderOfManyRows(t *testing.T) {
	const rows, files = 360_000, 2
	type row struct {
		id    int
		value string
	}
	all := make([]row, rows)
	for id := range all {
		all[id] = row{id, strconv.Itoa(id * 7919 % 10_007)}
		switch {
		case id%50 == 0:
			all[id].value = ""
		case id > rows/2:
			// The way that the most rows are better than those before.
			all[id].value = strconv.Itoa(id)
		}
	}
	folder := t.TempDir()
	must(t, os.Mkdir(filepath.Join(folder, "t"), 0o700))
	for file := range files {
		var text strings.Builder
		text.WriteString("id,value\n")
		for _, row := range all[rows/files*file : rows/files*(file+1)] {
			fmt.Fprintf(&text, "%d,%s\n", row.id, row.value)
		}
		must(t, os.WriteFile(filepath.Join(folder, "t", fmt.Sprintf("%d.csv", file)), []byte(text.String()), 0o600))
	}
	server := harness.Start(t, folder)
	for _, asked := range []struct {
		order, filter string
		pages, size   int
		keep          func(row) bool
	}{
		{order: "value desc", pages: 4, size: 100},
		{order: "value", pages: 4, size: 77},
		{order: "value desc", filter: "id < 200000", pages: 3, size: 3000, keep: func(r row) bool { return r.id < 200_000 }},
		{order: "value", filter: "value = null", pages: 3, size: 50, keep: func(r row) bool { return r.value == "" }},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(r row) bool { return asked.keep != nil && !asked.keep(r) })
		slices.SortStableFunc(want, func(a, b row) int {
			if a.value == "" || b.value == "" {
				return cmp.Compare(b2i(a.value == ""), b2i(b.value == ""))
			}
			left, _ := strconv.Atoi(a.value)
			right, _ := strconv.Atoi(b.value)
			if strings.HasSuffix(asked.order, "desc") {
				left, right = right, left
			}
			return cmp.Compare(left, right)
		})
		parameters := url.Values{"order_by": {asked.order}, "filter": {asked.filter}, "page_size": {strconv.Itoa(asked.size)}, "fields": {"id"}}
		for number := range asked.pages {
			page := readPage(t, server.URL, "t", parameters)
			ids := page.ids()
			var expected []string
			for _, row := range want[number*asked.size : (number+1)*asked.size] {
				expected = append(expected, strconv.Itoa(row.id))
			}
			if !slices.Equal(ids, expected) {
				t.Fatalf("%s, %q, page %d: %.200v, want %.200v (%d)", asked.order, asked.filter, number+1, ids, expected, page.status)
			}
			parameters.Set("page_token", page.Next)
		}
	}
}

// Pages of more rows than a batch has come in their order where that is computed for each row, as it is for floats.
func TestOrderOfManyFloats(t *testing.T) {
	const rows, size = 30_000, 10_000
	var text strings.Builder
	text.WriteString("id,value\n")
	for id := range rows {
		fmt.Fprintf(&text, "%d,%d.5\n", id, id*7919%rows)
	}
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "t.csv"), []byte(text.String()), 0o600))
	server := harness.Start(t, folder)
	parameters := url.Values{"order_by": {"value"}, "page_size": {strconv.Itoa(size)}, "fields": {"id"}}
	for number := range rows / size {
		page := readPage(t, server.URL, "t", parameters)
		ids := page.ids()
		if len(ids) != size {
			t.Fatalf("page %d has %d rows (%d)", number+1, len(ids), page.status)
		}
		for at, id := range ids {
			if id, err := strconv.Atoi(id); err != nil || id*7919%rows != number*size+at {
				t.Fatalf("row %d of page %d has the id %d (%v)", at, number+1, id, err)
			}
		}
		parameters.Set("page_token", page.Next)
	}
}

func b2i(is bool) int {
	if is {
		return 1
	}
	return 0
}
