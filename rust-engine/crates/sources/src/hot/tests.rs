//! What gets in, what has to go, and that every byte is counted.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};

use super::*;
use crate::spill::Spills;

fn values(from: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(from..from + BLOCK_ROWS as i64))
}

const BLOCK_BYTES: usize = BLOCK_ROWS * 8;

fn key(file: u64, segment: u32) -> ChunkKey {
    ChunkKey { file, column: 0, segment, kind: 0 }
}

fn put(hot: &HotColumns, key: ChunkKey) -> bool {
    let chunk = hot.begin(key, 1, BLOCK_BYTES, 1);
    chunk.is_some_and(|chunk| hot.fill(key, &chunk, 0, &values(0)))
}

fn ask(hot: &HotColumns, key: ChunkKey) -> bool {
    hot.lookup([key].into_iter()).iter().flatten().any(|chunk| chunk.block(0).is_some())
}

fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
    Arc::new(GreedyMemoryPool::new(bytes))
}

#[test]
fn what_is_kept_is_counted_and_bounded() {
    let memory = pool(usize::MAX);
    let hot = HotColumns::new(10 * BLOCK_BYTES + 5_000, &memory, Spills::new(None, 0));
    for segment in 0..50 {
        put(&hot, key(1, segment));
    }
    let counts = hot.counts();
    assert!(counts.bytes <= counts.capacity, "{counts:?}");
    assert!(counts.bytes > 9 * BLOCK_BYTES as u64, "{counts:?}");
    assert_eq!(memory.reserved() as u64, counts.bytes);
    assert_eq!((0..50).filter(|segment| ask(&hot, key(1, *segment))).count(), 10);
}

#[test]
fn what_is_asked_for_often_stays_while_a_scan_passes() {
    let hot = HotColumns::new(10 * BLOCK_BYTES + 5_000, &pool(usize::MAX), Spills::new(None, 0));
    let favourites: Vec<ChunkKey> = (0..8).map(|segment| key(1, segment)).collect();
    for _ in 0..3 {
        for favourite in &favourites {
            if !ask(&hot, *favourite) {
                put(&hot, *favourite);
            }
        }
    }
    for segment in 0..1_000 {
        ask(&hot, key(2, segment));
        put(&hot, key(2, segment));
    }
    assert!(favourites.iter().all(|favourite| ask(&hot, *favourite)));
    // What comes to be asked for more often takes their place.
    for _ in 0..40 {
        for segment in 0..8 {
            if !ask(&hot, key(3, segment)) {
                put(&hot, key(3, segment));
            }
        }
    }
    assert!((0..8).all(|segment| ask(&hot, key(3, segment))));
}

#[test]
fn what_is_dear_to_decode_is_worth_more() {
    let hot = HotColumns::new(BLOCK_BYTES + 5_000, &pool(usize::MAX), Spills::new(None, 0));
    let (cheap, dear) = (key(1, 0), key(2, 0));
    assert!(!ask(&hot, cheap) && put(&hot, cheap));
    assert!(!ask(&hot, dear));
    let chunk = hot.begin(dear, 1, BLOCK_BYTES, 8).expect("it is worth eight times as much");
    assert!(hot.fill(dear, &chunk, 0, &values(0)));
    assert!(!ask(&hot, cheap));
    assert!(!put(&hot, cheap));
}

#[test]
fn queries_get_the_memory_back() {
    let memory = pool(12 * BLOCK_BYTES);
    let hot = HotColumns::new(usize::MAX, &memory, Spills::new(None, 0));
    for segment in 0..10 {
        assert!(put(&hot, key(1, segment)));
    }
    let query = MemoryConsumer::new("query").register(&memory);
    query.try_grow(8 * BLOCK_BYTES).expect_err("it is taken");
    hot.shed(8 * BLOCK_BYTES);
    query.try_grow(8 * BLOCK_BYTES).expect("it was given back");
    assert!(!put(&hot, key(2, 0)) || hot.counts().bytes <= 4 * BLOCK_BYTES as u64);
    hot.shed(usize::MAX);
    assert_eq!((hot.counts().bytes, memory.reserved()), (0, 8 * BLOCK_BYTES));
}

#[test]
fn a_chunk_that_went_takes_no_more_blocks() {
    let hot = HotColumns::new(usize::MAX, &pool(usize::MAX), Spills::new(None, 0));
    let chunk = hot.begin(key(1, 0), 2, 2 * BLOCK_BYTES, 1).expect("there is room");
    assert!(hot.fill(key(1, 0), &chunk, 0, &values(0)));
    assert!(hot.fill(key(1, 0), &chunk, 0, &values(0)), "twice the same is no failure");
    hot.shed(1);
    assert!(!hot.fill(key(1, 0), &chunk, 1, &values(1)));
    assert!(!hot.fill(key(1, 0), &chunk, 7, &values(1)), "there is no such block");
    assert_eq!(hot.counts().bytes, 0);
}

#[test]
fn nothing_is_kept_without_bytes() {
    let hot = HotColumns::new(0, &pool(usize::MAX), Spills::new(None, 0));
    assert!(!hot.enabled() && !put(&hot, key(1, 0)));
}
