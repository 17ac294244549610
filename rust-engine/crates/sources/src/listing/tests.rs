//! The rules by which files become tables, on real folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("can create");
    fs::write(path, content).expect("can write");
}

fn listed(root: &Path) -> Listing {
    list(&[Root::Folder(root.to_owned())], None, &FileSystems::detect()).expect("lists")
}

#[test]
fn names_and_skips() {
    let dir = tempfile::tempdir().expect("temp dir");
    for name in [
        "flights-3m.parquet",
        "Zip Codes.CSV",
        "a.b.json.gz",
        "ü\"x.tsv",
        ".hidden.csv",
        "_x.csv",
        "x.csv.tmp",
        "pic.png",
    ] {
        write(dir.path(), name, "x");
    }
    write(dir.path(), "empty.csv", "");
    let listing = listed(dir.path());
    let names: Vec<&str> = listing.tables.keys().map(String::as_str).collect();
    assert_eq!(names, ["_x", "a_b", "flights_3m", "zip_codes"]);
    assert_eq!(listing.passed_over, [("empty.csv".to_owned(), "the file is empty".to_owned())]);
}

#[test]
fn one_name_twice_gets_extensions() {
    let dir = tempfile::tempdir().expect("temp dir");
    for name in ["f.arrow", "f.json", "g h.csv", "g-h.csv"] {
        write(dir.path(), name, "x");
    }
    let listing = listed(dir.path());
    assert!(listing.tables["f_arrow"].is_ok() && listing.tables["f_json"].is_ok());
    assert!(!listing.tables.contains_key("f"));
    assert_eq!(listing.ambiguous["f"], ["f_arrow", "f_json"]);
    let conflict = listing.tables["g_h_csv"].as_ref().expect_err("two files, one name");
    assert_eq!(conflict.reason, Reason::NameConflict);
    assert!(conflict.message.contains("`g h.csv`") && conflict.message.contains("`g-h.csv`"));
}

#[test]
fn folders_are_tables_with_partitions() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "sales/year=2024/city=K%C3%B6ln/a.csv", "x");
    write(dir.path(), "sales/year=2025/b.csv", "x");
    write(dir.path(), "pictures/a.png", "x");
    fs::create_dir(dir.path().join("nothing")).expect("can create");
    let listing = listed(dir.path());
    assert_eq!(listing.tables.len(), 1);
    let sales = listing.tables["sales"].as_ref().expect("is a table");
    assert_eq!(sales.files[0].partitions, [("year".into(), "2024".into()), ("city".into(), "Köln".into())]);
    assert_eq!(listing.passed_over.len(), 2);
}

#[test]
fn loops_and_dangling_links_are_said() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "t/a.csv", "x");
    symlink(dir.path().join("t"), dir.path().join("t/again")).expect("can link");
    symlink(dir.path().join("loop.csv"), dir.path().join("loop.csv")).expect("can link");
    symlink("nowhere", dir.path().join("gone.csv")).expect("can link");
    let listing = listed(dir.path());
    assert_eq!(listing.tables["t"].as_ref().expect("is a table").files.len(), 1);
    assert_eq!(listing.passed_over.len(), 3, "{:?}", listing.passed_over);
}

#[test]
fn snapshot_follows_content_names_and_nothing_else() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "t/a.csv", "x");
    let id = || listed(dir.path()).tables["t"].as_ref().expect("is a table").snapshot_id();
    let first = id();
    assert_eq!(first, id());
    write(dir.path(), "t/b.csv", "x");
    let second = id();
    assert_ne!(first, second);
    fs::remove_file(dir.path().join("t/b.csv")).expect("can remove");
    assert_eq!(first, id());
    fs::write(dir.path().join("new"), "y").expect("can write");
    fs::rename(dir.path().join("new"), dir.path().join("t/a.csv")).expect("can rename");
    assert_ne!(first, id(), "same size, renamed over");
}

#[test]
fn a_lone_table_is_one_that_only_its_file_and_the_folder_can_change() {
    let dir = tempfile::tempdir().expect("temp dir");
    let files = ["alone.csv", "two.csv", "two.json", "bud.csv", "a.csv", "a_b.csv", "folder/x.csv", "linked.csv"];
    for name in files.into_iter().chain(["c.csv", "c/d.csv", "a_b/e.csv", "t.csv", "t.json", "t_csv.tsv"]) {
        write(dir.path(), name, "x");
    }
    write(dir.path(), "bud.json", "");
    // What a link leads to can become a folder, or appear, without a change in this one.
    write(dir.path(), "fork_csv.tsv", "x");
    write(dir.path(), "ghost.tsv", "x");
    symlink(dir.path().join("alone.csv"), dir.path().join("fork.csv")).expect("links");
    symlink("nowhere", dir.path().join("ghost.csv")).expect("links");
    symlink(dir.path().join("alone.csv"), dir.path().join("link.csv")).expect("links");
    fs::hard_link(dir.path().join("linked.csv"), dir.path().join(".other")).expect("links");
    let listing = listed(dir.path());
    let lone = listing.tables.iter().filter(|(_, table)| table.as_ref().is_ok_and(|table| table.lone));
    assert_eq!(
        lone.map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["a", "alone", "fork", "link", "linked", "t_json", "two_csv", "two_json"]
    );
}

#[test]
fn a_folder_is_witnessed_until_something_comes_or_goes() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "a.csv", "x");
    std::thread::sleep(settle::TICK * 2);
    let roots = listed(dir.path()).roots.expect("a local folder that has settled");
    assert!(roots.iter().all(Witness::holds));
    write(dir.path(), "a.csv", "other");
    assert!(roots.iter().all(Witness::holds), "the folder is the same, the file is not");
    write(dir.path(), "b.csv", "x");
    assert!(!roots.iter().all(Witness::holds));
}
