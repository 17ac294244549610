//! The texts of one column for a block of rows. They are made column by column, where only one type and one
//! rule are at work, and put between their neighbours afterwards ([`super::block`]).

use std::ops::Range;

use super::cell::{Blobs, Body, Cell, Dialect};
use super::short::{SHORT, Short};
use super::shorts::Shorts;
use super::sink::{Fault, Sink, json_clean};
use super::spans::{From, SLACK, Spans, widen};
use super::stamps::Stamps;

/// The longest string that a view holds itself.
const INLINE: u32 = 12;

/// A column of a slice, with the texts of the current block.
pub(crate) struct Column<'a> {
    cell: Cell<'a>,
    dialect: Dialect,
    null: Short,
    /// The bytes that views refer to.
    buffers: Vec<&'a [u8]>,
    source: Source<'a>,
    shorts: Shorts,
    spans: Spans,
    /// A bit for each row that has a text in the spans; the others are nulls.
    valid: u64,
    /// Whether texts in the spans still lack their quotes.
    quoted: bool,
    /// Texts that are neither short nor lie in the column as they are, and `SLACK` bytes.
    sink: Sink,
}

/// Where the texts of a block are.
enum Source<'a> {
    Shorts,
    /// In the column's own buffer.
    Own,
    Borrowed(&'a [u8]),
}

/// The text of a row, as it is to be copied.
pub(crate) enum Text<'t> {
    /// With whatever is behind it, and its length.
    Short([u8; SHORT], usize),
    /// By the spans, in a buffer, and whether quotes belong around it.
    Long(&'t Spans, &'t [u8], bool),
}

/// How an attempt went.
#[derive(PartialEq, Eq)]
enum Fit {
    Done,
    /// The texts need a more general way.
    Unfit,
    /// They have no room in a block.
    TooWide,
}

impl<'a> Column<'a> {
    pub(crate) fn new(cell: Cell<'a>, dialect: Dialect) -> Self {
        let buffers = match &cell.body {
            Body::Text(Blobs::TextView(array), _) => array.data_buffers().iter().map(|buffer| &buffer[..]).collect(),
            _ => Vec::new(),
        };
        Self {
            cell,
            dialect,
            null: Short::new(if dialect == Dialect::Json { b"null" } else { b"" }),
            buffers,
            source: Source::Shorts,
            shorts: Shorts::new(),
            spans: Spans::new(),
            valid: u64::MAX,
            quoted: false,
            sink: Sink::default(),
        }
    }

    /// Makes the texts of at most [`super::spans::BLOCK`] rows. Returns how many bytes they take at most;
    /// `None` where that is more than `room`.
    pub(crate) fn fill(&mut self, rows: Range<usize>, room: usize) -> Option<usize> {
        let json = self.dialect == Dialect::Json;
        if self.shorts.make(&self.cell, &rows, self.cell.quoted && json, self.null) {
            self.source = Source::Shorts;
            return Some(rows.len() * SHORT);
        }
        self.valid = self.valid_rows(&rows);
        self.quoted = false;
        let fit = match &self.cell.body {
            Body::Text(..) => self.strings(&rows, room),
            Body::Encoded(..) => self.encoded(&rows, room),
            Body::Timestamp(..) => self.timestamps(&rows, room),
            _ => Fit::Unfit,
        };
        let fit = if fit == Fit::Unfit { self.values(&rows, room) } else { fit };
        // Two quotes or a null.
        (fit == Fit::Done).then(|| rows.len() * 4 + self.spans.total(rows.len()))
    }

    /// The text of a row of the block.
    #[inline]
    pub(crate) fn text(&self, row: usize) -> Text<'_> {
        let source = match self.source {
            Source::Shorts => {
                let (text, len) = self.shorts.of(row);
                return Text::Short(*text, len);
            }
            Source::Own => &self.sink.buf,
            Source::Borrowed(bytes) => bytes,
        };
        if self.valid >> row & 1 == 0 {
            return Text::Short(self.null.text.to_le_bytes(), usize::from(self.null.len));
        }
        Text::Long(&self.spans, source, self.quoted)
    }

    /// Writes one value of the slice, of any length.
    pub(crate) fn write(&self, row: usize, sink: &mut Sink) {
        self.cell.write(row, self.dialect, sink);
    }

    /// Why a value of a block has no text.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.sink.fault
    }

    /// Strings that need no escapes.
    fn strings(&mut self, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Text(strings, clean) = &self.cell.body else {
            return Fit::Unfit;
        };
        let (from, to) = (rows.start, rows.end);
        let borrowed = match strings {
            Blobs::Small(ends, bytes) => Some((ends[from] as usize, ends[to] as usize, *bytes)),
            Blobs::Large(ends, bytes) => Some((ends[from] as usize, ends[to] as usize, *bytes)),
            _ => None,
        };
        if let Some((first, last, bytes)) = borrowed {
            if last - first > room {
                return Fit::TooWide;
            }
            self.source = Source::Borrowed(&bytes[first..]);
        }
        match strings {
            Blobs::Small(ends, _) => self.spans.offsets(&ends[from..=to], |first, end| (end - first) as u32),
            Blobs::Large(ends, _) => self.spans.offsets(&ends[from..=to], |first, end| (end - first) as u32),
            Blobs::TextView(array) => {
                let views = &array.views()[rows.clone()];
                let mut total = 0;
                for view in views {
                    total += u64::from(*view as u32);
                }
                if total > room as u64 {
                    return Fit::TooWide;
                }
                self.source = Source::Own;
                self.spans.lengths(views, |view| *view as u32);
                let find = |view: &u128| match *view as u32 {
                    0..=INLINE => From::Inline(view >> 32),
                    _ => From::Buffer(self.buffers[(view >> 64) as u32 as usize], (view >> 96) as usize),
                };
                self.spans.gather(views, find, &mut self.sink.buf);
            }
            Blobs::View(_) | Blobs::Fixed(_) => return Fit::Unfit,
        }
        self.quoted = self.dialect == Dialect::Json;
        let bytes = match self.source {
            Source::Borrowed(bytes) => bytes,
            Source::Own | Source::Shorts => &self.sink.buf,
        };
        let bytes = &bytes[..self.spans.total(rows.len())];
        let plain = match self.dialect {
            Dialect::Json => *clean || json_clean(bytes),
            Dialect::Csv => self.spans.csv_plain(bytes, self.valid, rows.len()),
        };
        if plain { Fit::Done } else { Fit::Unfit }
    }

    /// Values of a dictionary of which the texts are ready.
    fn encoded(&mut self, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Encoded(keys, ends, text) = &self.cell.body else {
            return Fit::Unfit;
        };
        let keys = &keys[rows.clone()];
        let len = |key: &usize| ends[key + 1] - ends[*key];
        if keys.iter().map(len).sum::<usize>() > room {
            return Fit::TooWide;
        }
        self.source = Source::Own;
        self.spans.lengths(keys, |key| len(key) as u32);
        self.spans.gather(keys, |key| From::Buffer(text, ends[*key]), &mut self.sink.buf);
        Fit::Done
    }

    /// Timestamps of which all texts are equally long.
    fn timestamps(&mut self, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Timestamp(values, unit, zone) = &self.cell.body else {
            return Fit::Unfit;
        };
        let Some(stamps) = Stamps::new(*unit, *zone, self.dialect == Dialect::Json) else {
            return Fit::Unfit;
        };
        let values = &values[rows.clone()];
        let total = stamps.len() * values.len();
        if total > room {
            return Fit::TooWide;
        }
        self.source = Source::Own;
        self.spans.lengths(values, |_| stamps.len() as u32);
        widen(&mut self.sink.buf, total);
        if stamps.write(values, &mut self.sink.buf) { Fit::Done } else { Fit::Unfit }
    }

    /// Whatever else there is, value by value.
    fn values(&mut self, rows: &Range<usize>, room: usize) -> Fit {
        let mut lens = [0; super::spans::BLOCK];
        let sink = &mut self.sink;
        sink.buf.clear();
        for (row, len) in rows.clone().zip(&mut lens) {
            let begin = sink.buf.len();
            self.cell.write(row, self.dialect, sink);
            if sink.buf.len() > room {
                // What comes next writes elsewhere, and this may be large.
                sink.buf = Vec::new();
                return Fit::TooWide;
            }
            *len = (sink.buf.len() - begin) as u32;
        }
        self.spans.lengths(&lens[..rows.len()], |len| *len);
        sink.buf.resize(sink.buf.len() + SLACK, 0);
        // Nulls have been written like all others.
        (self.source, self.valid, self.quoted) = (Source::Own, u64::MAX, false);
        Fit::Done
    }

    fn valid_rows(&self, rows: &Range<usize>) -> u64 {
        let Some(nulls) = self.cell.nulls else {
            return u64::MAX;
        };
        let mut bits = 0;
        for row in rows.clone().rev() {
            bits = bits << 1 | u64::from(nulls.is_valid(row));
        }
        bits
    }
}
