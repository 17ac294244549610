//! The memory that this process may use. The only reader of `/proc/meminfo` and of control groups, both versions.

use std::fs::read_to_string;
use std::path::{Component, Path};

/// What is assumed where the system tells nothing.
const FALLBACK: u64 = 4 << 30;

/// The least of the machine's memory and of every limit that a control group around this process sets.
pub(crate) fn machine_memory() -> u64 {
    memory_below(Path::new("/"))
}

/// The same on the file system that begins at `root`, which tests make up.
fn memory_below(root: &Path) -> u64 {
    let machine = read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total_memory(&text));
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let limits = mounts.lines().filter_map(|line| Mount::parse(line)?.limit(root, &groups));
    limits.chain(machine).min().unwrap_or(FALLBACK)
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A mounted hierarchy of control groups that may limit memory: version 2, or version 1's `memory`.
struct Mount<'a> {
    /// The group that is seen at `point`: not `/` where a container shares the machine's name space of groups.
    group: &'a str,
    point: &'a str,
    unified: bool,
}

impl<'a> Mount<'a> {
    /// Reads a line of mountinfo, see proc(5): `36 35 0:31 GROUP POINT options [tags] - cgroup2 source super-options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (group, point) = (fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let unified = kind == "cgroup2";
        let limits_memory = unified || kind == "cgroup" && options.split(',').any(|option| option == "memory");
        limits_memory.then_some(Mount { group, point, unified })
    }

    /// The least limit of this process's group and of all groups around it that can be seen.
    fn limit(&self, root: &Path, groups: &str) -> Option<u64> {
        let own = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let ours =
                if self.unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == "memory") };
            ours.then_some(Path::new(path))
        });
        // A group outside of what is mounted can't be looked at; what is mounted is around it then, or is it.
        let inside = own.and_then(|path| path.strip_prefix(self.group).ok()).unwrap_or(Path::new(""));
        let inside =
            if inside.components().all(|part| matches!(part, Component::Normal(_))) { inside } else { Path::new("") };
        let file = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        let top = root.join(self.point.trim_start_matches('/'));
        // Where nothing limits, the file holds `max` (version 2) or a number near 2^63 (version 1).
        inside
            .ancestors()
            .filter_map(|group| read_to_string(top.join(group).join(file)).ok()?.trim().parse().ok())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    /// A machine of 8 GiB with these files below its root.
    fn machine(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in [("proc/meminfo", "MemFree: 1 kB\nMemTotal:  8388608 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        memory_below(root.path())
    }

    #[test]
    fn without_groups_the_machine_counts() {
        assert_eq!(machine(&[]), 8 * GIB);
        assert_eq!(memory_below(Path::new("/nowhere")), FALLBACK);
    }

    #[test]
    fn version_2_in_a_container() {
        let at = |max| {
            machine(&[("proc/self/mountinfo", V2), ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", max)])
        };
        assert_eq!(at("1073741824\n"), GIB);
        assert_eq!(at("max\n"), 8 * GIB);
        assert_eq!(at("17179869184\n"), 8 * GIB);
    }

    #[test]
    fn version_2_in_nested_groups() {
        let at = |outer, inner| {
            machine(&[
                ("proc/self/mountinfo", V2),
                ("proc/self/cgroup", "0::/kube.slice/pod.slice/quern.scope\n"),
                ("sys/fs/cgroup/kube.slice/pod.slice/memory.max", outer),
                ("sys/fs/cgroup/kube.slice/pod.slice/quern.scope/memory.max", inner),
                ("sys/fs/cgroup/kube.slice/other.slice/memory.max", "1"),
            ])
        };
        assert_eq!(at("2147483648", "max"), 2 * GIB);
        assert_eq!(at("2147483648", "1073741824"), GIB);
        assert_eq!(at("max", "3221225472"), 3 * GIB);
    }

    #[test]
    fn version_1_alone_and_beside_version_2() {
        let unlimited = "9223372036854771712\n";
        let at = |mounts: &str, outer, inner| {
            machine(&[
                ("proc/self/mountinfo", mounts),
                ("proc/self/cgroup", "5:cpu:/\n4:memory:/docker/c1\n0::/\n"),
                ("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", outer),
                ("sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes", inner),
            ])
        };
        assert_eq!(at(V1, unlimited, unlimited), 8 * GIB);
        assert_eq!(at(V1, unlimited, "1073741824\n"), GIB);
        assert_eq!(at(V1, "1073741824\n", unlimited), GIB);
        let hybrid = format!("{V1}34 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        assert_eq!(at(&hybrid, unlimited, "1073741824\n"), GIB);
    }

    /// Docker mounts the container's own group only, while /proc names it from the machine's root.
    #[test]
    fn only_the_own_group_is_mounted() {
        let at = |group| {
            machine(&[
                (
                    "proc/self/mountinfo",
                    "33 25 0:29 /docker/c1 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n",
                ),
                ("proc/self/cgroup", group),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
                ("memory.limit_in_bytes", "1"),
            ])
        };
        assert_eq!(at("4:memory:/docker/c1\n"), GIB);
        assert_eq!(at("4:memory:/docker/c1/below\n"), GIB);
        assert_eq!(at("4:memory:/../../..\n"), GIB);
        assert_eq!(at(""), GIB);
    }
}
