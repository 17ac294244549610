//! What readers of the stream rely on: chunk sizes, digests, order, prompt ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Date32Array, Int64Array, StringArray};
use futures::Stream;
use sha2::{Digest, Sha256};

use super::*;
use crate::format::FormatError;

const KIB: usize = 1 << 10;

fn numbered(first: i64, rows: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(first..first + rows);
    let words = StringArray::from_iter_values((first..first + rows).map(|row| format!("word \"{row}\"")));
    batch(vec![("n", Arc::new(numbers) as ArrayRef), ("w", Arc::new(words))])
}

fn many(batches: i64, rows: i64) -> Vec<RecordBatch> {
    (0..batches).map(|at| numbered(at * rows, rows)).collect()
}

/// Batches without end, each pull counted, the guard dropped with the stream.
fn endless(pulled: Arc<AtomicUsize>, guard: Arc<()>) -> impl Stream<Item = Result<RecordBatch, ArrowError>> + Send {
    stream::repeat(numbered(0, 8_192)).map(move |rows| {
        let _held = &guard;
        pulled.fetch_add(1, Ordering::SeqCst);
        Ok(rows)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_have_the_stated_sizes_and_the_digest_covers_them() {
    for format in Format::ALL {
        let batches = many(20, 8_192);
        let schema = batches[0].schema();
        let (chunks, receipt) = collect(schema, batches, options(format)).await.expect("encodes");
        let (inner, last) = (&chunks[1..chunks.len() - 1], &chunks[chunks.len() - 1]);
        assert!(inner.iter().all(|chunk| (64 * KIB..=256 * KIB).contains(&chunk.len())), "{format}");
        assert!(chunks[0].len() <= 256 * KIB && last.len() <= 256 * KIB, "{format}");
        let mut covered = chunks.concat();
        if format == Format::Json {
            let end = covered.windows(11).rposition(|text| text == b"],\"receipt\"").expect("a receipt");
            covered.truncate(end + 1);
        }
        assert_eq!(receipt.rows, 20 * 8_192);
        assert_eq!(receipt.bytes, covered.len() as u64, "{format}");
        assert_eq!(receipt.sha256, <[u8; 32]>::from(Sha256::digest(&covered)), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rows_are_sent_before_the_second_batch_exists() {
    for format in [Format::Json, Format::Ndjson, Format::Csv, Format::Arrow] {
        let first = numbered(0, 3);
        let schema = first.schema();
        let input = stream::iter([Ok::<_, ArrowError>(first)]).chain(stream::pending());
        let mut parts = encode(input, schema, options(format)).expect("a schema that fits");
        let part = tokio::time::timeout(Duration::from_secs(10), parts.next()).await.expect("no wait");
        assert!(matches!(part, Some(Ok(Part::Chunk(chunk))) if !chunk.is_empty()), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_result_is_one_chunk() {
    for format in Format::ALL {
        let rows = numbered(0, 3);
        let (chunks, _) = collect(rows.schema(), vec![rows], options(format)).await.expect("encodes");
        assert_eq!(chunks.len(), 1, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_longer_than_allowed_is_refused_and_many_rows_are_not() {
    let with = || EncodeOptions { most: 300 * KIB, ..options(Format::Json) };
    let long = batch(vec![("w", Arc::new(StringArray::from_iter_values(["x".repeat(400 * KIB)])) as ArrayRef)]);
    let failed = collect(long.schema(), vec![long], with()).await.expect_err("too long");
    assert!(matches!(failed, EncodeError::RowTooLarge { row: 1, .. }), "{failed}");
    let rows = numbered(0, 40_000);
    collect(rows.schema(), vec![rows], with()).await.expect("encodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_and_parallelism_leave_no_trace() {
    for format in [Format::Json, Format::JsonArray, Format::Ndjson, Format::Csv] {
        let with = |parallelism| EncodeOptions { parallelism, ..options(format) };
        let whole = vec![numbered(0, 40_000)];
        let schema = whole[0].schema();
        let (chunks, receipt) = collect(Arc::clone(&schema), whole, with(1)).await.expect("encodes");
        let parts = collect(schema, many(400, 100), with(4)).await.expect("encodes");
        assert_eq!((chunks.concat(), receipt), (parts.0.concat(), parts.1), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_stream_drops_the_input() {
    for format in Format::ALL {
        let (pulled, guard) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let input = endless(Arc::clone(&pulled), Arc::clone(&guard));
        let mut parts = encode(input, numbered(0, 1).schema(), options(format)).expect("a schema that fits");
        assert!(matches!(parts.next().await, Some(Ok(Part::Chunk(_)))), "{format}");
        drop(parts);
        let gone = async {
            while Arc::strong_count(&guard) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the input is dropped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stops_the_input() {
    for format in [Format::Json, Format::Csv, Format::Arrow] {
        let (pulled, guard) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let input = endless(Arc::clone(&pulled), guard);
        let parts = encode(input, numbered(0, 1).schema(), options(format)).expect("a schema that fits");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(pulled.load(Ordering::SeqCst) <= 8, "{format}: {pulled:?}");
        drop(parts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_input_ends_the_stream_without_a_receipt() {
    for format in Format::ALL {
        let failure = ArrowError::ComputeError("the disk is gone".to_owned());
        let input = stream::iter([Ok(numbered(0, 10)), Err(failure)]);
        let mut parts = encode(input, numbered(0, 1).schema(), options(format)).expect("a schema that fits");
        let mut last = None;
        while let Some(part) = parts.next().await {
            assert!(!matches!(part, Ok(Part::Receipt(_))), "{format}");
            last = Some(part);
        }
        assert!(matches!(last, Some(Err(EncodeError::Source(_)))), "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_error_of_the_stream() {
    for format in Format::ALL {
        let input = stream::once(async { Ok::<_, ArrowError>(numbered(0, 10)) }).map(|rows| {
            assert!(rows.is_err(), "a bug below");
            rows
        });
        let parts = encode(input, numbered(0, 1).schema(), options(format)).expect("a schema that fits");
        let parts: Vec<_> = parts.collect().await;
        let message = parts.into_iter().find_map(Result::err).expect("an error").to_string();
        assert!(message.contains("a bug below"), "{format}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_without_text_names_its_row_in_the_result() {
    let dates = |bad: Option<usize>| {
        let days = (0..3_000).map(|row| if Some(row) == bad { i32::MAX } else { 0 });
        batch(vec![("day", Arc::new(Date32Array::from_iter_values(days)) as ArrayRef)])
    };
    let batches = vec![dates(None), dates(Some(2_500))];
    let result = collect(batches[0].schema(), batches, options(Format::Ndjson)).await;
    let message = result.expect_err("no text").to_string();
    assert!(message.starts_with("column `day`, row 5501: a date outside"), "{message}");
}

#[tokio::test]
async fn batches_of_another_schema_are_refused() {
    let other = batch(vec![("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let typed = batch(vec![
        ("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef),
        ("w", Arc::new(StringArray::from(vec!["1"]))),
    ]);
    for wrong in [other, typed] {
        let result = collect(numbered(0, 1).schema(), vec![wrong], options(Format::Json)).await;
        assert!(matches!(result, Err(EncodeError::Mismatch { .. })));
    }
}

#[test]
fn encoding_needs_a_runtime() {
    let input = stream::empty::<Result<RecordBatch, ArrowError>>();
    let schema = numbered(0, 1).schema();
    assert_eq!(encode(input, schema, options(Format::Json)).err(), Some(FormatError::NoRuntime));
}

#[test]
fn parquet_row_groups_bound_the_writers_memory() {
    let mut random = super::arrays::Random(1);
    // Digits without order, so that neither dictionaries nor compression keep row groups small.
    let mut rows = || {
        let words = (0..8_192).map(|_| format!("{:x}{:x}{:x}", random.next(), random.next(), random.next()));
        batch(vec![("w", Arc::new(StringArray::from_iter_values(words)) as ArrayRef)])
    };
    let mut encoder = crate::format::binary::BinaryEncoder::new(&rows().schema(), Format::Parquet)
        .expect("a binary format")
        .expect("a schema that fits");
    let sizes: Vec<_> = (0..100).map(|_| encoder.write(&rows()).expect("writes").len()).collect();
    assert!(sizes.iter().any(|size| *size > 8 << 20), "row groups leave before the end");
    assert!(sizes.iter().all(|size| *size < 32 << 20), "row groups are small");
}
