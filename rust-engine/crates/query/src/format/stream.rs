//! From a stream of batches to a stream of parts. A driver task pulls batches, has slices of them encoded
//! in parallel, keeps their order, cuts chunks and digests them; the reader only receives.
//!
//! At most `parallelism` slices of about 160 KiB of text are being encoded or wait for their turn; with
//! the one that is being cut and the parts that the channel holds that is all there is in memory beside
//! the input's own batches. Dropping the stream aborts the driver, which aborts the slices' tasks.

use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::binary::{BinaryEncoder, BinaryError};
use super::check::check;
use super::chunks::{Chunker, Receipt};
use super::envelope::Envelope;
use super::error::{EncodeError, FormatError};
use super::rows::{PieceError, RowEncoder};
use super::{Format, NumberStyle};

/// The text that a slice of a batch should become: between the least and the largest chunk.
const PIECE: usize = 160 << 10;
/// The first slice is small, for an early first byte.
const FIRST_ROWS: usize = 256;
/// A slice of less text is encoded at once, on the driver's own thread: handing it over would take longer.
const INLINE: usize = 32 << 10;
/// Binary formats write up to this many rows at once, so that cancelling is prompt.
const BINARY_ROWS: usize = 8_192;
/// How many parts the reader may be behind.
const PARTS_AHEAD: usize = 2;

/// How to encode a result.
#[derive(Clone, Debug)]
pub struct EncodeOptions {
    /// The format.
    pub format: Format,
    /// How JSON carries 64-bit integers and decimals.
    pub numbers: NumberStyle,
    /// How many slices are encoded at once, at least 1.
    pub parallelism: usize,
    /// About how long the text of a slice may be. Slices are of about 160 KiB, but one row is never cut.
    pub most: usize,
    /// The snapshot of each table, in the order in which the JSON envelope shows them.
    pub snapshots: Vec<(String, String)>,
    /// What the JSON envelope holds beside the rows and the receipt.
    pub envelope: Envelope,
    /// Where encoding runs; the caller's runtime if none is given.
    pub runtime: Option<Handle>,
}

/// A part of an encoded result: any number of chunks, then exactly one receipt.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes of the body: 64 to 256 KiB, but the first and the last may be smaller.
    Chunk(Bytes),
    /// Last, once; a stream that ends without it failed.
    Receipt(Receipt),
}

type Parts<E> = mpsc::Sender<Result<Part, EncodeError<E>>>;

/// An encoded result on its way. Dropping it stops the work and drops the input.
pub struct Encoded<E> {
    parts: mpsc::Receiver<Result<Part, EncodeError<E>>>,
    driver: Option<AbortOnDropHandle<()>>,
}

impl<E> Stream for Encoded<E> {
    type Item = Result<Part, EncodeError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(part) = ready!(self.parts.poll_recv(cx)) {
            return Poll::Ready(Some(part));
        }
        // The driver let go of the channel: if it panicked, its last word is here.
        let Some(driver) = &mut self.driver else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(driver).poll(cx));
        self.driver = None;
        Poll::Ready(ended.err().map(|error| Err(stopped(error))))
    }
}

fn stopped<E>(error: JoinError) -> EncodeError<E> {
    if !error.is_panic() {
        return EncodeError::Stopped("its runtime was shut down".to_owned());
    }
    let panic = error.into_panic();
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    EncodeError::Stopped(format!("panic: {}", text.unwrap_or_default()))
}

/// Encodes a stream of batches of `schema`.
///
/// Work starts at once and pauses when the reader is a few parts behind.
///
/// # Errors
/// Before the first byte, [`FormatError`] for a schema that the format can't carry. After it, an item
/// of the stream: what the input failed with, or a value that has no text; nothing follows it.
pub fn encode<S, E>(input: S, schema: SchemaRef, options: EncodeOptions) -> Result<Encoded<E>, FormatError>
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let format = options.format;
    check(&schema, format)?;
    let runtime = match &options.runtime {
        Some(runtime) => runtime.clone(),
        None => Handle::try_current().map_err(|_| FormatError::NoRuntime)?,
    };
    let binary = BinaryEncoder::new(&schema, format).transpose();
    let binary = binary.map_err(|error| FormatError::Refused { format, reason: error.to_string() })?;
    let (sender, parts) = mpsc::channel(PARTS_AHEAD);
    let output = Output { sender, chunker: Chunker::default(), rows: 0, started: false, format };
    let driver = match binary {
        Some(encoder) => drive_binary(input, schema, encoder, output).boxed(),
        None => {
            let encoder = RowEncoder::new(&schema, format, options.numbers);
            drive_rows(input, schema, encoder, options, output).boxed()
        }
    };
    let mut driver = AssertUnwindSafe(driver).catch_unwind().in_current_span().boxed();
    // A small result that is there already is encoded right here: a task of its own would take longer to begin.
    let guard = runtime.enter();
    let ended = driver.as_mut().now_or_never();
    drop(guard);
    let rest = match ended {
        Some(Ok(())) => None,
        Some(Err(panic)) => Some(std::future::ready(Err(panic)).boxed()),
        None => Some(driver),
    };
    let rest = rest.map(|rest| runtime.spawn(async { rest.await.unwrap_or_else(|panic| resume_unwind(panic)) }));
    let driver = rest.map(AbortOnDropHandle::new);
    Ok(Encoded { parts, driver })
}

/// Why a driver ends early.
enum Halt<E> {
    /// The reader is gone.
    Unread,
    Failed(EncodeError<E>),
}

impl<E> From<EncodeError<E>> for Halt<E> {
    fn from(error: EncodeError<E>) -> Self {
        Self::Failed(error)
    }
}

impl<E> From<BinaryError> for Halt<E> {
    fn from(error: BinaryError) -> Self {
        Self::Failed(match error {
            BinaryError::Arrow(error) => EncodeError::Arrow(error),
            BinaryError::Parquet(error) => EncodeError::Parquet(error),
        })
    }
}

impl<E> From<PieceError> for EncodeError<E> {
    fn from(error: PieceError) -> Self {
        match error {
            PieceError::Value { column, row, fault } => Self::Data { column, row, reason: fault.reason() },
            PieceError::Arrow(error) => Self::Arrow(error),
        }
    }
}

/// The driver's end of the channel, with what is counted on the way to it.
struct Output<E> {
    sender: Parts<E>,
    chunker: Chunker,
    rows: u64,
    /// Whether the first rows have left.
    started: bool,
    format: Format,
}

impl<E> Output<E> {
    /// Passes encoded rows on, in chunks of a good size.
    async fn push(&mut self, piece: Vec<u8>, rows: usize) -> Result<(), Halt<E>> {
        self.rows += rows as u64;
        let mut ready = Vec::new();
        self.chunker.push(piece, &mut ready);
        self.send(ready).await
    }

    /// The next item. The first rows leave before it where it is not there yet; fewer than a first slice are most
    /// often the whole result, which then leaves as one chunk.
    async fn next<S: Stream + Unpin>(&mut self, input: &mut S) -> Result<Option<S::Item>, Halt<E>> {
        if self.started || self.rows == 0 {
            return Ok(input.next().await);
        }
        if self.rows < FIRST_ROWS as u64
            && let Some(item) = input.next().now_or_never()
        {
            return Ok(item);
        }
        self.started = true;
        self.flush().await?;
        Ok(input.next().await)
    }

    /// Passes on what there is, whatever its size.
    async fn flush(&mut self) -> Result<(), Halt<E>> {
        let mut ready = Vec::new();
        self.chunker.flush(&mut ready);
        self.send(ready).await
    }

    async fn send(&mut self, ready: Vec<Bytes>) -> Result<(), Halt<E>> {
        for chunk in ready {
            let part = Ok(Part::Chunk(chunk));
            self.sender.send(part).await.map_err(|_| Halt::Unread)?;
        }
        Ok(())
    }

    async fn finish(&mut self, envelope: &Envelope, snapshots: &[(String, String)]) -> Result<(), Halt<E>> {
        let receipt = self.chunker.receipt(self.rows);
        let mut ready = Vec::new();
        if self.format == Format::Json {
            self.chunker.push_uncounted(envelope.members(), &mut ready);
            let next = envelope.next_page_token.as_deref();
            self.chunker.push_uncounted(receipt.envelope_end(next, snapshots), &mut ready);
        }
        self.chunker.flush(&mut ready);
        self.send(ready).await?;
        let part = Ok(Part::Receipt(receipt));
        self.sender.send(part).await.map_err(|_| Halt::Unread)
    }

    async fn end(self, outcome: Result<(), Halt<E>>) {
        if let Err(Halt::Failed(error)) = outcome {
            // A reader that is gone does not want to know.
            let _ = self.sender.send(Err(error)).await;
        }
    }
}

/// The batch, if it has the columns that were announced; names and nullability may differ.
fn conforming<E>(batch: Result<RecordBatch, E>, schema: &Schema) -> Result<RecordBatch, EncodeError<E>> {
    let batch = batch.map_err(EncodeError::Source)?;
    let announced = schema.fields().iter();
    if batch.num_columns() != announced.len() {
        return Err(EncodeError::Mismatch {
            expected: format!("{} columns", announced.len()),
            found: format!("{} columns", batch.num_columns()),
        });
    }
    for (field, column) in announced.zip(batch.columns()) {
        if !field.data_type().equals_datatype(column.data_type()) {
            return Err(EncodeError::Mismatch {
                expected: format!("column `{}` of type {}", field.name(), field.data_type()),
                found: format!("type {}", column.data_type()),
            });
        }
    }
    Ok(batch)
}

/// A slice of a batch: its rows, the number of the first of them, about how much text they become.
struct Slice {
    batch: RecordBatch,
    first: u64,
    estimate: usize,
}

impl Slice {
    fn bounded<E>(self, most: usize) -> Result<Self, EncodeError<E>> {
        if self.estimate <= most.max(PIECE) {
            return Ok(self);
        }
        Err(EncodeError::RowTooLarge { row: self.first + 1, bytes: self.estimate, most })
    }
}

fn split(batch: &RecordBatch, first: u64, encoder: &RowEncoder) -> Vec<Slice> {
    let rows = batch.num_rows();
    let estimate = encoder.estimate(batch);
    let pieces = estimate.div_ceil(PIECE).clamp(1, rows.max(1));
    let step = rows.div_ceil(pieces).max(1);
    let mut slices = Vec::with_capacity(pieces + 1);
    let mut at = 0;
    while at < rows {
        let wanted = if first == 0 && at == 0 { step.min(FIRST_ROWS) } else { step };
        let taken = wanted.min(rows - at);
        slices.push(Slice {
            batch: batch.slice(at, taken),
            first: first + at as u64,
            estimate: estimate / rows * taken,
        });
        at += taken;
    }
    slices
}

async fn drive_rows<S, E>(
    input: S,
    schema: SchemaRef,
    encoder: RowEncoder,
    options: EncodeOptions,
    mut output: Output<E>,
) where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let outcome = rows(input, &schema, Arc::new(encoder), &options, &mut output).await;
    output.end(outcome).await;
}

async fn rows<S, E>(
    input: S,
    schema: &Schema,
    encoder: Arc<RowEncoder>,
    options: &EncodeOptions,
    output: &mut Output<E>,
) -> Result<(), Halt<E>>
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    output.push(encoder.header(), 0).await?;
    let mut next = 0;
    let slices = input.flat_map(|batch| {
        let slices = match conforming(batch, schema) {
            Ok(batch) => {
                let first = next;
                next += batch.num_rows() as u64;
                split(&batch, first, &encoder).into_iter().map(|slice| slice.bounded(options.most)).collect()
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(slices)
    });
    let encoded = slices.map(|slice| {
        // Begun here, not when first polled, so that tasks run while this one waits for its reader.
        let begun = slice.map(|slice| begin_piece(Arc::clone(&encoder), slice));
        async {
            match begun? {
                Begun::Done(piece) => piece,
                Begun::Task(task) => task.await.unwrap_or_else(|error| Err(stopped(error))),
            }
        }
    });
    let mut encoded = std::pin::pin!(encoded.buffered(options.parallelism.max(1)));
    while let Some(piece) = output.next(&mut encoded).await? {
        let (bytes, rows) = piece?;
        output.push(bytes, rows).await?;
    }
    output.push(encoder.footer().to_vec(), 0).await?;
    output.finish(&options.envelope, &options.snapshots).await
}

type Piece<E> = Result<(Vec<u8>, usize), EncodeError<E>>;

enum Begun<E> {
    Done(Piece<E>),
    Task(AbortOnDropHandle<Piece<E>>),
}

fn begin_piece<E>(encoder: Arc<RowEncoder>, slice: Slice) -> Begun<E>
where
    E: Send + 'static,
{
    let inline = slice.estimate < INLINE;
    let encode = move || {
        let bytes = encoder.piece(&slice.batch, slice.first, slice.estimate)?;
        Ok((bytes, slice.batch.num_rows()))
    };
    if inline {
        Begun::Done(encode())
    } else {
        Begun::Task(AbortOnDropHandle::new(tokio::spawn(async move { encode() })))
    }
}

async fn drive_binary<S, E>(input: S, schema: SchemaRef, encoder: BinaryEncoder, mut output: Output<E>)
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let outcome = binary(input, &schema, encoder, &mut output).await;
    output.end(outcome).await;
}

async fn binary<S, E>(
    input: S,
    schema: &Schema,
    mut encoder: BinaryEncoder,
    output: &mut Output<E>,
) -> Result<(), Halt<E>>
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let mut input = std::pin::pin!(input);
    while let Some(batch) = output.next(&mut input).await? {
        let batch = conforming(batch, schema)?;
        let mut at = 0;
        while at < batch.num_rows() {
            let taken = BINARY_ROWS.min(batch.num_rows() - at);
            let bytes = encoder.write(&batch.slice(at, taken))?;
            output.push(bytes, taken).await?;
            at += taken;
            // Writing is long compared with waiting: let an abort in.
            tokio::task::yield_now().await;
        }
    }
    let last = encoder.finish()?;
    output.push(last, 0).await?;
    output.finish(&Envelope::default(), &[]).await
}
