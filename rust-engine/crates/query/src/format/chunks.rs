//! Cuts encoded bytes into chunks of 64 to 256 KiB, and counts and digests them on the way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::sink::Sink;

const LEAST: usize = 64 << 10;
const MOST: usize = 256 << 10;
/// Where too large a piece is cut: leaves at least `LEAST` of what is larger than `MOST`.
const CUT: usize = 192 << 10;

/// What ends every complete result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How many rows were encoded.
    pub rows: u64,
    /// How many bytes the digest covers: the whole body, or with [`super::Format::Json`] all up to and
    /// including the `]` that closes the rows.
    pub bytes: u64,
    /// SHA-256 of those bytes.
    pub sha256: [u8; 32],
}

impl Receipt {
    /// The end of the JSON envelope, from the comma after the rows to the line's end; `next` is a page's.
    pub(crate) fn envelope_end(&self, next: Option<&str>, snapshots: &[(String, String)]) -> Vec<u8> {
        let mut sink = Sink::default();
        if let Some(token) = next {
            sink.raw(b",\"next_page_token\":");
            sink.json_string(token.as_bytes(), false);
        }
        sink.raw(b",\"receipt\":{\"rows\":");
        sink.int(self.rows);
        sink.raw(b",\"bytes\":");
        sink.int(self.bytes);
        sink.raw(b",\"digest\":\"sha-256=:");
        sink.raw(STANDARD.encode(self.sha256).as_bytes());
        sink.raw(b":\",\"snapshots\":{");
        for (at, (table, snapshot)) in snapshots.iter().enumerate() {
            if at > 0 {
                sink.byte(b',');
            }
            sink.json_string(table.as_bytes(), false);
            sink.byte(b':');
            sink.json_string(snapshot.as_bytes(), false);
        }
        sink.raw(b"}}}\n");
        sink.buf
    }
}

/// Collects pieces, gives chunks.
#[derive(Default)]
pub(crate) struct Chunker {
    pending: Vec<u8>,
    digest: Sha256,
    bytes: u64,
}

impl Chunker {
    /// Takes bytes that the digest covers; `ready` gets the chunks that are complete.
    pub(crate) fn push(&mut self, piece: Vec<u8>, ready: &mut Vec<Bytes>) {
        self.digest.update(&piece);
        self.bytes += piece.len() as u64;
        self.cut(Bytes::from(piece), ready);
    }

    /// Takes bytes that the digest does not cover.
    pub(crate) fn push_uncounted(&mut self, piece: Vec<u8>, ready: &mut Vec<Bytes>) {
        self.cut(Bytes::from(piece), ready);
    }

    /// Gives what is held back, however small.
    pub(crate) fn flush(&mut self, ready: &mut Vec<Bytes>) {
        if !self.pending.is_empty() {
            ready.push(Bytes::from(std::mem::take(&mut self.pending)));
        }
    }

    /// Ends the digest.
    pub(crate) fn receipt(&mut self, rows: u64) -> Receipt {
        Receipt { rows, bytes: self.bytes, sha256: self.digest.finalize_reset().into() }
    }

    /// Pieces of the right size pass without a copy; small rests are put before the next piece.
    fn cut(&mut self, mut piece: Bytes, ready: &mut Vec<Bytes>) {
        if !self.pending.is_empty() || piece.len() < LEAST {
            let missing = LEAST.saturating_sub(self.pending.len()).min(piece.len());
            self.pending.extend_from_slice(&piece.split_to(missing));
            if self.pending.len() < LEAST {
                return;
            }
            ready.push(Bytes::from(std::mem::take(&mut self.pending)));
        }
        while piece.len() > MOST {
            ready.push(piece.split_to(CUT));
        }
        if piece.len() < LEAST {
            self.pending.extend_from_slice(&piece);
        } else {
            ready.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_their_sizes_and_all_bytes() {
        for step in [1, 1_000, LEAST - 1, LEAST, LEAST + 1, MOST, MOST + 1, 3 * MOST, 999_999] {
            let mut chunker = Chunker::default();
            let (mut ready, mut sent) = (Vec::new(), Vec::new());
            for round in 0..(2_000_000 / step).clamp(3, 200_000) {
                let piece = vec![round as u8; step];
                sent.extend_from_slice(&piece);
                chunker.push(piece, &mut ready);
            }
            assert!(ready.iter().all(|chunk| (LEAST..=MOST).contains(&chunk.len())), "{step}");
            chunker.flush(&mut ready);
            assert!(ready.iter().all(|chunk| chunk.len() <= MOST), "{step}");
            assert_eq!(ready.concat(), sent);
            let receipt = chunker.receipt(7);
            assert_eq!(receipt.bytes, sent.len() as u64);
            assert_eq!(receipt.sha256, <[u8; 32]>::from(Sha256::digest(&sent)));
        }
    }

    #[test]
    fn the_envelope_ends_with_the_receipt() {
        let receipt = Receipt { rows: 2, bytes: 9, sha256: [0; 32] };
        let snapshots = [("t".to_owned(), "a\"b".to_owned()), ("u".to_owned(), "c".to_owned())];
        let end = String::from_utf8(receipt.envelope_end(None, &snapshots)).expect("text");
        assert_eq!(
            end,
            concat!(
                r#","receipt":{"rows":2,"bytes":9,"#,
                r#""digest":"sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:","#,
                r#""snapshots":{"t":"a\"b","u":"c"}}}"#,
                "\n"
            )
        );
    }
}
