//! Changes on real folders, as a subscriber learns of them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A subscriber that applies events.
struct Seen {
    watcher: Watcher,
    tables: BTreeMap<String, String>,
    events: broadcast::Receiver<Event>,
}

impl Seen {
    fn start(root: &Path) -> Self {
        let watcher = Watcher::start([Root::Folder(root.to_owned())].into(), Arc::new(FileSystems::detect()), SAFETY);
        let (_, events) = watcher.subscribe();
        let mut seen = Self { watcher, tables: BTreeMap::new(), events };
        seen.until("the first picture", |_, well| well);
        (seen.tables, seen.events) = match seen.watcher.subscribe() {
            (Some(tables), events) => (tables, events),
            (None, _) => panic!("well, and nothing known"),
        };
        seen
    }

    /// Waits until what events told satisfies `done`.
    fn until(&mut self, what: &str, done: impl Fn(&BTreeMap<String, String>, bool) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(&self.tables, self.watcher.is_well()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.tables);
            match self.events.try_recv() {
                Ok(Event::Changes { changed, removed }) => {
                    self.tables.extend(changed.into_iter().map(|t| (t.table, t.snapshot)));
                    self.tables.retain(|name, _| !removed.contains(name));
                }
                Ok(Event::Behind) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Waits until a table has another snapshot than before.
    fn changes(&mut self, what: &str, table: &str, change: impl FnOnce()) {
        let before = self.tables.get(table).cloned();
        change();
        self.until(what, |tables, _| tables.contains_key(table) && tables.get(table) != before.as_ref());
    }
}

#[test]
fn every_kind_of_change_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = dir.path();
    let file = root.join("a.csv");
    fs::write(&file, "x\n1\n").expect("write");
    let mut seen = Seen::start(root);
    assert_eq!(seen.tables.len(), 1);

    seen.changes("append", "a", || {
        let mut open = File::options().append(true).open(&file).expect("open");
        open.write_all(b"2\n").expect("append");
    });
    seen.changes("other bytes of the same size", "a", || fs::write(&file, "x\n3\n4\n").expect("write"));
    seen.changes("rename over", "a", || {
        fs::write(root.join("b.tmp"), "x\n3\n4\n").expect("write");
        fs::rename(root.join("b.tmp"), &file).expect("rename");
    });
    fs::remove_file(&file).expect("remove");
    seen.until("delete", |tables, _| tables.is_empty());
    seen.changes("recreate", "a", || fs::write(&file, "x\n3\n4\n").expect("write"));
    seen.changes("a folder with a file in it at once", "f", || {
        fs::create_dir_all(root.join("f/deep/er")).expect("mkdir");
        fs::write(root.join("f/deep/er/1.csv"), "x\n1\n").expect("write");
    });
    seen.changes("a file added deep below", "f", || fs::write(root.join("f/deep/er/2.csv"), "x\n").expect("write"));
    seen.changes("a file taken away", "f", || fs::remove_file(root.join("f/deep/er/2.csv")).expect("remove"));
    seen.changes("a write deep below", "f", || fs::write(root.join("f/deep/er/1.csv"), "x\n9\n").expect("write"));
}

#[test]
fn what_lies_elsewhere_is_polled() {
    let dir = tempfile::tempdir().expect("temp dir");
    let other = tempfile::tempdir().expect("temp dir");
    let (one, two) = (other.path().join("1.csv"), other.path().join("2.csv"));
    fs::write(&one, "x\n1\n").expect("write");
    fs::write(&two, "x\n1\n").expect("write");
    let link = dir.path().join("a.csv");
    symlink(&one, &link).expect("symlink");
    fs::hard_link(&one, dir.path().join("hard.csv")).expect("hard link");
    let mut seen = Seen::start(dir.path());
    seen.changes("the target is written", "a", || fs::write(&one, "x\n2\n").expect("write"));
    seen.changes("the file is written under its other name", "hard", || fs::write(&one, "x\n3\n").expect("write"));
    seen.changes("the link points elsewhere", "a", || {
        symlink(&two, dir.path().join("new.tmp")).expect("symlink");
        fs::rename(dir.path().join("new.tmp"), &link).expect("rename");
    });
}

#[test]
fn many_tables_and_a_storm() {
    let dir = tempfile::tempdir().expect("temp dir");
    for i in 0..1_000 {
        fs::write(dir.path().join(format!("t{i}.csv")), "x\n1\n").expect("write");
    }
    let mut seen = Seen::start(dir.path());
    assert_eq!(seen.tables.len(), 1_000);
    let before = seen.tables.clone();
    for i in 0..1_000 {
        fs::write(dir.path().join(format!("t{i}.csv")), "x\n2\n").expect("write");
    }
    seen.until("all changed", |tables, _| tables.iter().all(|(name, id)| before.get(name) != Some(id)));
}

#[test]
fn a_root_that_is_gone_is_nothing_known() {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = dir.path().join("data");
    fs::create_dir(&root).expect("mkdir");
    fs::write(root.join("a.csv"), "x\n1\n").expect("write");
    let mut seen = Seen::start(&root);
    fs::rename(&root, dir.path().join("gone")).expect("rename");
    seen.until("not well", |_, well| !well);
    assert!(seen.watcher.subscribe().0.is_none());
    fs::rename(dir.path().join("gone"), &root).expect("rename");
    seen.until("well again", |tables, well| well && tables.len() == 1);
    seen.changes("watched again", "a", || fs::write(root.join("a.csv"), "x\n2\n").expect("write"));
}

#[test]
fn coarse_clocks_give_no_id_twice_before_a_tick_has_passed() {
    use crate::listing::list;
    use std::collections::BTreeSet;

    let dir = tempfile::tempdir().expect("temp dir");
    let id = |systems: &FileSystems| {
        let listing = list(&[Root::Folder(dir.path().to_owned())], None, systems).expect("lists");
        let table = listing.tables["a"].clone().expect("a table");
        (table.snapshot_id(), table.settled())
    };
    let coarse = FileSystems::default();
    fs::write(dir.path().join("a.csv"), "x\n1\n").expect("write");
    let young: BTreeSet<_> = (0..5).map(|_| id(&coarse)).collect();
    // On a machine that stops for a while, some of the looks come after the tick.
    let unsettled: Vec<_> = young.iter().filter(|(_, settled)| !settled).collect();
    assert!(
        unsettled.len() >= young.len() - 1
            && unsettled.iter().all(|(one, _)| young.iter().filter(|(o, _)| o == one).count() == 1)
    );
    std::thread::sleep(TICK * 2);
    assert_eq!(id(&coarse), id(&coarse));
    assert!(id(&coarse).1);
}
