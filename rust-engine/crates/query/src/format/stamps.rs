//! The texts of a block's timestamps, where they are all equally long.

use arrow::datatypes::TimeUnit;

use super::short::{Short, ZEROS, eight_digits};
use super::sink::Sink;
use super::spans::put;
use super::time::{DAY, Zone, clock_text, date_short, has_date, resolution};

/// Timestamps of a column of which all texts are equally long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    unit: TimeUnit,
    /// What local time is ahead of UTC.
    seconds: i64,
    quoted: bool,
    /// The zone and the closing quote.
    tail: Short,
}

impl Stamps {
    /// `None` where the length of the texts is not known beforehand.
    pub(crate) fn new(unit: TimeUnit, zone: Zone, quoted: bool) -> Option<Self> {
        let mut sink = Sink::default();
        let seconds = match zone {
            Zone::None => 0,
            Zone::Utc => {
                sink.byte(b'Z');
                0
            }
            Zone::Fixed(minutes) => {
                sink.offset(minutes);
                i64::from(minutes) * 60
            }
            Zone::Named(_) => return None,
        };
        sink.raw(if quoted { b"\"" } else { b"" });
        Some(Self { unit, seconds, quoted, tail: Short::new(&sink.buf) })
    }

    /// How long each text is.
    pub(crate) fn len(&self) -> usize {
        let (_, places) = resolution(self.unit);
        let fraction = if places == 0 { 0 } else { places + 1 };
        usize::from(self.quoted) + 19 + fraction + usize::from(self.tail.len)
    }

    /// Writes texts one behind the other; `false` where a value has none. 16 bytes more than the texts take are
    /// written to.
    pub(crate) fn write(&self, values: &[i64], out: &mut [u8]) -> bool {
        match self.unit {
            TimeUnit::Second => self.all::<1, 0>(values, out),
            TimeUnit::Millisecond => self.all::<1_000, 3>(values, out),
            TimeUnit::Microsecond => self.all::<1_000_000, 6>(values, out),
            TimeUnit::Nanosecond => self.all::<1_000_000_000, 9>(values, out),
        }
    }

    fn all<const PER_SECOND: i64, const PLACES: u32>(&self, values: &[i64], out: &mut [u8]) -> bool {
        let (len, mut begin, mut all) = (self.len(), 0, true);
        for value in values {
            let (seconds, fraction) = (value.div_euclid(PER_SECOND), value.rem_euclid(PER_SECOND));
            let local = seconds.saturating_add(self.seconds);
            let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY) as u32);
            all &= has_date(days);
            let mut at = begin;
            if self.quoted {
                put(out, at, [b'"']);
                at += 1;
            }
            let date = date_short(days).text | u128::from(b'T') << 80;
            put(out, at, date.to_le_bytes());
            put(out, at + 11, clock_text(second));
            at += 19;
            if PLACES > 0 {
                put(out, at, fraction_text::<PLACES>(fraction as u64).to_le_bytes());
                at += 1 + PLACES as usize;
            }
            put(out, at, self.tail.text.to_le_bytes());
            begin += len;
        }
        all
    }
}

/// A point and 3, 6 or 9 digits.
#[inline]
fn fraction_text<const PLACES: u32>(value: u64) -> u128 {
    let nine = value * 10_u64.pow(9 - PLACES);
    let digits = u128::from(eight_digits(nine / 10)) | u128::from(nine % 10) << 64;
    (digits | ZEROS) << 8 | u128::from(b'.')
}
