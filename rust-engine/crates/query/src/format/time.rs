//! The text of dates, times, timestamps, durations and intervals.
//!
//! One rule a column type, never dependent on the value: the digits of a fraction follow from the unit
//! (none for seconds, 3, 6 or 9), the zone's form from the column's zone. Calendar arithmetic is our
//! own: it needs no allocation and no error path for a value.

use arrow::array::timezone::Tz;
use arrow::datatypes::{IntervalDayTime, IntervalMonthDayNano, TimeUnit, TimestampSecondType};
use arrow::temporal_conversions::as_datetime_with_timezone;

use super::short::{Short, ZEROS, pairs_to_digits};
use super::sink::{Fault, Sink};

pub(crate) const DAY: i64 = 86_400;
/// `0000-01-01` and `9999-12-31`, in days since 1970-01-01.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// The zone of a timestamp column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Zone {
    /// No zone: local time, printed without one.
    None,
    /// UTC, printed as `Z`.
    Utc,
    /// A fixed offset in minutes, printed as `+hh:mm`.
    Fixed(i32),
    /// A named zone, printed as the offset in force at each instant.
    Named(Tz),
}

impl Zone {
    /// Reads the zone of an Arrow timestamp type: none, `UTC`, `+hh:mm`, `+hhmm`, `+hh` or an IANA name.
    pub(crate) fn parse(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else {
            return Some(Self::None);
        };
        const UTC: [&str; 5] = ["UTC", "Z", "Etc/UTC", "GMT", "utc"];
        if UTC.contains(&name) {
            return Some(Self::Utc);
        }
        if name.starts_with(['+', '-']) {
            return parse_offset(name).map(|minutes| match minutes {
                0 => Self::Utc,
                _ => Self::Fixed(minutes),
            });
        }
        name.parse().ok().map(Self::Named)
    }

    /// The offset in minutes at an instant. Zones had offsets with seconds once; RFC 3339 has not, so
    /// they are cut to minutes, for the local time and the printed offset alike: the instant stays exact.
    fn minutes_at(self, seconds: i64) -> i32 {
        match self {
            Self::None | Self::Utc => 0,
            Self::Fixed(minutes) => minutes,
            Self::Named(zone) => as_datetime_with_timezone::<TimestampSecondType>(seconds, zone).map_or(0, |local| {
                let offset = local.naive_local() - local.naive_utc();
                i32::try_from(offset.num_minutes()).unwrap_or_default()
            }),
        }
    }
}

fn parse_offset(name: &str) -> Option<i32> {
    let (sign, digits) = match name.as_bytes() {
        [b'-', digits @ ..] => (-1, digits),
        [_, digits @ ..] => (1, digits),
        [] => return None,
    };
    let (hours, minutes) = match digits {
        [h1, h2] => ([*h1, *h2], [b'0', b'0']),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => ([*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let number = |pair: [u8; 2]| {
        let digits = pair.iter().all(u8::is_ascii_digit);
        digits.then(|| i32::from(pair[0] - b'0') * 10 + i32::from(pair[1] - b'0'))
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Units a second, and the digits of a fraction.
pub(crate) const fn resolution(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    }
}

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    pairs
};

#[inline]
fn pair(value: u32) -> [u8; 2] {
    PAIRS[(value % 100) as usize]
}

/// Whether a day, counted from 1970-01-01, has a text.
#[inline]
pub(crate) fn has_date(days: i64) -> bool {
    DAYS.contains(&days)
}

/// `YYYY-MM-DD` of the day, or of the nearest one that has a text.
///
/// After Neri and Schneider, "Euclidean affine functions and their application to calendar algorithms" (2022):
/// all divisions are by constants, and most are the high half of a product of which the low half is the remainder.
#[inline]
pub(crate) fn date_short(days: i64) -> Short {
    const ERA: u32 = 146_097;
    // Days since 0000-03-01, moved forward one era of 400 years so that it is never negative.
    let shifted = (days.clamp(*DAYS.start(), *DAYS.end()) + 719_468 + i64::from(ERA)) as u32;
    let quarters = 4 * shifted + 3;
    let (century, quarters_of_century) = (quarters / ERA, (quarters % ERA) | 3);
    let product = 2_939_745 * u64::from(quarters_of_century);
    let (year_of_century, day_of_year) = ((product >> 32) as u32, (product as u32) / 2_939_745 / 4);
    let month_and_day = 2_141 * day_of_year + 197_913;
    let (month, day) = (month_and_day >> 16, (month_and_day & 0xffff) / 2_141 + 1);
    // Years begin in March here: the last two months belong to the next one.
    let after = u32::from(day_of_year >= 306);
    let year = 100 * century + year_of_century + after - 400;
    let digits = pairs_to_digits([year / 100, year % 100, month - 12 * after, day]) | ZEROS as u64;
    let (year, month, day) = (digits & 0xffff_ffff, (digits >> 32) & 0xffff, digits >> 48);
    let head = year | u64::from(b'-') << 32 | month << 40 | u64::from(b'-') << 56;
    Short { text: u128::from(head) | u128::from(day) << 64, len: 10 }
}

/// `YYYY-MM-DD`.
#[inline]
fn date_text(days: i64) -> Option<[u8; 10]> {
    let [y1, y2, y3, y4, _, m1, m2, _, d1, d2, ..] = date_short(days).text.to_le_bytes();
    has_date(days).then_some([y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2])
}

/// `HH:MM:SS`.
#[inline]
pub(crate) fn clock_text(second_of_day: u32) -> [u8; 8] {
    let (hours, minutes, seconds) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let digits = pairs_to_digits([hours, minutes, seconds, 0]) | ZEROS as u64;
    let colons = u64::from(b':') << 16 | u64::from(b':') << 40;
    (digits & 0xffff | (digits & 0xffff_0000) << 8 | (digits & 0xffff_0000_0000) << 16 | colons).to_le_bytes()
}

impl Sink {
    /// `YYYY-MM-DD`, from days since 1970-01-01.
    #[inline]
    pub(crate) fn date(&mut self, days: i64) {
        match date_text(days) {
            Some(text) => self.raw(&text),
            None => self.fail(Fault::Year),
        }
    }

    /// `YYYY-MM-DD`, from milliseconds since 1970-01-01; a time of day is dropped, as the type says.
    pub(crate) fn date64(&mut self, millis: i64) {
        self.date(millis.div_euclid(DAY * 1_000));
    }

    /// `HH:MM:SS` with the unit's fraction.
    pub(crate) fn time(&mut self, value: i64, unit: TimeUnit) {
        let (per_second, places) = resolution(unit);
        let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
        if !(0..DAY).contains(&seconds) {
            return self.fail(Fault::TimeOfDay);
        }
        self.raw(&clock_text(seconds as u32));
        self.fraction(fraction as u32, places);
    }

    /// RFC 3339 `YYYY-MM-DDTHH:MM:SS` with the unit's fraction and the zone's form.
    #[inline]
    pub(crate) fn timestamp(&mut self, value: i64, unit: TimeUnit, zone: Zone) {
        let (per_second, places) = resolution(unit);
        let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
        let offset = zone.minutes_at(seconds);
        let local = seconds.saturating_add(i64::from(offset) * 60);
        let Some([y1, y2, y3, y4, _, m1, m2, _, d1, d2]) = date_text(local.div_euclid(DAY)) else {
            return self.fail(Fault::Year);
        };
        let [h1, h2, _, n1, n2, _, s1, s2] = clock_text(local.rem_euclid(DAY) as u32);
        self.raw(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2]);
        self.fraction(fraction as u32, places);
        match zone {
            Zone::None => {}
            Zone::Utc => self.byte(b'Z'),
            Zone::Fixed(_) | Zone::Named(_) => self.offset(offset),
        }
    }

    pub(crate) fn offset(&mut self, minutes: i32) {
        let sign = if minutes < 0 { b'-' } else { b'+' };
        let [h1, h2] = pair(minutes.unsigned_abs() / 60);
        let [m1, m2] = pair(minutes.unsigned_abs() % 60);
        self.raw(&[sign, h1, h2, b':', m1, m2]);
    }

    /// A point and `places` digits; nothing for no places.
    #[inline]
    fn fraction(&mut self, mut value: u32, places: usize) {
        if places == 0 {
            return;
        }
        let mut text = [b'0'; 10];
        text[0] = b'.';
        for digit in text[1..=places].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.raw(&text[..=places]);
    }

    /// ISO 8601 `PT90.500S`: whole seconds with the unit's fraction; a minus goes before the `P`.
    pub(crate) fn duration(&mut self, value: i64, unit: TimeUnit) {
        let (per_second, places) = resolution(unit);
        if value < 0 {
            self.byte(b'-');
        }
        self.raw(b"PT");
        self.unsigned_seconds(value.unsigned_abs(), per_second.unsigned_abs(), places);
    }

    fn unsigned_seconds(&mut self, value: u64, per_second: u64, places: usize) {
        self.int(value / per_second);
        self.fraction((value % per_second) as u32, places);
        self.byte(b'S');
    }

    /// ISO 8601 `P1Y2M`; each part has its own sign.
    pub(crate) fn interval_year_month(&mut self, months: i32) {
        self.byte(b'P');
        self.int(months / 12);
        self.byte(b'Y');
        self.int(months % 12);
        self.byte(b'M');
    }

    /// ISO 8601 `P1DT2.500S`; each part has its own sign.
    pub(crate) fn interval_day_time(&mut self, value: IntervalDayTime) {
        self.byte(b'P');
        self.int(value.days);
        self.time_part(i64::from(value.milliseconds), TimeUnit::Millisecond);
    }

    /// ISO 8601 `P1M2DT3.000000000S`; each part has its own sign.
    pub(crate) fn interval_month_day_nano(&mut self, value: IntervalMonthDayNano) {
        self.byte(b'P');
        self.int(value.months);
        self.byte(b'M');
        self.int(value.days);
        self.time_part(value.nanoseconds, TimeUnit::Nanosecond);
    }

    fn time_part(&mut self, value: i64, unit: TimeUnit) {
        let (per_second, places) = resolution(unit);
        self.raw(b"DT");
        if value < 0 {
            self.byte(b'-');
        }
        self.unsigned_seconds(value.unsigned_abs(), per_second.unsigned_abs(), places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Sink)) -> Result<String, Fault> {
        let mut sink = Sink::default();
        write(&mut sink);
        match sink.fault {
            Some(fault) => Err(fault),
            None => Ok(String::from_utf8(sink.buf).expect("encoders write UTF-8")),
        }
    }

    fn timestamp(value: i64, unit: TimeUnit, zone: Option<&str>) -> String {
        let zone = Zone::parse(zone).expect("a known zone");
        text(|sink| sink.timestamp(value, unit, zone)).expect("in range")
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (0_u32, 1_u32, 1_u32);
        for days in DAYS {
            let expected = format!("{year:04}-{month:02}-{day:02}");
            assert_eq!(date_text(days).as_ref().map(|text| &text[..]), Some(expected.as_bytes()));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
        assert_eq!(date_text(0), Some(*b"1970-01-01"));
        assert_eq!(text(|sink| sink.date(DAYS.end() + 1)), Err(Fault::Year));
        assert_eq!(text(|sink| sink.date(i64::from(i32::MIN))), Err(Fault::Year));
        assert_eq!(text(|sink| sink.date64(i64::MIN)), Err(Fault::Year));
    }

    #[test]
    fn timestamps_print_the_units_digits_and_the_columns_zone() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        assert_eq!(timestamp(0, Second, None), "1970-01-01T00:00:00");
        assert_eq!(timestamp(-1, Millisecond, None), "1969-12-31T23:59:59.999");
        assert_eq!(timestamp(1, Microsecond, Some("UTC")), "1970-01-01T00:00:00.000001Z");
        assert_eq!(timestamp(1, Nanosecond, Some("+00:00")), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(timestamp(0, Second, Some("+05:30")), "1970-01-01T05:30:00+05:30");
        assert_eq!(timestamp(0, Second, Some("-0230")), "1969-12-31T21:30:00-02:30");
        let berlin = Some("Europe/Berlin");
        assert_eq!(timestamp(1_735_689_600, Second, berlin), "2025-01-01T01:00:00+01:00");
        assert_eq!(timestamp(1_751_328_000, Second, berlin), "2025-07-01T02:00:00+02:00");
        // Berlin was 53 minutes and 28 seconds ahead before 1893: the instant is kept, the seconds are not.
        assert_eq!(timestamp(-3_000_000_000, Second, berlin), "1874-12-07T19:33:00+00:53");
        assert_eq!(timestamp(i64::MIN, Nanosecond, None), "1677-09-21T00:12:43.145224192");
    }

    #[test]
    fn the_year_is_judged_in_the_columns_zone() {
        let end = (DAYS.end() + 1) * DAY - 1;
        assert_eq!(timestamp(end, TimeUnit::Second, Some("UTC")), "9999-12-31T23:59:59Z");
        let east = Zone::parse(Some("+01:00")).expect("a known zone");
        let moved = text(|sink| sink.timestamp(end, TimeUnit::Second, east));
        assert_eq!(moved, Err(Fault::Year));
        for (value, unit) in [(i64::MAX, TimeUnit::Second), (i64::MIN, TimeUnit::Millisecond)] {
            for zone in [east, Zone::parse(Some("Asia/Tokyo")).expect("a known zone")] {
                assert_eq!(text(|sink| sink.timestamp(value, unit, zone)), Err(Fault::Year));
            }
        }
    }

    #[test]
    fn zones_that_are_none_are_refused() {
        for name in ["Mars/Olympus", "+1", "+24:00", "+01:60", "+a1:00", "", "+"] {
            assert!(Zone::parse(Some(name)).is_none(), "{name}");
        }
    }

    #[test]
    fn times_of_day() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let time = |value, unit| text(|sink| sink.time(value, unit));
        assert_eq!(time(0, Second).as_deref(), Ok("00:00:00"));
        assert_eq!(time(86_399_999, Millisecond).as_deref(), Ok("23:59:59.999"));
        assert_eq!(time(3_661_000_001, Microsecond).as_deref(), Ok("01:01:01.000001"));
        assert_eq!(time(1, Nanosecond).as_deref(), Ok("00:00:00.000000001"));
        assert_eq!(time(86_400, Second), Err(Fault::TimeOfDay));
        assert_eq!(time(-1, Nanosecond), Err(Fault::TimeOfDay));
    }

    #[test]
    fn durations_and_intervals_are_iso_8601() {
        let duration = |value, unit| text(|sink| sink.duration(value, unit)).expect("always text");
        assert_eq!(duration(90, TimeUnit::Second), "PT90S");
        assert_eq!(duration(-1_500, TimeUnit::Millisecond), "-PT1.500S");
        assert_eq!(duration(i64::MIN, TimeUnit::Nanosecond), "-PT9223372036.854775808S");
        let months = |value| text(|sink| sink.interval_year_month(value)).expect("always text");
        assert_eq!(months(14), "P1Y2M");
        assert_eq!(months(-14), "P-1Y-2M");
        let day_time = text(|sink| sink.interval_day_time(IntervalDayTime::new(1, -2_500)));
        assert_eq!(day_time.as_deref(), Ok("P1DT-2.500S"));
        let all = IntervalMonthDayNano::new(-1, 2, 3_000_000_001);
        let all = text(|sink| sink.interval_month_day_nano(all));
        assert_eq!(all.as_deref(), Ok("P-1M2DT3.000000001S"));
    }
}
