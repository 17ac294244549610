//! When a file's change time can be relied on.
//!
//! Many kernels and file systems advance a file's change time only once a tick, up to 10 ms: a second write within the
//! tick leaves size and times as a look in between saw them. Since Linux 6.13, ext4, xfs, btrfs and tmpfs give a change
//! that follows a look a time of its own ("multigrain timestamps"). Elsewhere a file counts as unsettled until a tick
//! has passed since its last change, and what is unsettled never has the same identity twice.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than the longest tick (100 Hz).
pub(crate) const TICK: Duration = Duration::from_millis(12);

/// File systems whose changes inotify reports, whoever on this machine makes them.
const WATCHABLE: &[&str] = &["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"];
/// File systems with multigrain timestamps, on kernels that have them.
const MULTIGRAIN: &[&str] = &["ext4", "xfs", "btrfs", "tmpfs"];

/// What is known of this machine's file systems, by device. A device that is not known is trusted with nothing.
#[derive(Debug, Default)]
pub struct FileSystems(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    fine: HashSet<u64>,
    watchable: HashSet<u64>,
}

impl FileSystems {
    /// Reads the kernel's version and its table of mounts.
    pub fn detect() -> Self {
        Self(RwLock::new(Known::read()))
    }

    /// Reads them again.
    pub(crate) fn refresh(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known::read();
    }

    fn known(&self, holds: impl FnOnce(&Known) -> bool) -> bool {
        holds(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether inotify reports all changes on a file's device.
    pub(crate) fn watchable(&self, metadata: &Metadata) -> bool {
        self.known(|known| known.watchable.contains(&metadata.dev()))
    }

    /// Whether a change after `now`, when `metadata` was taken, would surely show.
    pub(crate) fn settled(&self, metadata: &Metadata, now: SystemTime) -> bool {
        if self.known(|known| known.fine.contains(&metadata.dev())) {
            return true;
        }
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let changed = UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).unwrap_or_default());
        now.duration_since(changed).is_ok_and(|age| age >= TICK)
    }
}

impl Known {
    fn read() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&release, &mounts)
    }

    fn parse(release: &str, mounts: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
        let multigrain = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 13);
        let mut found = Self::default();
        for (device, kind) in mounts.lines().filter_map(mount) {
            if WATCHABLE.contains(&kind) {
                found.watchable.insert(device);
            }
            if multigrain && MULTIGRAIN.contains(&kind) {
                found.fine.insert(device);
            }
        }
        found
    }
}

/// The device and type of one line of mountinfo (proc_pid_mountinfo(5)).
fn mount(line: &str) -> Option<(u64, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
    let (major, minor) = (major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?);
    // The C library's makedev.
    let device = (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32;
    Some((device, after.split(' ').next()?))
}

/// A word that no other identity has.
pub(super) fn once() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("unsettled-{now:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                          23 22 0:40 / /mnt/far rw - nfs4 host:/x rw\n\
                          24 22 0:41 / /old rw - overlay overlay rw\nrubbish\n";

    #[test]
    fn kernels_and_file_systems_are_told_apart() {
        let new = Known::parse("6.18.44-x", MOUNTS);
        assert_eq!((new.fine.len(), new.watchable.len()), (1, 2));
        let old = Known::parse("6.1.0", MOUNTS);
        assert_eq!((old.fine.len(), old.watchable.len()), (0, 2));
        assert!(Known::parse("", "").watchable.is_empty());
    }

    #[test]
    fn the_device_number_is_that_of_stat() {
        let root = fs::metadata("/").expect("there is a root");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("Linux");
        let devices: HashSet<u64> = mounts.lines().filter_map(mount).map(|(device, _)| device).collect();
        assert!(devices.contains(&root.dev()), "{} is none of {devices:?}", root.dev());
    }

    #[test]
    fn words_differ() {
        assert_ne!(once(), once());
    }
}
