package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// duckDB is a Python process with a DuckDB that stays open and answers each line with one.
type duckDB struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
}

// startDuckDB runs a script that says on its own first lines what it reads and writes.
func startDuckDB(ctx context.Context, s settings, script string, args ...string) (*duckDB, error) {
	//nolint:gosec // The interpreter that the caller names.
	command := exec.CommandContext(ctx, s.python, append([]string{script}, args...)...)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &duckDB{cmd: command, in: in, answers: bufio.NewScanner(out)}, command.Start()
}

func (d *duckDB) stop() {
	_ = d.in.Close()
	_ = d.cmd.Wait()
}

// answer sends a line, and scans the line that comes back: the seconds that it took, and what else the script says.
func (d *duckDB) answer(line string, more ...any) (time.Duration, error) {
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		return 0, err
	}
	if !d.answers.Scan() {
		return 0, errors.New("duckdb ended")
	}
	var seconds float64
	_, err := fmt.Sscan(d.answers.Text(), append([]any{&seconds}, more...)...)
	return time.Duration(seconds * float64(time.Second)), err
}

// query executes SQL and fetches all rows to Python.
func (d *duckDB) query(sql string) (took time.Duration, rows int64, err error) {
	line, err := json.Marshal(sql)
	if err != nil {
		return 0, 0, err
	}
	took, err = d.answer(string(line), &rows)
	return took, rows, err
}
