//! Small answers from memory: what needs no plan, no file and no wait is answered at once, many requests at a time, on the
//! thread that they came by.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, MemoryReservation};
use futures::FutureExt;
use quern_core::TableSnapshot;
use quern_sources::{PinnedStore, Table};

use super::{Ask, Engine, Request};
use crate::format::{Envelope, Receipt, encode_whole};
use crate::pins::Pins;
use crate::rows::{self, Input, Reading, Rows, Snapshot, Start, Taken};

/// How many blocks of rows all requests of a call may look at: some milliseconds' work.
const BLOCKS: usize = 256;
/// The most rows and keys that a request may ask for.
const MOST_ROWS: usize = 1_000;
const MOST_KEYS: usize = 64;
/// The most parts that a filter may have: evaluating it recurses, and the thread's stack is no deep one.
const MOST_TERMS: usize = 32;
/// How long an answer's text may be, about.
const MOST_BYTES: usize = 128 << 10;
/// What rows may take in memory while a call gathers them.
const MEMORY: usize = 16 << 20;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Peeked {
    /// What it was read from.
    pub snapshot: TableSnapshot,
    /// The functions that make it differ from call to call.
    pub volatile: BTreeSet<String>,
    /// What is said beside the rows.
    pub envelope: Envelope,
    /// Its bytes.
    pub body: Bytes,
    /// What ends it.
    pub receipt: Receipt,
}

type Pinned = (Arc<Table>, Arc<PinnedStore>);

/// What the requests of one call share: a table is looked at once.
struct Call {
    tables: HashMap<String, Option<Pinned>>,
    blocks: Arc<AtomicUsize>,
    pool: Arc<dyn MemoryPool>,
}

impl Engine {
    /// Answers requests for rows whose answers are small and lie in memory, as [`Engine::execute`] would. What would fail,
    /// wait, or take more than a bounded amount of work gets nothing, and is to be executed.
    pub fn peek(&self, requests: Vec<Request>) -> Vec<Option<Peeked>> {
        let mut call = Call {
            tables: HashMap::new(),
            blocks: Arc::new(AtomicUsize::new(BLOCKS)),
            pool: Arc::new(GreedyMemoryPool::new(MEMORY)),
        };
        let answers: Vec<_> = requests.iter().map(|request| self.peek_one(request, &mut call)).collect();
        self.peeked.fetch_add(answers.iter().flatten().count() as u64, Ordering::Relaxed);
        answers
    }

    fn peek_one(&self, request: &Request, call: &mut Call) -> Option<Peeked> {
        let Ask::Rows(rows) = &request.ask else { return None };
        if !is_small(rows) {
            return None;
        }
        let start = Start::of(rows, &self.tokens).ok()?;
        let (table, store) = self.table_at_hand(&rows.table, call)?;
        if start.snapshot().is_some_and(|snapshot| snapshot != table.snapshot) {
            return None;
        }
        let from = Snapshot { table: &table, store: &store, caches: self.runtime.caches(), at_hand: true, readers: 1 };
        let planned = rows::plan(rows, &start, from, &self.known).now_or_never()?.ok()?;
        let memory = rows::reservation(&call.pool);
        let (taken, schema) = self.take(planned.input, &planned.reading, &memory, call)?;
        let snapshots = [(table.name.clone(), table.snapshot.clone())];
        let (format, numbers, envelope) = (request.format, request.numbers, taken.envelope);
        let schema = planned.reading.schema(&schema);
        let (body, receipt) = encode_whole(taken.batches, &schema, format, numbers, &envelope, &snapshots, MOST_BYTES)?;
        let [(table, snapshot)] = snapshots;
        let volatile = if planned.timely { BTreeSet::from(["now".to_owned()]) } else { BTreeSet::new() };
        Some(Peeked { snapshot: TableSnapshot { table, snapshot }, volatile, envelope, body, receipt })
    }

    fn table_at_hand(&self, name: &str, call: &mut Call) -> Option<Pinned> {
        if let Some(known) = call.tables.get(name) {
            return known.clone();
        }
        let found = self.catalog.at_hand(name).map(|table| {
            let store = Pins::of(std::slice::from_ref(&table), false).store;
            (table, store)
        });
        call.tables.insert(name.to_owned(), found.clone());
        found
    }

    /// The rows, and the columns that were read for them.
    fn take<P>(
        &self,
        input: Input<P>,
        reading: &Reading,
        memory: &MemoryReservation,
        call: &Call,
    ) -> Option<(Taken, Arc<Schema>)> {
        match (reading, input) {
            (Reading::Keys(lookup), Input::Points(by)) => {
                Some((lookup.read(&by, memory).now_or_never()?.ok()?.ok()?, by.schema()))
            }
            (Reading::Page(paging), Input::Scan(scan)) => {
                let batches = std::pin::pin!(scan.batches_at_hand(Arc::clone(&call.blocks)));
                let taken = paging.uncounted(batches, &self.tokens, memory).now_or_never()?.ok()?;
                Some((taken, scan.schema()))
            }
            _ => None,
        }
    }
}

fn is_small(rows: &Rows) -> bool {
    let keys = rows.keys.as_ref().map_or(0, |keys| keys.keys.len());
    let terms = rows.filter.as_ref().map_or(0, rows::Node::terms);
    rows.order.is_empty() && !rows.count && rows.page_size <= MOST_ROWS && keys <= MOST_KEYS && terms <= MOST_TERMS
}
