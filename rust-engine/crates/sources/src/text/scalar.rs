//! Scalars from their source text: what kind they are, and their value.

use arrow::datatypes::TimeUnit;
use chrono::{Datelike, NaiveDate};

use super::kinds::Kinds;

/// Days from 0001-01-01 (day 1 of the common era) to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// The kind of a number by its JSON source text.
pub(super) fn number_kind(text: &str, integer: bool) -> Kinds {
    if integer {
        let digits = text.len() - usize::from(text.starts_with('-'));
        return match digits {
            0..=18 => Kinds::INT64,
            19..=20 if text.parse::<i64>().is_ok() => Kinds::INT64,
            19..=20 if text.parse::<u64>().is_ok() => Kinds::UINT64,
            19..=38 => Kinds::BIG,
            _ => float_kind(text),
        };
    }
    float_kind(text)
}

fn float_kind(text: &str) -> Kinds {
    // Only an exponent or very many digits can leave the range of a double.
    let may_overflow = text.len() > 300 || text.bytes().any(|byte| matches!(byte, b'e' | b'E'));
    if may_overflow && text.parse::<f64>().map_or(true, f64::is_infinite) {
        return Kinds::TEXT;
    }
    Kinds::FLOAT
}

/// The kind of a CSV cell that is not empty.
pub(super) fn cell_kind(cell: &str) -> Kinds {
    let cell = cell.trim_matches(' ');
    match cell.as_bytes() {
        [b'0'..=b'9', ..] | [b'-' | b'.', _, ..] => match decimal_form(cell) {
            Some(integer) => number_kind(cell, integer),
            None => moment_kind(cell),
        },
        [b't' | b'T' | b'f' | b'F', ..] if parse_bool(cell).is_some() => Kinds::BOOL,
        [b'n' | b'N', ..] if cell.eq_ignore_ascii_case("nan") => Kinds::FLOAT,
        _ => Kinds::TEXT,
    }
}

fn moment_kind(cell: &str) -> Kinds {
    let Some(moment) = parse_moment(cell) else {
        return Kinds::TEXT;
    };
    let kind = match (moment.time, moment.offset.is_some(), moment.fine) {
        (false, ..) => Kinds::DATE,
        (true, false, false) => Kinds::TIMESTAMP,
        (true, false, true) => Kinds::TIMESTAMP_NS,
        (true, true, false) => Kinds::INSTANT,
        (true, true, true) => Kinds::INSTANT_NS,
    };
    if moment.since_epoch(TimeUnit::Nanosecond).is_err() { kind.far() } else { kind }
}

/// Whether a CSV cell is a number, and if so whether it is an integer. Leading zeros and plus signs make it text.
pub(super) fn decimal_form(cell: &str) -> Option<bool> {
    let bytes = cell.strip_prefix('-').unwrap_or(cell).as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    if whole > 1 && bytes[0] == b'0' {
        return None;
    }
    let mut at = whole;
    let mut fraction = 0;
    let mut integer = true;
    if bytes.get(at) == Some(&b'.') {
        integer = false;
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        integer = false;
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at.min(bytes.len()));
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    (at == bytes.len()).then_some(integer)
}

/// `true` or `false` in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    text.eq_ignore_ascii_case("false").then_some(false)
}

/// An integer without a plus sign.
pub(super) fn parse_i64(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', ..] => return None,
        _ => (false, bytes),
    };
    if digits.is_empty() || digits.len() > 18 {
        return text.parse().ok();
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A number in decimal form, or the word NaN.
pub(super) fn parse_f64(text: &str) -> Result<f64, &'static str> {
    if text.eq_ignore_ascii_case("nan") {
        return Ok(f64::NAN);
    }
    let lead = text.strip_prefix('-').unwrap_or(text);
    if !lead.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Err("is not a number");
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err("is beyond the range of a 64-bit float"),
        Err(_) => Err("is not a number"),
    }
}

/// A decimal number at a scale, exactly.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, &'static str> {
    const OUTSIDE: &str = "has more digits than the column's decimal type";
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err("is not a decimal number");
    }
    let fraction = fraction.trim_end_matches('0');
    let scale = usize::try_from(scale).map_err(|_| "cannot be read at a negative scale")?;
    if fraction.len() > scale {
        return Err(OUTSIDE);
    }
    let padding = std::iter::repeat_n(b'0', scale - fraction.len());
    let mut value = 0_i128;
    for byte in whole.bytes().chain(fraction.bytes()).chain(padding) {
        let digit = i128::from(byte - b'0');
        value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(OUTSIDE)?;
    }
    if value >= 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(OUTSIDE);
    }
    Ok(if negative { -value } else { value })
}

/// A date, or a date and a time of day, perhaps with an offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Days from 1970-01-01.
    pub(super) days: i32,
    /// A time of day was given.
    pub(super) time: bool,
    seconds: i64,
    nanos: u32,
    /// Seconds east of UTC.
    pub(super) offset: Option<i32>,
    /// The fraction has more than six digits.
    pub(super) fine: bool,
}

impl Moment {
    /// The count of `unit` from 1970-01-01T00:00:00, in UTC if there is an offset.
    pub(super) fn since_epoch(&self, unit: TimeUnit) -> Result<i64, &'static str> {
        const OUTSIDE: &str = "is outside the range of the column's timestamp type";
        let seconds = i64::from(self.days) * 86_400 + self.seconds - i64::from(self.offset.unwrap_or(0));
        let (per_second, nanos_each) = match unit {
            TimeUnit::Second => (1, 1_000_000_000),
            TimeUnit::Millisecond => (1_000, 1_000_000),
            TimeUnit::Microsecond => (1_000_000, 1_000),
            TimeUnit::Nanosecond => (1_000_000_000, 1),
        };
        if !self.nanos.is_multiple_of(nanos_each) {
            return Err("has a finer fraction than the column's timestamp type");
        }
        let part = i64::from(self.nanos / nanos_each);
        seconds.checked_mul(per_second).and_then(|whole| whole.checked_add(part)).ok_or(OUTSIDE)
    }
}

/// Reads digits and separators off the front of a text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        let mut value = 0;
        for byte in head {
            value = value * 10 + u32::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        self.0 = rest;
        Some(value)
    }

    fn eat(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !wanted.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }
}

/// `YYYY-MM-DD` or `YYYY/MM/DD`, alone or followed by `T` or a space, `HH:MM`, perhaps `:SS` and a fraction of up to
/// nine digits, perhaps `Z`, `±HH`, `±HHMM` or `±HH:MM`.
pub(super) fn parse_moment(text: &str) -> Option<Moment> {
    let mut cursor = Cursor(text.as_bytes());
    let year = cursor.number(4)?;
    let separator = cursor.eat(b"-/")?;
    let month = cursor.number(2)?;
    cursor.eat(&[separator])?;
    let day = cursor.number(2)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let days = date.num_days_from_ce() - EPOCH_FROM_CE;
    let mut moment = Moment { days, time: false, seconds: 0, nanos: 0, offset: None, fine: false };
    if cursor.0.is_empty() {
        return Some(moment);
    }
    cursor.eat(b"T ")?;
    moment.time = true;
    let hour = cursor.number(2).filter(|hour| *hour < 24)?;
    cursor.eat(b":")?;
    let minute = cursor.number(2).filter(|minute| *minute < 60)?;
    moment.seconds = i64::from(hour * 3_600 + minute * 60);
    if cursor.eat(b":").is_some() {
        moment.seconds += i64::from(cursor.number(2).filter(|second| *second < 60)?);
        if cursor.eat(b".").is_some() {
            (moment.nanos, moment.fine) = parse_fraction(&mut cursor)?;
        }
    }
    if !cursor.0.is_empty() {
        moment.offset = Some(parse_offset(&mut cursor)?);
    }
    cursor.0.is_empty().then_some(moment)
}

/// Nanoseconds, and whether they were given with more than six digits.
fn parse_fraction(cursor: &mut Cursor<'_>) -> Option<(u32, bool)> {
    let digits = cursor.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let value = cursor.number(digits)?;
    let missing = u32::try_from(9 - digits).ok()?;
    Some((value * 10_u32.pow(missing), digits > 6))
}

fn parse_offset(cursor: &mut Cursor<'_>) -> Option<i32> {
    let sign = match cursor.eat(b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Some(0),
    };
    let hours = cursor.number(2).filter(|hours| *hours < 24)?;
    let mut minutes = 0;
    if !cursor.0.is_empty() {
        cursor.eat(b":");
        minutes = cursor.number(2).filter(|minutes| *minutes < 60)?;
    }
    i32::try_from(hours * 3_600 + minutes * 60).ok().map(|seconds| sign * seconds)
}
