//! Rows by their key: an index over files of several formats, and the rows that it leads to.

use super::*;
use crate::keys::{KeyIndex, converter};

/// A CSV file, a Parquet file of several row groups, and a JSON file, as one table of 160,000 rows.
fn three_files(folder: &Path) {
    let folder = folder.join("t");
    std::fs::create_dir(&folder).expect("a folder");
    let csv = (0..20_000).map(|id| format!("{id},text of {id}\n")).collect::<String>();
    std::fs::write(folder.join("a.csv"), format!("id,txt\n{csv}")).expect("writes");
    let file = std::fs::File::create(folder.join("b.parquet")).expect("a file");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(50_000)).build();
    let mut writer = ArrowWriter::try_new(file, schema(), Some(properties)).expect("a writer");
    writer.write(&rows(20_000, 150_000)).expect("writes");
    writer.close().expect("closes");
    // Twice the key 7, and rows without one.
    let json = (150_000..160_000).map(|id| match id {
        150_003 => "{\"id\":7,\"txt\":\"again\"}\n".to_owned(),
        150_004 | 150_005 => "{\"id\":null}\n".to_owned(),
        _ => format!("{{\"id\":{id},\"txt\":\"text of {id}\"}}\n"),
    });
    std::fs::write(folder.join("c.ndjson"), json.collect::<String>()).expect("writes");
}

impl Fixture {
    async fn pinned(&self, table: &str) -> (Arc<Table>, Arc<PinnedStore>) {
        let tables = self.catalog.resolve([table.to_owned()].into()).await.expect("resolves");
        let store = PinnedStore::new(tables.iter().flat_map(|t| &t.files).map(|(f, _)| Arc::clone(f)));
        (Arc::clone(&tables[0]), Arc::new(store))
    }

    async fn index(&self, table: &str) -> Option<Arc<KeyIndex>> {
        let (table, store) = self.pinned(table).await;
        let column = table.schema().index_of("id").expect("a column");
        self.caches.keys.get(&table, &store, &self.caches, &[column]).await.expect("is built")
    }
}

/// The ids of the rows that the index and the points lead to.
async fn find(index: &KeyIndex, points: &Points, id: i64) -> Vec<i64> {
    let converter = converter([DataType::Int64]).expect("a converter");
    let key = converter.convert_columns(&[Arc::new(Int64Array::from(vec![id]))]).expect("converts");
    let mut found = Vec::new();
    for (file, row) in index.find(key.row(0).as_ref()) {
        let (batch, at) = points.around(file, row).await.expect("is there");
        found.push(batch.column(0).as_primitive::<Int64Type>().value(at));
        if id != 7 && !(20_000..150_000).contains(&id) {
            assert_eq!(batch.column(1).as_string_view().value(at), format!("text of {id}"));
        }
    }
    found
}

#[tokio::test]
async fn every_row_is_found_by_its_key_hot_and_cold() {
    for hot in [256 << 20, 16 << 20] {
        let fixture = Fixture::new(hot, three_files);
        let index = fixture.index("t").await.expect("fits");
        let (table, store) = fixture.pinned("t").await;
        let columns = ["id", "txt"].map(|name| table.schema().index_of(name).expect("a column"));
        let points = Points::new(table, store, &fixture.caches, &columns).expect("points");
        for id in (0..160_000).step_by(1_013).chain([19_999, 20_000, 149_999, 150_000, 159_999]) {
            assert_eq!(find(&index, &points, id).await, [id], "hot bytes {hot}");
        }
        assert_eq!(find(&index, &points, 7).await, [7, 7]);
        for id in [-1, 150_003, 150_004, 160_000] {
            assert_eq!(find(&index, &points, id).await, [0; 0]);
        }
        assert_eq!(index.duplicate(), Some("7"));
    }
}

#[tokio::test]
async fn an_index_is_made_once_bounded_and_given_back() {
    let fixture = Fixture::new(64 << 20, three_files);
    let before = fixture.memory.reserved();
    let one = fixture.index("t").await.expect("fits");
    let decoded = fixture.counts().misses;
    let other = fixture.index("t").await.expect("is there");
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(fixture.counts().misses, decoded);
    assert!(fixture.memory.reserved() > before);
    drop((one, other));
    fixture.caches.shed(1 << 30);
    assert_eq!((fixture.counts().bytes, fixture.memory.reserved()), (0, before));

    // A quarter of this is too little for 160,000 rows.
    let fixture = Fixture::new(8 << 20, three_files);
    assert!(fixture.index("t").await.is_none());
    assert_eq!(Fixture::new(0, three_files).index("t").await.map(|_| ()), None);
}
