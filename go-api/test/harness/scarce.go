package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount puts an empty file system of so many bytes, in memory, over a folder. It needs root. The test's end takes it away.
func Mount(t testing.TB, dir string, bytes int64) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size="+strconv.FormatInt(bytes, 10)); err != nil {
		t.Fatalf("can't mount a file system over %s, which only root may: %v", dir, err)
	}
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
			// Until nothing is mounted there.
			continue
		}
	})
}

// Unmount takes away what Mount has put over a folder, whoever uses it.
func Unmount(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatalf("can't unmount %s: %v", dir, err)
	}
}

// NoMoreFiles lets a process open no file beyond those that it has open, until what it returns is called.
func NoMoreFiles(t testing.TB, pid int) (again func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	// The lowest number that is free is what a new file would get.
	free := uint64(0)
	for {
		if _, err := os.Lstat(filepath.Join("/proc", strconv.Itoa(pid), "fd", strconv.FormatUint(free, 10))); err != nil {
			break
		}
		free++
	}
	limit := unix.Rlimit{Cur: free, Max: before.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
			t.Fatal(err)
		}
	}
}
