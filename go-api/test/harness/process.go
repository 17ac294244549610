package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Process is what /proc says of a process at one moment.
type Process struct {
	// Pid is the process id.
	Pid int
	// Parent is the parent's process id.
	Parent int
	// State is the kernel's letter: R, S, Z …
	State string
	// CPU is the processor time used so far, in user and kernel together.
	CPU time.Duration
}

// Engine returns the edge's child process that is the engine, waiting for it for a while.
func (s *Server) Engine(t testing.TB) Process {
	t.Helper()
	var engine Process
	Eventually(t, startTimeout, "the edge has an engine", func() bool {
		for _, process := range processes() {
			if process.Parent == s.Pid() && process.State != "Z" {
				engine = process
				return true
			}
		}
		return false
	})
	return engine
}

// ReadProcess reads /proc for one process; ok is false where it is gone or a zombie.
func ReadProcess(pid int) (process Process, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return Process{}, false
	}
	// The name in parentheses may hold spaces: fields are counted from behind it.
	_, rest, found := strings.Cut(string(text), ") ")
	if !found {
		return Process{}, false
	}
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return Process{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	user, _ := strconv.Atoi(fields[11])
	kernel, _ := strconv.Atoi(fields[12])
	// The kernel's clock tick is 10 ms on every Linux that Go supports.
	cpu := time.Duration(user+kernel) * 10 * time.Millisecond
	return Process{Pid: pid, Parent: parent, State: fields[0], CPU: cpu}, fields[0] != "Z"
}

// ResidentMiB returns a process's resident memory, and the most it ever had, in MiB.
func ResidentMiB(t testing.TB, pid int) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatalf("process %d is gone: %v", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			peak = kib / 1024
		}
	}
	return now, peak
}

// UnixSockets returns the paths of the Unix sockets that a process listens on.
func UnixSockets(t testing.TB, pid int) []string {
	t.Helper()
	inodes := map[string]bool{}
	links, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, "socket:[") {
			inodes[strings.Trim(target, "socket:[]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) == 8 && inodes[fields[6]] && strings.HasPrefix(fields[7], "/") {
			paths = append(paths, fields[7])
		}
	}
	// That of gRPC comes before the one beside it, whose name has something after.
	slices.Sort(paths)
	return slices.Compact(paths)
}

func processes() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if process, ok := ReadProcess(pid); ok {
			found = append(found, process)
		}
	}
	return found
}
