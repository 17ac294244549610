//! Rows put together from the texts of their columns, a block at a time.
//!
//! The window that rows are written to has a size known to the compiler and positions are cut to it, so that no
//! copy is checked: a block is only begun where its rows are known to fit.

use std::ops::Range;

use super::cell::{Cell, Dialect};
use super::column::{Column, Text};
use super::sink::Fault;
use super::spans::{BLOCK, SLACK};

/// The rows of a block are shorter than this together. Half of it is what blocks aim at: that much
/// stays near the processor, and leaves tables of a hundred columns rows enough for a block to be worth it.
const ROOM: usize = 64 << 10;

/// Keys are copied in this width.
const KEY: usize = 32;

/// What stands before a value.
pub(crate) struct Key {
    /// With the quote that texts begin with: it is overwritten where there is none.
    quoted: Vec<u8>,
    /// The same, if it is so short.
    head: Option<[u8; KEY]>,
}

impl Key {
    pub(crate) fn new(text: Vec<u8>) -> Self {
        let mut quoted = text;
        quoted.push(b'"');
        let mut head = [0; KEY];
        let short = head.get_mut(..quoted.len()).map(|head| head.copy_from_slice(&quoted)).is_some();
        Self { quoted, head: short.then_some(head) }
    }

    pub(crate) fn len(&self) -> usize {
        self.quoted.len() - 1
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.quoted[..self.len()]
    }
}

/// The columns of a slice, and where rows are put together.
pub(crate) struct Block<'a> {
    keys: &'a [Key],
    cells: &'a [Cell<'a>],
    columns: Vec<Column<'a>>,
    window: Window,
}

impl<'a> Block<'a> {
    pub(crate) fn new(keys: &'a [Key], cells: &'a [Cell<'a>], dialect: Dialect) -> Self {
        let columns = cells.iter().map(|cell| Column::new(cell, dialect)).collect();
        Self { keys, cells, columns, window: Window { bytes: Box::new([0; _]) } }
    }

    /// How many rows of about this length to write at once.
    pub(crate) fn rows(len: usize) -> usize {
        (ROOM / 2).checked_div(len).unwrap_or(BLOCK).clamp(1, BLOCK)
    }

    /// Writes a few rows; `None` where they are too long for a block.
    pub(crate) fn write(&mut self, rows: Range<usize>) -> Option<&[u8]> {
        let mut len = 0;
        for ((key, cell), column) in self.keys.iter().zip(self.cells).zip(&mut self.columns) {
            len += key.len() * rows.len() + column.fill(cell, rows.clone(), ROOM)?;
            if len >= ROOM {
                return None;
            }
        }
        let mut at = 0;
        for row in 0..rows.len() {
            for (key, column) in self.keys.iter().zip(&self.columns) {
                at = self.window.key(at, key);
                at = self.window.value(at, column, row);
            }
        }
        Some(&self.window.bytes[..at])
    }

    /// Why a value was not written.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.columns.iter().find_map(Column::fault)
    }
}

struct Window {
    bytes: Box<[u8; ROOM + SLACK]>,
}

impl Window {
    /// The next `N` bytes from `at` on.
    #[inline]
    fn at<const N: usize>(&mut self, at: usize) -> &mut [u8; N] {
        const { assert!(N <= SLACK && ROOM.is_power_of_two()) };
        // Always there, as the compiler sees too.
        self.bytes[at % ROOM..].first_chunk_mut().unwrap_or_else(|| unreachable!())
    }

    #[inline]
    fn key(&mut self, at: usize, key: &Key) -> usize {
        match &key.head {
            Some(head) => *self.at(at) = *head,
            None => self.exact(at, &key.quoted),
        }
        at + key.len()
    }

    /// Writes a value behind its key and the quote after that.
    #[inline]
    fn value(&mut self, at: usize, column: &Column<'_>, row: usize) -> usize {
        let (spans, source, quoted) = match column.text(row) {
            Text::Short(text, len) => {
                *self.at(at) = text;
                return at + len;
            }
            Text::Long(spans, source, quoted) => (spans, source, quoted),
        };
        let span = spans.of(row);
        let begin = at + usize::from(quoted);
        let end = begin + span.len();
        if spans.are_narrow() {
            spans.copy(self.at(begin), source, span);
        } else {
            self.exact(begin, &source[span]);
        }
        if quoted {
            *self.at(end) = *b"\"";
        }
        end + usize::from(quoted)
    }

    fn exact(&mut self, at: usize, text: &[u8]) {
        self.bytes[at..at + text.len()].copy_from_slice(text);
    }
}
