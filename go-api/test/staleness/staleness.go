// Package staleness checks promise 1 from outside: writers give tables a rising number and note when each change was
// complete, readers note what they saw and when they asked, and every answer is held against the notes.
package staleness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is how a table is changed.
type Kind int

// The kinds.
const (
	// Replaced tables are files that another file is renamed over.
	Replaced Kind = iota
	// Overwritten tables are files written in place; every number has as many digits, so the size stays.
	Overwritten
	// Recreated tables are deleted and written anew.
	Recreated
	// Appended tables get a row more at each change.
	Appended
	// Folders get a file more and lose the one before.
	Folders
	// Linked tables are symbolic links to a file below another link, which comes to lead elsewhere, as Kubernetes mounts
	// ConfigMaps. In a bucket they are files like others.
	Linked
	kinds
)

// Kinds lists all kinds.
func Kinds() []Kind {
	all := make([]Kind, 0, kinds)
	for kind := range kinds {
		all = append(all, kind)
	}
	return all
}

// String returns the table's name.
func (k Kind) String() string {
	return [...]string{"replaced", "overwritten", "recreated", "appended", "folder", "linked"}[k]
}

// SQL asks for the number: `low` and `high` are the same in an answer of one state.
func (k Kind) SQL() string {
	if k == Appended {
		return "SELECT count(*) + 99999 AS low, max(n) AS high FROM appended"
	}
	return "SELECT min(n) AS low, max(n) AS high FROM " + k.String()
}

// first is the number that tables begin with; all numbers have as many digits.
const first = 100_000

// Bucket is where objects are written whole.
type Bucket interface {
	Write(name string, content []byte) error
	Remove(name string) error
}

// Writer changes one table.
type Writer struct {
	kind   Kind
	dir    string
	bucket Bucket

	mu sync.Mutex
	// began and ended hold when the change to number first+i began and was complete.
	began, ended []time.Time
}

// NewWriter makes the table in a served folder. An engine that runs as another user can read it.
func NewWriter(kind Kind, dir string) (*Writer, error) {
	w := &Writer{kind: kind, dir: dir}
	if kind == Folders {
		if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o755); err != nil {
			return nil, err
		}
	}
	return w, w.Change()
}

// NewBucketWriter makes the table in a served bucket.
func NewBucketWriter(kind Kind, bucket Bucket) (*Writer, error) {
	w := &Writer{kind: kind, bucket: bucket}
	return w, w.Change()
}

// Change gives the table its next number.
func (w *Writer) Change() error {
	w.mu.Lock()
	number := first + len(w.began)
	w.began = append(w.began, time.Now())
	w.mu.Unlock()
	if err := w.write(number); err != nil {
		return fmt.Errorf("change %s: %w", w.kind, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, time.Now())
	return nil
}

func (w *Writer) write(number int) error {
	path := filepath.Join(w.dir, w.kind.String()+".csv")
	content := []byte("n\n" + strings.Repeat(fmt.Sprintf("%d\n", number), 20))
	if w.bucket != nil {
		return w.writeObject(number, content)
	}
	switch w.kind {
	case Overwritten:
		return os.WriteFile(path, content, 0o644)
	case Recreated:
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		return w.renamed(path, content)
	case Appended:
		if number == first {
			return os.WriteFile(path, fmt.Appendf(nil, "n\n%d\n", number), 0o644)
		}
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(file, "%d\n", number); err != nil {
			return err
		}
		return file.Close()
	case Folders:
		if err := w.renamed(filepath.Join(w.dir, "folder", fmt.Sprintf("%d.csv", number)), content); err != nil || number == first {
			return err
		}
		return os.Remove(filepath.Join(w.dir, "folder", fmt.Sprintf("%d.csv", number-1)))
	case Linked:
		return w.relink(path, number, content)
	case Replaced, kinds:
	}
	return w.renamed(path, content)
}

func (w *Writer) writeObject(number int, content []byte) error {
	name := w.kind.String() + ".csv"
	switch w.kind {
	case Recreated:
		if err := w.bucket.Remove(name); err != nil {
			return err
		}
	case Appended:
		var text strings.Builder
		text.WriteString("n\n")
		for n := first; n <= number; n++ {
			fmt.Fprintln(&text, n)
		}
		content = []byte(text.String())
	case Folders:
		if err := w.bucket.Write(fmt.Sprintf("folder/%d.csv", number), content); err != nil || number == first {
			return err
		}
		return w.bucket.Remove(fmt.Sprintf("folder/%d.csv", number-1))
	case Replaced, Overwritten, Linked, kinds:
	}
	return w.bucket.Write(name, content)
}

// relink writes the file to a folder of its own, and has the link to the folder lead there. Nothing changes beside the
// link to the file.
func (w *Writer) relink(path string, number int, content []byte) error {
	volume := filepath.Join(w.dir, ".volume")
	if number == first {
		if err := os.MkdirAll(volume, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join(".volume", "current", "linked.csv"), path); err != nil {
			return err
		}
	}
	version := filepath.Join(volume, strconv.Itoa(number))
	if err := os.Mkdir(version, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(version, "linked.csv"), content, 0o644); err != nil {
		return err
	}
	link := filepath.Join(volume, "new")
	if err := os.Symlink(strconv.Itoa(number), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(volume, "current")); err != nil || number == first {
		return err
	}
	return os.RemoveAll(filepath.Join(volume, strconv.Itoa(number-1)))
}

// renamed lets a file appear whole.
func (w *Writer) renamed(path string, content []byte) error {
	hidden := filepath.Join(w.dir, "."+w.kind.String()+".tmp")
	if err := os.WriteFile(hidden, content, 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, path)
}

// Answer is what a reader saw.
type Answer struct {
	// Kind is the table's.
	Kind Kind
	// Low and High are the least and greatest number in the answer.
	Low, High int
	// Asked is when the request was about to be sent, Got when the answer was there.
	Asked, Got time.Time
	// Bound is how old the state may be.
	Bound time.Duration
}

// Judge returns what is wrong with an answer, nil where nothing is, and how old its state was at most.
func (w *Writer) Judge(a Answer) (age time.Duration, wrong error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A folder has two files for a moment, by the order in which its change is made.
	mixed := a.Kind == Folders && a.High == a.Low+1
	if a.Low != a.High && !mixed {
		return 0, fmt.Errorf("%s: the answer is of two states, %d and %d", a.Kind, a.Low, a.High)
	}
	at := a.High - first
	if at < 0 || at >= len(w.began) || w.began[at].After(a.Got) {
		return 0, fmt.Errorf("%s: %d was answered before it was written", a.Kind, a.High)
	}
	next := at + 1
	if mixed {
		// The older file was gone when this very change was complete.
		next = at
	}
	if next < len(w.ended) {
		age = max(a.Asked.Sub(w.ended[next]), 0)
	}
	if age > a.Bound {
		return age, fmt.Errorf("%s: %d to %d was answered to a request of %s after the next change was complete, allowed are %s",
			a.Kind, a.Low, a.High, age, a.Bound)
	}
	return age, nil
}
