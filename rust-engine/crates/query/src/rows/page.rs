//! A page of rows: how it is taken from what its plan gives, and where the next one begins.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt32Type};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt};

use super::count::Count;
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
    /// Whether there is no page before.
    pub(super) first: bool,
    /// How many rows there are, where a page before has counted them.
    pub(super) counted: Option<u64>,
    /// What `now()` is in the filter, where that asks, in nanoseconds since 1970 in UTC.
    pub(super) now: Option<i64>,
    pub(super) digest: [u8; 32],
}

impl Paging {
    /// Reads a page, and one row more to learn whether there is a next one, then counts all rows where the page does not
    /// hold them. What it holds is taken from `memory`.
    pub(super) async fn read<S>(
        &self,
        input: S,
        count: Option<Count<Arc<dyn ExecutionPlan>>>,
        key: &TokenKey,
        memory: &MemoryReservation,
        task: &Arc<TaskContext>,
    ) -> Result<Taken, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        let (batches, last) = self.rows(input, memory).await?;
        let total_size = match count {
            None => None,
            Some(_) if self.first && last.is_none() => Some(batches.iter().map(|batch| batch.num_rows() as u64).sum()),
            Some(count) => Some(count.total(task).await?),
        };
        Ok(self.taken(batches, last, total_size, key))
    }

    /// Reads a page as [`Self::read`] does, without a count.
    pub(crate) async fn uncounted<S>(
        &self,
        input: S,
        key: &TokenKey,
        memory: &MemoryReservation,
    ) -> Result<Taken, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        let (batches, last) = self.rows(input, memory).await?;
        Ok(self.taken(batches, last, None, key))
    }

    fn taken(
        &self,
        batches: Vec<RecordBatch>,
        last: Option<Position>,
        total_size: Option<u64>,
        key: &TokenKey,
    ) -> Taken {
        let sealed =
            |position: Position| key.seal(&Position { counted: total_size.or(self.counted), ..position }, &self.digest);
        let next_page_token = Some(last.map(sealed).unwrap_or_default());
        let envelope = Envelope { total_size, next_page_token, ..Envelope::default() };
        Taken { batches: Box::new(batches.into_iter().map(Ok)), envelope }
    }

    /// The page's rows, and the last one's position where there is a next page.
    async fn rows<S>(
        &self,
        mut input: S,
        memory: &MemoryReservation,
    ) -> Result<(Vec<RecordBatch>, Option<Position>), DataFusionError>
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
                let position = self.position(batch, *at)?;
                return Ok((batches, Some(position)));
            }
        }
        Ok((batches, None))
    }

    fn position(&self, batch: &RecordBatch, at: usize) -> Result<Position, DataFusionError> {
        let end = batch.num_columns();
        Ok(Position {
            snapshot: self.snapshot.clone(),
            file: batch.column(end - 2).as_primitive::<UInt32Type>().value(at),
            row: batch.column(end - 1).as_primitive::<Int64Type>().value(at),
            counted: None,
            now: self.now,
            values: self.keyset.values(&batch.columns()[self.wanted..end - 2], at)?,
        })
    }
}
