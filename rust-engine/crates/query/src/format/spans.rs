//! Texts of a block that lie one behind the other in a buffer, and how they are copied.
//!
//! Copies have fixed widths that may reach past the text's end: what comes behind it overwrites what is too
//! much. That takes a few instructions, where a copy of the exact length takes a call and, as lengths differ
//! from row to row, branches that are often guessed wrong.

use std::ops::Range;

use super::sink::{csv_clean, csv_trimmed};

/// The most rows of a block; a bit each in a word.
pub(crate) const BLOCK: usize = 64;

/// The widest of those copies: so many bytes are read and written from where the text begins.
pub(crate) const SLACK: usize = 128;

/// Where texts begin and end, counted from the first one.
pub(crate) struct Spans {
    ends: [u32; BLOCK + 1],
    /// How long the longest is.
    most: usize,
}

impl Spans {
    pub(crate) fn new() -> Self {
        Self { ends: [0; BLOCK + 1], most: 0 }
    }

    /// From where to where in the buffer the text of a row is.
    #[inline]
    pub(crate) fn of(&self, row: usize) -> Range<usize> {
        let row = row % BLOCK;
        self.ends[row] as usize..self.ends[row + 1] as usize
    }

    /// Where the texts of so many rows end.
    pub(crate) fn total(&self, rows: usize) -> usize {
        self.ends[rows] as usize
    }

    /// Whether all texts are short enough for copies of fixed widths.
    #[inline]
    pub(crate) fn are_narrow(&self) -> bool {
        self.most <= SLACK
    }

    /// Takes texts by their lengths, which are below 4 GiB together.
    #[inline]
    pub(crate) fn lengths<V>(&mut self, texts: &[V], len: impl Fn(&V) -> u32) {
        let (mut end, mut most) = (0, 0);
        for (text, place) in texts.iter().zip(&mut self.ends[1..]) {
            let len = len(text);
            end += len;
            most = most.max(len);
            *place = end;
        }
        self.most = most as usize;
    }

    /// Takes texts by their ends, before which stands where the first one begins.
    #[inline]
    pub(crate) fn offsets<O: Copy>(&mut self, ends: &[O], distance: impl Fn(O, O) -> u32) {
        let Some((first, ends)) = ends.split_first() else {
            return;
        };
        let (mut before, mut most) = (0, 0);
        for (end, place) in ends.iter().zip(&mut self.ends[1..]) {
            let end = distance(*first, *end);
            most = most.max(end - before);
            *place = end;
            before = end;
        }
        self.most = most as usize;
    }

    /// Whether no text of a row that is `valid` needs quotes in CSV.
    pub(crate) fn csv_plain(&self, bytes: &[u8], valid: u64, rows: usize) -> bool {
        csv_clean(bytes) && (0..rows).all(|row| valid >> row & 1 == 0 || !csv_trimmed(&bytes[self.of(row)]))
    }

    /// Puts texts into `out`, with `SLACK` bytes behind them.
    #[inline]
    pub(crate) fn gather<'b, V>(&self, texts: &[V], find: impl Fn(&V) -> From<'b>, out: &mut Vec<u8>) {
        widen(out, self.total(texts.len()));
        for (row, text) in texts.iter().enumerate() {
            let span = self.of(row);
            let Some(to) = out[span.start..].first_chunk_mut::<SLACK>() else {
                return;
            };
            match find(text) {
                From::Inline(text) => {
                    if let Some(to) = to.first_chunk_mut() {
                        *to = text.to_le_bytes();
                    }
                }
                From::Buffer(source, start) if self.are_narrow() => {
                    self.copy(to, source, start..start + span.len());
                }
                From::Buffer(source, start) => {
                    let text = &source[start..start + span.len()];
                    out[span].copy_from_slice(text);
                }
            }
        }
    }

    /// Copies one of the texts, which are narrow.
    #[inline]
    pub(crate) fn copy(&self, to: &mut [u8; SLACK], source: &[u8], text: Range<usize>) {
        let Some(from) = source.get(text.start..).and_then(<[u8]>::first_chunk::<SLACK>) else {
            return copy_exact(to, source, text);
        };
        // One way for all rows of a block: a branch that is never guessed wrong.
        copy_part::<0, 32>(to, from);
        if self.most > 32 {
            copy_part::<32, 32>(to, from);
        }
        if self.most > 64 {
            copy_part::<64, 64>(to, from);
        }
    }
}

/// Where one text is.
pub(crate) enum From<'a> {
    /// At most 12 bytes, as a little-endian number.
    Inline(u128),
    /// In a buffer, from this byte on.
    Buffer(&'a [u8], usize),
}

/// Makes room for texts of `total` bytes. What is there is not cleared.
pub(crate) fn widen(out: &mut Vec<u8>, total: usize) {
    if out.len() < total + SLACK {
        out.resize(total + SLACK, 0);
    }
}

/// Writes a text of a fixed width.
#[inline]
pub(crate) fn put<const N: usize>(out: &mut [u8], at: usize, text: [u8; N]) {
    if let Some(to) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *to = text;
    }
}

/// An assignment of arrays is two or four instructions wherever it stands; copying between slices is a call
/// where the compiler does not inline the library's function.
#[inline]
fn copy_part<const AT: usize, const N: usize>(to: &mut [u8; SLACK], from: &[u8; SLACK]) {
    if let (Some(to), Some(from)) = (to[AT..].first_chunk_mut::<N>(), from[AT..].first_chunk::<N>()) {
        *to = *from;
    }
}

/// Near the end of the buffer there is less to read.
#[cold]
fn copy_exact(to: &mut [u8; SLACK], source: &[u8], text: Range<usize>) {
    to[..text.len()].copy_from_slice(&source[text]);
}
