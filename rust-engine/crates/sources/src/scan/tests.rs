//! Scans of whole files, cold, hot and in between: the same rows, read as little as they can be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::hot::{BLOCK_ROWS, HotCounts};
use crate::provider::SnapshotProvider;
use crate::scratch::Scratch;
use crate::spill::Spills;
use crate::{Catalog, PinnedStore, Root};

mod by_key;

/// Rows of the test's table: some segments, and a block that is not full.
const ROWS: i64 = 3 * SEGMENT_ROWS as i64 + 12_345;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("grp", DataType::Int64, true),
        Field::new("txt", DataType::Utf8, true),
        Field::new("num", DataType::Float64, true),
    ]))
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let ids = || from..to;
    let texts = ids().map(|id| (id % 11 != 0).then(|| format!("text of {} that is long {}", id % 97, id % 5)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids())),
        Arc::new(Int64Array::from_iter(ids().map(|id| (id % 7 != 0).then_some(id * 31 % 1_000)))),
        Arc::new(StringArray::from_iter(texts)),
        Arc::new(Float64Array::from_iter_values(
            ids().map(|id| if id % 50_000 == 9 { f64::NAN } else { id as f64 / 4.0 }),
        )),
    ];
    RecordBatch::try_new(schema(), columns).expect("a batch")
}

fn write_parquet(path: &Path, group: usize, page: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .set_data_page_row_count_limit(page)
        .set_write_batch_size(page.min(1_024))
        .set_statistics_enabled(EnabledStatistics::Page)
        .build();
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, schema(), Some(properties)).expect("a writer");
    writer.write(&rows(0, ROWS)).expect("writes");
    writer.close().expect("closes");
}

fn write_json(path: &Path, count: i64) {
    use std::io::Write;
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let batch = rows(0, count);
    for at in 0..batch.num_rows() {
        let grp = batch.column(1).as_primitive::<Int64Type>();
        let grp = if grp.is_null(at) { "null".to_owned() } else { grp.value(at).to_string() };
        writeln!(out, "{{\"id\":{at},\"grp\":{grp},\"txt\":\"row {}\"}}", at % 97).expect("writes");
    }
}

struct Fixture {
    catalog: Catalog,
    caches: Caches,
    memory: Arc<dyn MemoryPool>,
    scratch: tempfile::TempDir,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new(hot: usize, fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fill(folder.path());
        // Files settle.
        std::thread::sleep(Duration::from_millis(30));
        let manager = CacheManager::try_new(&CacheManagerConfig::default()).expect("caches");
        let memory: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let footers = manager.get_file_metadata_cache();
        let scratch = tempfile::tempdir().expect("a folder");
        let spills = Spills::new(Some(Arc::new(Scratch::open(scratch.path()).expect("opens"))), 1 << 30);
        let hot = Arc::new(HotColumns::new(hot, &memory, spills));
        let keys = Arc::new(KeyIndexes::new(hot.lendable()));
        let caches = Caches { footers: Arc::clone(&footers), hot, keys };
        let catalog = Catalog::new(vec![Root::Folder(folder.path().to_owned())], footers, 2);
        Self { catalog, caches, memory, scratch, _folder: folder }
    }

    async fn provider(&self, table: &str, positions: Option<Positions>) -> SnapshotProvider {
        let tables = self.catalog.resolve([table.to_owned()].into()).await.expect("resolves");
        let store = PinnedStore::new(tables.iter().flat_map(|t| &t.files).map(|(f, _)| Arc::clone(f)));
        SnapshotProvider::new(Arc::clone(&tables[0]), Arc::new(store), &self.caches, positions)
    }

    async fn context(&self, table: &str, partitions: usize, positions: Option<Positions>) -> SessionContext {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
        context.register_table("t", Arc::new(self.provider(table, positions).await)).expect("registers");
        context
    }

    async fn ask(&self, table: &str, partitions: usize, sql: &str) -> String {
        let context = self.context(table, partitions, None).await;
        let frame = context.sql(sql).await.expect("plans");
        let batches = frame.collect().await.expect("runs");
        pretty_format_batches(&batches).expect("formats").to_string()
    }

    fn counts(&self) -> HotCounts {
        self.caches.hot.counts()
    }
}

const QUERIES: &[&str] = &[
    "SELECT count(*), sum(id), sum(grp), min(txt), max(txt), count(txt), count(num) FROM t",
    "SELECT count(*) FROM t WHERE grp IS NULL",
    "SELECT id, grp, txt FROM t WHERE id BETWEEN 131000 AND 131100 ORDER BY id",
    "SELECT sum(id) FROM t WHERE grp = 500 AND txt LIKE 'text of 3%'",
    "SELECT grp % 10 AS g, count(*), sum(id) FROM t WHERE id >= 200000 GROUP BY 1 ORDER BY 1",
    "SELECT id FROM t WHERE txt = 'text of 5 that is long 0' ORDER BY id DESC LIMIT 7",
    "SELECT count(*) FROM t WHERE num > 100000000",
    "SELECT a.id FROM t a JOIN t b ON a.id = b.grp WHERE b.id < 20 ORDER BY 1, b.id",
    "SELECT count(*) FROM (SELECT id FROM t LIMIT 1000)",
    "SELECT count(*) FROM (SELECT id FROM t WHERE grp = 1 LIMIT 100)",
    "SELECT 1 FROM t WHERE id < 3",
    "SELECT id FROM t WHERE id > 99999999",
];

/// Every query of the table gives the same with nothing kept, cold, warm and with a cache too small for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_and_cold_columns_give_the_same() {
    for (group, page) in [(1 << 20, 20_000), (100_000, 1_000), (SEGMENT_ROWS, 8_192)] {
        let fill = |folder: &Path| write_parquet(&folder.join("data.parquet"), group, page);
        let (never, hot, small) = (Fixture::new(0, fill), Fixture::new(1 << 30, fill), Fixture::new(3 << 20, fill));
        for sql in QUERIES {
            let expected = never.ask("data", 1, sql).await;
            for partitions in [1, 3] {
                for (name, fixture) in [("hot", &hot), ("hot", &hot), ("small", &small), ("small", &small)] {
                    assert_eq!(fixture.ask("data", partitions, sql).await, expected, "{name} {partitions} {sql}");
                }
            }
        }
        assert_eq!(never.counts().bytes, 0);
        assert!(small.counts().bytes <= 3 << 20 && small.counts().evictions > 0, "{:?}", small.counts());
        assert_eq!(small.memory.reserved() as u64, small.counts().bytes);
        assert!(hot.counts().hits > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decoded_is_not_decoded_again() {
    let hot = Fixture::new(1 << 30, |folder| write_parquet(&folder.join("data.parquet"), 1 << 20, 20_000));
    let sql = "SELECT sum(id), max(txt) FROM t";
    let first = hot.ask("data", 2, sql).await;
    let (misses, blocks) = (hot.counts().misses, 2 * (ROWS as usize).div_ceil(BLOCK_ROWS));
    assert_eq!(misses as usize, blocks);
    assert_eq!(hot.ask("data", 2, sql).await, first);
    // One more column is all that is read.
    hot.ask("data", 2, "SELECT sum(id), max(txt), sum(grp) FROM t").await;
    assert_eq!(hot.counts().misses as usize, blocks + blocks / 2);
}

/// Blocks leave as they lie in memory, though row groups end between them, and short text is kept without what it was
/// decoded from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_not_copied() {
    let hot = Fixture::new(1 << 30, |folder| {
        let codes = StringArray::from_iter_values((0..200_000).map(|row| format!("code {}", row % 300)));
        let batch = RecordBatch::try_from_iter([("code", Arc::new(codes) as ArrayRef)]).expect("a batch");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(50_000)).build();
        let file = std::fs::File::create(folder.join("data.parquet")).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");
    });
    let context = hot.context("data", 1, None).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let batches = context.sql("SELECT code FROM t").await.expect("plans").collect().await.expect("runs");
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
        let columns = batches.iter().map(|batch| batch.column(0).as_string_view().clone());
        let blocks: Vec<_> = columns.filter(|column| column.len() == BLOCK_ROWS).collect();
        seen.push(blocks);
    }
    assert_eq!(hot.counts().misses as usize, 4 * 50_000_usize.div_ceil(BLOCK_ROWS));
    assert_eq!((seen[1].len(), seen[2].len()), (4 * 6, 4 * 6));
    for (block, again) in seen[1].iter().zip(&seen[2]) {
        assert!(block.views().ptr_eq(again.views()), "a block was copied");
        assert!(block.data_buffers().is_empty());
    }
}

/// A column that is kept never makes a scan decode what it would not have decoded else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_still_exclude() {
    let hot = Fixture::new(1 << 30, |folder| write_parquet(&folder.join("data.parquet"), 100_000, 5_000));
    hot.ask("data", 1, "SELECT sum(id) FROM t").await;
    let before = hot.counts().misses;
    // Two pages of one row group.
    hot.ask("data", 1, "SELECT min(txt), min(grp) FROM t WHERE id BETWEEN 250000 AND 254000").await;
    let blocks = hot.counts().misses - before;
    assert!(blocks <= 2 * 3, "{blocks} blocks were decoded");
}

/// A limit ends the reading of Parquet early, and of a text file lets the rest be decoded in the background.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_read_little() {
    let hot = Fixture::new(1 << 30, |folder| {
        write_parquet(&folder.join("data.parquet"), 1 << 20, 20_000);
        write_json(&folder.join("text.json"), 40_000);
    });
    hot.ask("data", 1, "SELECT id FROM t LIMIT 10").await;
    assert_eq!(hot.counts().misses, 1);
    hot.ask("text", 1, "SELECT id FROM t LIMIT 10").await;
    for _ in 0..500 {
        if hot.counts().misses > 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let misses = hot.counts().misses;
    assert_eq!(misses, 1 + 5);
    let expected = 40_000_i64 * 39_999 / 2;
    let answer = hot.ask("text", 1, "SELECT sum(id) FROM t").await;
    assert!(answer.contains(&expected.to_string()), "{answer}");
    assert_eq!(hot.counts().misses, misses);
}

/// A text file that does not stay in memory is written as Parquet once, and read from there: with the same rows, by
/// statistics, and without a trace when the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_does_not_stay_is_spilled() {
    let hot = Fixture::new(1 << 20, |folder| write_json(&folder.join("text.json"), 300_000));
    let never = Fixture::new(0, |folder| write_json(&folder.join("text.json"), 300_000));
    let queries = [
        "SELECT sum(id), sum(grp), max(txt), count(txt) FROM t",
        "SELECT id, grp, txt FROM t WHERE id BETWEEN 131000 AND 131100 ORDER BY id",
        "SELECT id FROM t WHERE grp = 7 ORDER BY id LIMIT 100",
    ];
    let expected = futures::future::join_all(queries.map(|sql| never.ask("text", 1, sql))).await;
    for round in 0..2 {
        for (sql, expected) in queries.iter().zip(&expected) {
            assert_eq!(&hot.ask("text", 2, sql).await, expected, "{sql}");
        }
        for _ in 0..2_000 {
            if round > 0 || hot.counts().spilled > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(hot.counts().spilled > 0);
    }
    let before = hot.counts().misses;
    hot.ask("text", 1, "SELECT min(txt) FROM t WHERE id BETWEEN 131072 AND 131100").await;
    assert!(hot.counts().misses - before <= 4, "pages are excluded by their statistics");
    assert_eq!(never.counts().spilled, 0);
    let Fixture { caches, scratch, .. } = hot;
    let count = || walk(scratch.path());
    assert!(count() > 1);
    drop(caches);
    for _ in 0..200 {
        if count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count(), 0);
}

fn walk(path: &Path) -> usize {
    let children = std::fs::read_dir(path).map(|children| children.flatten().collect::<Vec<_>>()).unwrap_or_default();
    children.iter().map(|child| if child.path().is_dir() { 1 + walk(&child.path()) } else { 1 }).sum()
}

/// NaN is beyond all numbers for SQL, and statistics of files leave it out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_nan_are_not_excluded_by_statistics() {
    let hot = Fixture::new(0, |folder| write_parquet(&folder.join("data.parquet"), 10_000, 1_000));
    let some = hot.ask("data", 1, "SELECT count(*) FROM t WHERE num > 1000000000").await;
    let same = hot.ask("data", 1, "SELECT count(*) FROM t WHERE num + 0 > 1000000000").await;
    assert_eq!(some, same);
    assert!(some.contains(&((ROWS as u64 - 9).div_ceil(50_000)).to_string()), "{some}");
}

/// Positions number the rows of each file, begin where they are told to, and order what one partition gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_number_rows() {
    let hot = Fixture::new(1 << 30, |folder| {
        let mixed = folder.join("mixed");
        std::fs::create_dir(&mixed).expect("a folder");
        write_json(&mixed.join("a.json"), 20_000);
        write_parquet(&mixed.join("b.parquet"), 100_000, 5_000);
    });
    for (file, row) in [(0, 8_191), (0, 19_999), (1, -1), (1, 99_999), (1, ROWS - 2)] {
        let positions = Positions { file: "f".to_owned(), row: "r".to_owned(), after: Some((file, row)) };
        for _ in 0..2 {
            let context = hot.context("mixed", 1, Some(positions.clone())).await;
            let batches = context.sql("SELECT f, r, id FROM t").await.expect("plans").collect().await.expect("runs");
            let all = concat_batches(&batches[0].schema(), &batches).expect("one");
            let rest = if file == 0 { 20_000 - 1 - row + ROWS } else { ROWS - 1 - row };
            assert_eq!(all.num_rows() as i64, rest);
            let (rows, ids) = (all.column(1).as_primitive::<Int64Type>(), all.column(2).as_primitive::<Int64Type>());
            assert_eq!(rows, ids);
            assert!((1..all.num_rows()).all(|at| ids.value(at) == ids.value(at - 1) + 1 || ids.value(at) == 0));
        }
    }
}

/// Filters go into the scan, and nothing is left of them above it.
#[tokio::test]
async fn filters_are_evaluated_in_the_scan() {
    let hot = Fixture::new(1 << 20, |folder| write_json(&folder.join("text.json"), 100));
    let context = hot.context("text", 1, None).await;
    let frame = context.sql("SELECT txt FROM t WHERE id > 90 AND grp IS NOT NULL").await.expect("plans");
    let plan = frame.create_physical_plan().await.expect("plans");
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let expected = "DataSourceExec: table=text, files=1, columns=[txt], filter=id@0 > 90 AND grp@1 IS NOT NULL";
    assert_eq!(shown.trim(), expected);
}
