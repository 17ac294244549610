//! The texts of one column for a block of rows. They are made column by column, where only one type and one
//! rule are at work, and put between their neighbours afterwards ([`super::block`]).

use std::ops::Range;

use super::cell::{Blobs, Body, Cell, Dialect};
use super::short::{SHORT, Short, long_int};
use super::shorts::Shorts;
use super::sink::{Fault, Sink, json_clean};
use super::spans::{BLOCK, From, SLACK, Spans, put, widen};
use super::stamps::Stamps;

/// The longest string that a view holds itself.
const INLINE: u32 = 12;

/// A column of a slice, with the texts of the current block.
pub(crate) struct Column<'a> {
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
    /// Strings, gathered from their views, and `SLACK` bytes.
    strings: Vec<u8>,
    /// Texts that are neither short nor strings without escapes, and `SLACK` bytes.
    sink: Sink,
}

/// Where the texts of a block are.
enum Source<'a> {
    Shorts,
    /// In the column's sink.
    Sink,
    Gathered,
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
    pub(crate) fn new(cell: &Cell<'a>, dialect: Dialect) -> Self {
        let buffers = match &cell.body {
            Body::Text(Blobs::TextView(array), _) => array.data_buffers().iter().map(|buffer| &buffer[..]).collect(),
            _ => Vec::new(),
        };
        Self {
            dialect,
            null: Short::new(if dialect == Dialect::Json { b"null" } else { b"" }),
            buffers,
            source: Source::Shorts,
            shorts: Shorts::new(),
            spans: Spans::new(),
            valid: u64::MAX,
            quoted: false,
            strings: Vec::new(),
            sink: Sink::default(),
        }
    }

    /// Makes the texts of at most `BLOCK` rows of the column's cell. Returns how many bytes they take at most;
    /// `None` where that is more than `room`.
    pub(crate) fn fill(&mut self, cell: &Cell<'a>, rows: Range<usize>, room: usize) -> Option<usize> {
        let json = self.dialect == Dialect::Json;
        if self.shorts.make(cell, &rows, cell.quoted && json, self.null) {
            self.source = Source::Shorts;
            return Some(rows.len() * SHORT);
        }
        self.valid = valid_rows(cell, &rows);
        self.quoted = false;
        let fit = match &cell.body {
            Body::Text(..) => self.strings(cell, &rows, room),
            Body::Encoded(..) => self.encoded(cell, &rows, room),
            Body::Timestamp(..) => self.timestamps(cell, &rows, room),
            Body::I64(values) => {
                self.integers(&values[rows.clone()], cell.quoted && json, |value| (value.unsigned_abs(), value < 0))
            }
            Body::U64(values) => self.integers(&values[rows.clone()], cell.quoted && json, |value| (value, false)),
            _ => Fit::Unfit,
        };
        let fit = if fit == Fit::Unfit { self.values(cell, &rows, room) } else { fit };
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
            Source::Sink => &self.sink.buf,
            Source::Gathered => &self.strings,
            Source::Borrowed(bytes) => bytes,
        };
        if self.valid >> row & 1 == 0 {
            return Text::Short(self.null.text.to_le_bytes(), usize::from(self.null.len));
        }
        Text::Long(&self.spans, source, self.quoted)
    }

    /// Why a value of a block has no text.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.sink.fault
    }

    /// Strings that need no escapes.
    fn strings(&mut self, cell: &Cell<'a>, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Text(strings, clean) = &cell.body else {
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
                self.source = Source::Gathered;
                self.spans.lengths(views, |view| *view as u32);
                let find = |view: &u128| match *view as u32 {
                    0..=INLINE => From::Inline(view >> 32),
                    _ => From::Buffer(self.buffers[(view >> 64) as u32 as usize], (view >> 96) as usize),
                };
                self.spans.gather(views, find, &mut self.strings);
            }
            Blobs::View(_) | Blobs::Fixed(_) => return Fit::Unfit,
        }
        let bytes = match self.source {
            Source::Borrowed(bytes) => bytes,
            _ => &self.strings,
        };
        let bytes = &bytes[..self.spans.total(rows.len())];
        let plain = match self.dialect {
            Dialect::Json => *clean || json_clean(bytes),
            Dialect::Csv => self.spans.csv_plain(bytes, self.valid, rows.len()),
        };
        self.quoted = plain && self.dialect == Dialect::Json;
        if plain { Fit::Done } else { self.escaped(rows.len(), room) }
    }

    /// The strings that lie ready, of which some need escapes or quotes.
    fn escaped(&mut self, rows: usize, room: usize) -> Fit {
        let bytes = match self.source {
            Source::Borrowed(bytes) => bytes,
            _ => &self.strings,
        };
        let mut lens = [0; BLOCK];
        let sink = &mut self.sink;
        sink.buf.clear();
        for (row, len) in (0..rows).zip(&mut lens) {
            let begin = sink.buf.len();
            let text = &bytes[self.spans.of(row)];
            match (self.valid >> row & 1, self.dialect) {
                (0, _) => {}
                (_, Dialect::Json) => sink.json_string(text, false),
                (_, Dialect::Csv) => sink.csv_string(text),
            }
            *len = (sink.buf.len() - begin) as u32;
        }
        self.spans.lengths(&lens[..rows], |len| *len);
        let total = sink.buf.len();
        sink.buf.resize(total + SLACK, 0);
        self.source = Source::Sink;
        if total > room { Fit::TooWide } else { Fit::Done }
    }

    /// Values of a dictionary of which the texts are ready.
    fn encoded(&mut self, cell: &Cell<'a>, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Encoded(keys, ends, text) = &cell.body else {
            return Fit::Unfit;
        };
        let keys = &keys[rows.clone()];
        let len = |key: &usize| ends[key + 1] - ends[*key];
        if keys.iter().map(len).sum::<usize>() > room {
            return Fit::TooWide;
        }
        self.source = Source::Sink;
        self.spans.lengths(keys, |key| len(key) as u32);
        self.spans.gather(keys, |key| From::Buffer(text, ends[*key]), &mut self.sink.buf);
        Fit::Done
    }

    /// Timestamps of which all texts are equally long.
    fn timestamps(&mut self, cell: &Cell<'a>, rows: &Range<usize>, room: usize) -> Fit {
        let Body::Timestamp(values, unit, zone) = &cell.body else {
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
        self.source = Source::Sink;
        self.spans.lengths(values, |_| stamps.len() as u32);
        widen(&mut self.sink.buf, total);
        if stamps.write(values, &mut self.sink.buf) { Fit::Done } else { Fit::Unfit }
    }

    /// Integers that are too long for short texts, by magnitude and sign.
    #[inline]
    fn integers<V: Copy>(&mut self, values: &[V], quoted: bool, split: impl Fn(V) -> (u64, bool)) -> Fit {
        const LONGEST: usize = "\"-9223372036854775808\"".len();
        let mut lens = [0; BLOCK];
        let out = &mut self.sink.buf;
        widen(out, values.len() * LONGEST);
        let mut at = 0;
        for (value, len) in values.iter().zip(&mut lens) {
            let begin = at;
            let (magnitude, negative) = split(*value);
            let (first, rest) = long_int(magnitude);
            let quote = Short { text: u128::from(b'"'), len: u8::from(quoted) };
            let minus = Short { text: u128::from(b'-'), len: u8::from(negative) };
            for part in [quote, minus, first, rest, quote] {
                put(out, at, part.text.to_le_bytes());
                at += usize::from(part.len);
            }
            *len = (at - begin) as u32;
        }
        self.spans.lengths(&lens[..values.len()], |len| *len);
        self.source = Source::Sink;
        Fit::Done
    }

    /// Whatever else there is, value by value.
    fn values(&mut self, cell: &Cell<'a>, rows: &Range<usize>, room: usize) -> Fit {
        let mut lens = [0; BLOCK];
        let sink = &mut self.sink;
        sink.buf.clear();
        for (row, len) in rows.clone().zip(&mut lens) {
            let begin = sink.buf.len();
            cell.write(row, self.dialect, sink);
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
        (self.source, self.valid, self.quoted) = (Source::Sink, u64::MAX, false);
        Fit::Done
    }
}

/// A bit for each row that is not null.
fn valid_rows(cell: &Cell<'_>, rows: &Range<usize>) -> u64 {
    let Some(nulls) = cell.nulls else {
        return u64::MAX;
    };
    let mut bits = 0;
    for row in rows.clone().rev() {
        bits = bits << 1 | u64::from(nulls.is_valid(row));
    }
    bits
}
