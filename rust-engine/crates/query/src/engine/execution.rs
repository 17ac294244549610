//! A question under way: its parts, one after the other, until the last one or the deadline.

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::{Stream, StreamExt};
use quern_core::{EngineError, Reason, Result};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::Span;

use super::Outline;
use crate::allow::Findings;
use crate::errors;
use crate::format::{Encoded, Envelope, Part};
use crate::pins::Pins;
use crate::pressure::Entered;

/// A statement under way. Dropping it stops the query within a batch.
pub struct Execution {
    /// What was known before it ran.
    pub outline: Outline,
    /// What is said of the result beside its rows.
    pub envelope: Envelope,
    pub(super) running: Running,
}

pub(super) struct Running {
    pub(super) encoded: Encoded<DataFusionError>,
    pub(super) pins: Pins,
    pub(super) findings: Findings,
    pub(super) deadline: Instant,
    /// Ends with the encoding.
    pub(super) span: Span,
    pub(super) entered: Entered,
    /// Counts what the plan's batches take.
    pub(super) _on_their_way: Option<MemoryReservation>,
    pub(super) _stops_on_drop: DropGuard,
    pub(super) _permit: OwnedSemaphorePermit,
}

pub(super) fn timed_out() -> EngineError {
    EngineError::new(
        Reason::QueryTimeout,
        "the query ran past its deadline; ask for less, or for more time with `timeout`",
    )
}

impl Execution {
    /// The encoded parts: chunks, then one receipt. Ends after the first error. With its last part the query gives
    /// back its memory and its place.
    pub fn into_parts(self) -> impl Stream<Item = Result<Part>> + Send + 'static {
        futures::stream::unfold(Some(self.running), |running| async move {
            let mut running = running?;
            let part = running.next().await;
            let rest = matches!(part, Ok(Part::Chunk(_))).then_some(running);
            Some((part, rest))
        })
    }
}

impl Running {
    async fn next(&mut self) -> Result<Part> {
        // A part that is ready at once would get past the timeout, however late it is.
        if Instant::now() >= self.deadline {
            return Err(timed_out());
        }
        let part = tokio::select! {
            biased;
            error = self.entered.given_up() => return Err(error),
            part = tokio::time::timeout_at(self.deadline, self.encoded.next()) => part,
        };
        let error = match part {
            Err(_) => return Err(timed_out()),
            Ok(Some(Ok(part))) => {
                if let Part::Receipt(receipt) = &part {
                    self.span.record("quern.rows", receipt.rows).record("quern.bytes", receipt.bytes);
                }
                return Ok(part);
            }
            Ok(Some(Err(error))) => errors::encoding(&error, &self.findings),
            Ok(None) => EngineError::internal("the result ended without a receipt"),
        };
        // Whatever went wrong on files that changed meanwhile is best answered by a new attempt.
        Err(self.pins.explain(error).await)
    }
}
