//! Buckets beside folders with the same files.

use std::fs;

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::listing::{FileSystems, Listing, Root, list};
use crate::store::{PinnedStore, object_path};
use crate::{SnapshotChanged, inspect};

const FILES: &[(&str, &str)] = &[
    ("flights-3m.parquet", "x"),
    ("Zip Codes.CSV", "x"),
    ("a.b.json.gz", "x"),
    (".hidden.csv", "x"),
    ("_x.csv", "x"),
    ("x.csv.tmp", "x"),
    ("pic.png", "x"),
    ("quern.yaml", "x"),
    ("empty.csv", ""),
    ("f.arrow", "x"),
    ("f.json", "x"),
    ("f/1.csv", "x"),
    ("g h.csv", "x"),
    ("g-h.csv", "x"),
    ("parts/year=2024/month=1/a.csv", "x"),
    ("parts/year=2024/month=10/a.csv", "x"),
    ("parts/year=2024/month=2/b%20c=d%2Fe/a.csv", "x"),
    ("parts/b.csv", "x"),
    ("parts/b/c.csv", "x"),
    ("parts/_temporary/c.csv", "x"),
    ("parts/empty.csv", ""),
    ("pictures/a.png", "x"),
    ("deep/a-b/x.csv", "x"),
    ("deep/a/x.csv", "x"),
    ("deep.csv.gz", "x"),
];

fn bucket() -> (Arc<InMemory>, Arc<Bucket>) {
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::new("s3://b/p".to_owned(), Arc::clone(&store) as _, Path::from("p"));
    (store, Arc::new(bucket))
}

async fn put(store: &InMemory, name: &str, content: &str) {
    let location = Path::parse(format!("p/{name}")).expect("a path");
    store.put(&location, PutPayload::from(content.to_owned())).await.expect("memory takes it");
}

async fn look(bucket: &Arc<Bucket>) -> Listing {
    bucket.learn(bucket.list().await);
    list(&[Root::Bucket(Arc::clone(bucket))], None, &FileSystems::detect()).expect("lists")
}

fn told(listing: &Listing) -> String {
    let tables = listing.tables.iter().map(|(name, table)| match table {
        Ok(table) => {
            let files = table.files.iter().map(|file| format!("{} {} {:?}", file.shown, file.size, file.partitions));
            format!("{name}: {}\n", files.collect::<Vec<_>>().join(", "))
        }
        Err(error) => format!("{name}: {}\n", error.message),
    });
    let mut passed = listing.passed_over.clone();
    passed.sort();
    format!("{}{:?}\n{passed:?}", tables.collect::<String>(), listing.ambiguous)
}

#[tokio::test]
async fn a_bucket_has_the_tables_that_a_folder_has() {
    let (store, bucket) = bucket();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in FILES {
        put(&store, name, content).await;
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        fs::write(path, content).expect("writes");
    }
    // Beside the prefix.
    store.put(&Path::from("pq/other.csv"), PutPayload::from("x")).await.expect("memory takes it");
    let local = list(&[Root::Folder(folder.path().to_owned())], None, &FileSystems::detect()).expect("lists");
    assert_eq!(told(&look(&bucket).await), told(&local));
}

#[tokio::test]
async fn a_change_is_a_new_generation_and_nothing_else_is() {
    let (store, bucket) = bucket();
    put(&store, "t.csv", "a\n1\n").await;
    let first = look(&bucket).await;
    let known = bucket.generation();
    look(&bucket).await;
    assert_eq!(bucket.generation(), known);
    put(&store, "t.csv", "a\n2\n").await;
    let second = look(&bucket).await;
    assert_eq!(bucket.generation(), known + 1);
    let id = |listing: &Listing| listing.tables["t"].as_ref().expect("a table").snapshot_id();
    assert_ne!(id(&first), id(&second));
}

#[tokio::test]
async fn while_a_bucket_cannot_be_listed_its_tables_say_so() {
    let (store, bucket) = bucket();
    put(&store, "t.csv", "a\n1\n").await;
    look(&bucket).await;
    bucket.learn(Err(bucket.unavailable("it is gone")));
    let listing = list(&[Root::Bucket(Arc::clone(&bucket))], None, &FileSystems::detect()).expect("lists");
    let error = listing.tables["t"].as_ref().expect_err("nothing is known");
    assert_eq!(error.reason, Reason::SourceUnavailable);
    assert!(error.message.ends_with("it is gone") && listing.unavailable.is_some());
    assert!(look(&bucket).await.tables["t"].is_ok());
}

#[tokio::test]
async fn an_object_that_was_replaced_is_not_read() {
    let (store, bucket) = bucket();
    let content = "0123456789".repeat(2 << 20);
    put(&store, "t.csv", &content).await;
    let listing = look(&bucket).await;
    let file = Arc::clone(&listing.tables["t"].as_ref().expect("a table").files[0]);
    let pinned = PinnedStore::new([Arc::clone(&file)]);
    let whole = pinned.get(&object_path(&file)).await.expect("is there").bytes().await.expect("reads");
    assert!(whole == content.as_bytes());
    let places: [(usize, usize); 3] = [(3, 7), (15 << 20, (15 << 20) + 5), (9, 12)];
    let ranges = places.map(|(start, end)| start as u64..end as u64);
    let parts = pinned.get_ranges(&object_path(&file), &ranges).await.expect("reads");
    assert!(parts.iter().zip(places).all(|(part, (start, end))| *part == content.as_bytes()[start..end]));

    put(&store, "t.csv", "a\n2\n").await;
    for error in [
        pinned.get_ranges(&object_path(&file), &ranges).await.expect_err("it is another one"),
        pinned.get(&object_path(&file)).await.expect("begins").bytes().await.expect_err("it is another one"),
    ] {
        assert!(inspect::find::<SnapshotChanged>(&error).is_some(), "{error:?}");
    }
}

#[test]
fn urls_are_told_from_folders_and_shown_without_secrets() {
    assert!(Bucket::is_url("S3://b") && Bucket::is_url("gs://b/p"));
    assert!(!Bucket::is_url("/data") && !Bucket::is_url("file:///data") && !Bucket::is_url("http://x"));
    for (text, told) in [
        (
            "Error performing GET http://h/b in 3s, after 6 retries - HTTP error: http://h/b?sig=abc",
            "HTTP error: http://h/b",
        ),
        (
            "Error performing GET http://h/b?sig=abc in 2ms - Server returned status code: 403 Forbidden: <xml>",
            "it does not accept the credentials (403 Forbidden)",
        ),
        ("GET - Server returned status code: 503 Service Unavailable: \nno", "it answers 503 Service Unavailable"),
    ] {
        assert_eq!(cause(&Error::Generic { store: "S3", source: text.into() }), told);
    }
}
