//! Small results whose rows are all there: encoded in one go, on the caller's thread.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use sha2::{Digest, Sha256};

use super::check::check;
use super::chunks::Receipt;
use super::envelope::Envelope;
use super::rows::RowEncoder;
use super::{Format, NumberStyle};

/// About how long the end of a JSON envelope is.
const END: usize = 512;

/// Encodes batches of `schema` as [`super::encode`] would. Nothing where it would fail, where the text would be longer than
/// about `most` bytes, and for formats that are not written row by row.
pub(crate) fn encode_whole(
    batches: impl Iterator<Item = Result<RecordBatch, DataFusionError>>,
    schema: &Schema,
    format: Format,
    numbers: NumberStyle,
    envelope: &Envelope,
    snapshots: &[(String, String)],
    most: usize,
) -> Option<(Bytes, Receipt)> {
    if matches!(format, Format::Arrow | Format::Parquet) {
        return None;
    }
    check(schema, format).ok()?;
    let encoder = RowEncoder::new(schema, format, numbers);
    let mut body = encoder.header();
    let mut rows = 0;
    for batch in batches {
        let batch = batch.ok()?;
        let estimate = encoder.estimate(&batch);
        if body.len() + estimate > most {
            return None;
        }
        let piece = encoder.piece(&batch, rows, estimate).ok()?;
        body.reserve(piece.len() + END);
        body.extend(piece);
        rows += batch.num_rows() as u64;
    }
    body.extend(encoder.footer());
    let receipt = Receipt { rows, bytes: body.len() as u64, sha256: Sha256::digest(&body).into() };
    if format == Format::Json {
        body.extend(envelope.members());
        body.extend(receipt.envelope_end(envelope.next_page_token.as_deref(), snapshots));
    }
    Some((Bytes::from(body), receipt))
}
