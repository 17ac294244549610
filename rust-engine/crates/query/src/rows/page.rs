//! A page of rows: how it is taken from what its plan gives, and where the next one begins.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt32Type};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::{Stream, StreamExt};

use super::order::Keyset;
use super::token::Position;
use super::{Taken, TokenKey};
use crate::format::Envelope;

/// How to make a page of what the plan gives: columns that the caller wants, then those of the order, then the position.
pub(crate) struct Paging {
    pub(super) wanted: usize,
    pub(super) size: usize,
    pub(super) keyset: Keyset,
    pub(super) snapshot: String,
    pub(super) digest: [u8; 32],
}

impl Paging {
    /// Reads a page, and one row more to learn whether there is a next one. What it holds is taken from `memory`.
    pub(super) async fn read<S>(
        &self,
        mut input: S,
        key: &TokenKey,
        memory: &MemoryReservation,
    ) -> Result<Taken, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        let (mut batches, mut rows, mut last) = (Vec::new(), 0, None);
        while let Some(batch) = input.next().await {
            let batch = batch?;
            memory.try_grow(batch.get_array_memory_size())?;
            let taken = batch.num_rows().min(self.size - rows);
            if taken > 0 {
                rows += taken;
                batches.push(batch.slice(0, taken).project(&(0..self.wanted).collect::<Vec<_>>())?);
            }
            let more = batch.num_rows() > taken;
            if taken > 0 {
                last = Some((batch, taken - 1));
            }
            if let (true, Some((batch, at))) = (more, &last) {
                let next = key.seal(&self.position(batch, *at)?, &self.digest);
                return Ok(taken_of(batches, next));
            }
        }
        Ok(taken_of(batches, String::new()))
    }

    fn position(&self, batch: &RecordBatch, at: usize) -> Result<Position, DataFusionError> {
        let end = batch.num_columns();
        Ok(Position {
            snapshot: self.snapshot.clone(),
            file: batch.column(end - 2).as_primitive::<UInt32Type>().value(at),
            row: batch.column(end - 1).as_primitive::<Int64Type>().value(at),
            values: self.keyset.values(&batch.columns()[self.wanted..end - 2], at)?,
        })
    }
}

fn taken_of(batches: Vec<RecordBatch>, next: String) -> Taken {
    let envelope = Envelope { next_page_token: Some(next), ..Envelope::default() };
    Taken { batches: Box::new(batches.into_iter().map(Ok)), envelope }
}
