//! Which file systems the source folders lie on. What is mounted over a folder, or taken away, makes no event of inotify.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::listing::Root;

const TABLE: &str = "/proc/self/mountinfo";

/// The mounts above and below the source folders.
pub(super) struct Mounts {
    /// The kernel says of it when the table of mounts changes; nothing where there is no such file.
    table: Option<File>,
    known: Vec<String>,
}

impl Mounts {
    pub(super) fn of(roots: &[Root]) -> Self {
        // Opened first, so that no change gets lost between.
        let table = File::open(TABLE).ok();
        Self { table, known: read(roots) }
    }

    /// Whether what concerns the source folders has changed since the last call.
    pub(super) fn changed(&mut self, roots: &[Root]) -> bool {
        let Some(table) = &self.table else { return false };
        let mut asked = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        if !matches!(poll(&mut asked, PollTimeout::ZERO), Ok(1..)) {
            return false;
        }
        let before = std::mem::replace(&mut self.known, read(roots));
        before != self.known
    }
}

fn read(roots: &[Root]) -> Vec<String> {
    let folders: Vec<&Path> = roots
        .iter()
        .filter_map(|root| if let Root::Folder(path) = root { Some(path.as_path()) } else { None })
        .collect();
    // A table that can't be read has changed.
    let table = std::fs::read_to_string(TABLE).unwrap_or_default();
    table.lines().filter(|line| concerns(line, &folders)).map(str::to_owned).collect()
}

/// Whether a line of the table is of a mount above or below one of the folders.
fn concerns(line: &str, folders: &[&Path]) -> bool {
    let Some(point) = line.split(' ').nth(4).map(unescaped) else { return false };
    folders.iter().any(|folder| folder.starts_with(&point) || point.starts_with(folder))
}

/// The kernel writes white space and backslashes in octal (proc_pid_mountinfo(5)).
fn unescaped(point: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(point.to_owned(), |text, (code, character)| text.replace(code, character))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_above_and_below_concern_a_folder() {
        let concerns = |point| {
            let line = format!("36 35 0:31 / {point} rw,noatime master:1 - tmpfs tmpfs rw");
            super::concerns(&line, &[Path::new("/srv/my data")])
        };
        assert!(concerns("/") && concerns("/srv") && concerns("/srv/my\\040data") && concerns("/srv/my\\040data/sub"));
        assert!(!concerns("/srv/other") && !concerns("/srv/my\\040data2"));
        assert!(!super::concerns("rubbish", &[Path::new("/")]));
    }

    #[test]
    fn nothing_changes_by_itself() {
        let root = [Root::Folder(std::env::temp_dir())];
        let mut mounts = Mounts::of(&root);
        assert!(!mounts.known.is_empty() && !mounts.changed(&root));
    }
}
