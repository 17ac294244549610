//! Decompression on the way in, a bounded step at a time.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{Decoder as RawZstd, InBuffer, Operation, OutBuffer};

/// How a text file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip, also of several members.
    Gzip,
    /// Zstandard, also of several frames.
    Zstd,
}

impl Compression {
    /// What the end of a file name says: `.gz`, `.zst`, or neither.
    pub fn from_path(path: &str) -> Self {
        let lower = path.to_ascii_lowercase();
        if lower.ends_with(".gz") {
            Self::Gzip
        } else if lower.ends_with(".zst") {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// Text wanted in one step.
const STEP: usize = 1 << 20;
/// Gzip expands at most 1,032 times, so this much input bounds a step's output to 4 MiB.
const GZIP_INPUT_STEP: usize = 4 << 10;

/// Compressed chunks in, text out.
pub(super) struct Inflate {
    chunks: VecDeque<Bytes>,
    finished: bool,
    codec: Codec,
}

enum Codec {
    None,
    Gzip(GzipState),
    Zstd { raw: Box<RawZstd<'static>>, mid_frame: bool, pending_output: bool },
}

struct GzipState {
    decoder: Option<Box<MultiGzDecoder<Vec<u8>>>>,
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflate").field("finished", &self.finished).finish_non_exhaustive()
    }
}

/// What a step of [`Inflate::fill`] came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Text was added, or input was consumed; more may be at hand.
    Progress,
    /// All chunks are used up; more may be pushed.
    Starved,
    /// The input has ended.
    End,
}

impl Inflate {
    pub(super) fn new(compression: Compression) -> Result<Self, String> {
        let codec = match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip(GzipState { decoder: Some(Box::new(MultiGzDecoder::new(Vec::new()))) }),
            Compression::Zstd => {
                let raw = RawZstd::new().map_err(|error| format!("cannot start zstd: {error}"))?;
                Codec::Zstd { raw: Box::new(raw), mid_frame: false, pending_output: false }
            }
        };
        Ok(Self { chunks: VecDeque::new(), finished: false, codec })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Appends the next piece of text to `out`.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) -> Result<Fill, String> {
        let Some(chunk) = self.chunks.front_mut() else {
            return match &mut self.codec {
                Codec::Zstd { pending_output: true, .. } => self.fill_zstd(out),
                _ if self.finished => self.end(out),
                _ => Ok(Fill::Starved),
            };
        };
        match &mut self.codec {
            Codec::None => {
                let take = chunk.len().min(STEP);
                out.extend_from_slice(&chunk[..take]);
                chunk.advance(take);
            }
            Codec::Gzip(state) => {
                let take = chunk.len().min(GZIP_INPUT_STEP);
                let decoder = state.decoder.as_mut().ok_or("the gzip stream has ended")?;
                decoder.write_all(&chunk[..take]).map_err(|error| corrupt("gzip", &error))?;
                out.append(decoder.get_mut());
                chunk.advance(take);
            }
            Codec::Zstd { .. } => return self.fill_zstd(out),
        }
        self.drop_spent();
        Ok(Fill::Progress)
    }

    fn drop_spent(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }

    fn fill_zstd(&mut self, out: &mut Vec<u8>) -> Result<Fill, String> {
        let Codec::Zstd { raw, mid_frame, pending_output } = &mut self.codec else {
            return Ok(Fill::Starved);
        };
        let empty: &[u8] = &[];
        let source = self.chunks.front().map_or(empty, |chunk| chunk.as_ref());
        let before = out.len();
        out.resize(before + STEP, 0);
        let mut input = InBuffer::around(source);
        let mut output = OutBuffer::around(&mut out[before..]);
        let hint = raw.run(&mut input, &mut output).map_err(|error| corrupt("zstd", &error))?;
        let (used, written) = (input.pos(), output.pos());
        out.truncate(before + written);
        *pending_output = written == STEP;
        *mid_frame = hint != 0;
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.advance(used);
        }
        self.drop_spent();
        Ok(Fill::Progress)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<Fill, String> {
        match &mut self.codec {
            Codec::None | Codec::Zstd { mid_frame: false, .. } => {}
            Codec::Zstd { .. } => return Err(truncated("zstd")),
            Codec::Gzip(state) => {
                if let Some(mut decoder) = state.decoder.take() {
                    decoder.try_finish().map_err(|_| truncated("gzip"))?;
                    out.append(decoder.get_mut());
                }
            }
        }
        Ok(Fill::End)
    }
}

fn corrupt(codec: &str, error: &std::io::Error) -> String {
    format!("the {codec} data is corrupt ({error}); compress the file again")
}

fn truncated(codec: &str) -> String {
    format!("the {codec} data ends early: the file is truncated; copy it again in full")
}
