//! Short texts of a block's values: numbers, dates, booleans.

use std::ops::Range;

use super::cell::{Body, Cell};
use super::short::{Numbers, SHORT, Short, int};
use super::spans::BLOCK;
use super::time::{date_short, has_date};

const FALSE: Short = Short::new(b"false");
const TRUE: Short = Short::new(b"true");

const MILLIS_PER_DAY: i64 = 86_400_000;

/// One text a row.
pub(crate) struct Shorts {
    texts: [[u8; SHORT]; BLOCK],
    lens: [u8; BLOCK],
}

impl Shorts {
    pub(crate) fn new() -> Self {
        Self { texts: [[0; SHORT]; BLOCK], lens: [0; BLOCK] }
    }

    /// The text of a row, with whatever is behind it, and its length.
    #[inline]
    pub(crate) fn of(&self, row: usize) -> (&[u8; SHORT], usize) {
        let row = row % BLOCK;
        (&self.texts[row], usize::from(self.lens[row]))
    }

    /// Makes the texts of some rows of a column; `false` where one of them is not short or there is none.
    pub(crate) fn make(&mut self, cell: &Cell<'_>, rows: &Range<usize>, quoted: bool, null: Short) -> bool {
        if !self.values(&cell.body, rows.clone(), quoted) {
            return false;
        }
        if quoted {
            self.quote(rows.len());
        }
        if let Some(nulls) = cell.nulls {
            for ((row, text), len) in rows.clone().zip(&mut self.texts).zip(&mut self.lens) {
                if nulls.is_null(row) {
                    (*text, *len) = (null.text.to_le_bytes(), null.len);
                }
            }
        }
        true
    }

    fn values(&mut self, body: &Body<'_>, rows: Range<usize>, quoted: bool) -> bool {
        let mut wide = Wide([0; BLOCK]);
        match body {
            Body::Bool(bits) => {
                for ((row, text), len) in rows.zip(&mut self.texts).zip(&mut self.lens) {
                    let short = if bits.value(row) { TRUE } else { FALSE };
                    (*text, *len) = (short.text.to_le_bytes(), short.len);
                }
                true
            }
            Body::I8(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            Body::I16(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            Body::I32(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            Body::I64(values) => self.numbers(&values[rows], 0, quoted),
            Body::U8(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            Body::U16(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            Body::U32(values) => self.numbers(wide.of(&values[rows], i64::from), 0, quoted),
            // What 64 bits with a sign can't hold becomes a number that is just as far from being short.
            Body::U64(values) => {
                let widen = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                self.numbers(wide.of(&values[rows], widen), 0, quoted)
            }
            Body::Decimal32(values, scale) => self.numbers(wide.of(&values[rows], i64::from), *scale, quoted),
            Body::Decimal64(values, scale) => self.numbers(&values[rows], *scale, quoted),
            Body::Decimal128(values, scale) => {
                let widen = |value: i128| if i128::from(value as i64) == value { value as i64 } else { i64::MAX };
                self.numbers(wide.of(&values[rows], widen), *scale, quoted)
            }
            Body::Date32(values) => self.dates(wide.of(&values[rows], i64::from)),
            Body::Date64(values) => self.dates(wide.of(&values[rows], |millis| millis.div_euclid(MILLIS_PER_DAY))),
            _ => false,
        }
    }

    fn numbers(&mut self, values: &[i64], scale: i8, quoted: bool) -> bool {
        let (mut most, mut signs) = (0, 0);
        for value in values {
            most = value.unsigned_abs().max(most);
            signs |= value;
        }
        let numbers = Numbers::new(most, scale, quoted);
        match (numbers, signs < 0) {
            (None, _) => return false,
            (Some(Numbers::Ints), false) => self.fill(values, |value| int(value as u64)),
            (Some(Numbers::Ints), true) => self.fill_signed(values, int),
            (Some(Numbers::Narrow(numbers)), false) => self.fill(values, |value| numbers.write(value as u64)),
            (Some(Numbers::Narrow(numbers)), true) => self.fill_signed(values, |value| numbers.write(value)),
            (Some(Numbers::Wide(numbers)), false) => self.fill(values, |value| numbers.write(value as u64)),
            (Some(Numbers::Wide(numbers)), true) => self.fill_signed(values, |value| numbers.write(value)),
        }
        true
    }

    fn dates(&mut self, days: &[i64]) -> bool {
        let mut all = true;
        for days in days {
            all &= has_date(*days);
        }
        if all {
            self.fill(days, date_short);
        }
        all
    }

    #[inline]
    fn fill(&mut self, values: &[i64], write: impl Fn(i64) -> Short) {
        for ((value, text), len) in values.iter().zip(&mut self.texts).zip(&mut self.lens) {
            let short = write(*value);
            (*text, *len) = (short.text.to_le_bytes(), short.len);
        }
    }

    #[inline]
    fn fill_signed(&mut self, values: &[i64], write: impl Fn(u64) -> Short) {
        self.fill(values, |value| write(value.unsigned_abs()).signed(value < 0));
    }

    fn quote(&mut self, rows: usize) {
        for (text, len) in self.texts.iter_mut().zip(&mut self.lens).take(rows) {
            let quoted = Short { text: u128::from_le_bytes(*text), len: *len }.quoted();
            (*text, *len) = (quoted.text.to_le_bytes(), quoted.len);
        }
    }
}

/// Numbers of any type as numbers of one type, so that what comes after is compiled once.
struct Wide([i64; BLOCK]);

impl Wide {
    #[inline]
    fn of<V: Copy>(&mut self, values: &[V], widen: impl Fn(V) -> i64) -> &[i64] {
        for (value, wide) in values.iter().zip(&mut self.0) {
            *wide = widen(*value);
        }
        &self.0[..values.len()]
    }
}
