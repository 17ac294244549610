package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// smallMemory is the engine's container while hostile clients ask.
const smallMemory = 512 * mib

// checkHostileClients gives the engine little memory and lets eight clients ask what would take all there is. Its process must
// live through that.
func (f *fleet) checkHostileClients(t *testing.T) {
	f.env = append(f.env, fmt.Sprintf("QUERN_ENGINE_MEMORY=%d", smallMemory))
	f.run(t, ".ci/docker-compose", "up", "--detach", "--no-build", "--no-deps", "engine")
	f.awaitHealthy(t, "engine")
	for _, edge := range f.edges {
		edge.WaitReady(t)
	}
	before := f.container(t, "engine")
	// Long after the time within which an edge must know of another engine's tables.
	time.Sleep(time.Second)
	f.runEndToEnd(t, "^TestHostileClients$", f.proxy)
	after := f.container(t, "engine")
	if after.RestartCount != before.RestartCount || after.State.Pid != before.State.Pid || after.State.OOMKilled {
		t.Errorf("the engine was killed: %+v became %+v", before.State, after.State)
	}
	if kills := killed(t, after.State.Pid); kills != 0 {
		t.Errorf("the kernel killed %d processes of the engine's container", kills)
	}
}

// killed returns how many processes of a control group the kernel has killed for want of memory, in versions 1 and 2.
func killed(t *testing.T, pid int) int {
	t.Helper()
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var path string
		switch fields[1] {
		case "memory":
			path = filepath.Join("/sys/fs/cgroup/memory", fields[2], "memory.oom_control")
		case "":
			path = filepath.Join("/sys/fs/cgroup", fields[2], "memory.events")
		default:
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			// The other version's.
			continue
		}
		for line := range strings.Lines(string(text)) {
			if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
				number, err := strconv.Atoi(count)
				if err != nil {
					t.Fatal(err)
				}
				return number
			}
		}
	}
	t.Log("the kernel does not say how many it has killed")
	return 0
}
