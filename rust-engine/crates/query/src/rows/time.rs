//! Times in filters: written ones, and those that are computed, by `now()`, `ago(24h)`, `plus("2024-02-29", 36h)` and
//! `minus(…)`. They are constants by the time the plan is made; all pages of a request have the `now()` of the first.

use std::cell::Cell;

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use quern_core::Result;

use super::filter::{Node, NodeKind, Operand, invalid};

/// What time it is, in nanoseconds since 1970 in UTC.
pub(super) struct Clock {
    now: i64,
    read: Cell<bool>,
}

impl Clock {
    pub(super) fn new(now: i64) -> Self {
        Self { now, read: Cell::new(false) }
    }

    /// Whether anyone has looked at it.
    pub(super) fn was_read(&self) -> bool {
        self.read.get()
    }

    fn read(&self) -> i128 {
        self.read.set(true);
        self.now.into()
    }
}

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// The functions that compute a time.
pub(super) const FUNCTIONS: &[&str] = &["ago", "minus", "now", "plus"];

/// A comparison with a time. Where the column can't hold the time exactly, it is compared with what the time lies after.
pub(super) fn compare(operand: &Operand, operator: &str, right: &Node, clock: &Clock) -> Result<Expr> {
    let (value, exact) = floor(operand, right, clock)?;
    Ok(match operator {
        _ if exact => operand.compared(operator, value),
        ">" | ">=" => operand.compared(">", value),
        "<" | "<=" => operand.compared("<=", value),
        // No value is both: unknown for nulls, false for all others.
        "=" => operand.compared("<", value.clone()).and(operand.compared(">", value)),
        _ => operand.compared("<=", value.clone()).or(operand.compared(">", value)),
    })
}

/// The latest value of the column that is not after the time, and whether it is the time.
fn floor(operand: &Operand, right: &Node, clock: &Clock) -> Result<(ScalarValue, bool)> {
    let (unit, zone) = match &operand.data_type {
        DataType::Timestamp(unit, zone) => (nanoseconds(*unit), zone.as_deref()),
        DataType::Date32 | DataType::Date64 => (DAY, None),
        _ => return Err(operand.unfit(right.at, "and a time that is computed goes with dates and timestamps")),
    };
    let zone: Tz = zone.unwrap_or("+00:00").parse().map_err(|_| invalid(right.at, "its column's zone is unknown"))?;
    let instant = Instants { zone, clock }.instant(right)?;
    let value = scalar(instant.div_euclid(unit), &operand.data_type)
        .ok_or_else(|| operand.unfit(right.at, "which can't hold a time that far away"))?;
    Ok((value, instant.rem_euclid(unit) == 0))
}

fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// So many units since 1970 as a date or timestamp.
fn scalar(units: i128, data_type: &DataType) -> Option<ScalarValue> {
    let wide = i64::try_from(units).ok();
    Some(match data_type {
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(units).ok()?)),
        DataType::Date64 => ScalarValue::Date64(Some(wide?.checked_mul(86_400_000)?)),
        DataType::Timestamp(TimeUnit::Second, zone) => ScalarValue::TimestampSecond(Some(wide?), zone.clone()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            ScalarValue::TimestampMillisecond(Some(wide?), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(wide?), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => ScalarValue::TimestampNanosecond(Some(wide?), zone.clone()),
        _ => return None,
    })
}

struct Instants<'a> {
    /// Of times that are written without one.
    zone: Tz,
    clock: &'a Clock,
}

impl Instants<'_> {
    /// A time in nanoseconds since 1970 in UTC.
    fn instant(&self, node: &Node) -> Result<i128> {
        let (function, args) = match &node.kind {
            NodeKind::Call(function, args) => (function.as_str(), args.as_slice()),
            NodeKind::Word(text) | NodeKind::Text(text) => return self.written(node.at, text),
            NodeKind::Number(_) | NodeKind::Column(_) => return Err(invalid(node.at, NO_TIME)),
        };
        match (function, args) {
            ("now", []) => Ok(self.clock.read()),
            ("ago", [back]) => Ok(self.clock.read() - span(back)?),
            ("plus", [from, ahead]) => Ok(self.instant(from)? + span(ahead)?),
            ("minus", [from, back]) => Ok(self.instant(from)? - span(back)?),
            ("now", _) => Err(invalid(node.at, "write now()")),
            ("ago", _) => Err(invalid(node.at, "write ago(24h)")),
            ("plus" | "minus", _) => Err(invalid(node.at, format!("write {function}(\"2024-02-29T12:30:00Z\", 36h)"))),
            _ => Err(invalid(node.at, NO_TIME)),
        }
    }

    fn written(&self, at: u32, text: &str) -> Result<i128> {
        let time =
            string_to_datetime(&self.zone, text).map_err(|_| invalid(at, format!("`{text}` is no time; {NO_TIME}")))?;
        Ok(i128::from(time.timestamp()) * SECOND + i128::from(time.timestamp_subsec_nanos()))
    }
}

const NO_TIME: &str = "write one such as \"2024-02-29T12:30:00Z\", \"2024-02-29\" or now()";

/// A duration in nanoseconds.
fn span(node: &Node) -> Result<i128> {
    let text = match &node.kind {
        NodeKind::Word(text) | NodeKind::Text(text) | NodeKind::Number(text) => text,
        NodeKind::Column(_) | NodeKind::Call(..) => return Err(invalid(node.at, NO_SPAN)),
    };
    nanoseconds_of(text).ok_or_else(|| invalid(node.at, format!("`{text}` is no duration; {NO_SPAN}")))
}

const NO_SPAN: &str = "write one such as 20s, 1.5h, 1h30m or 7d, with the units ms, s, m, h and d";

/// How long a duration is: numbers, each with its unit. At most a million days, and no finer than a nanosecond.
fn nanoseconds_of(text: &str) -> Option<i128> {
    let (mut rest, mut total) = (text, 0_i128);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(number);
        let unit = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at(unit);
        let size = match unit {
            "ms" => SECOND / 1_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => DAY,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        if whole.is_empty() || whole.len() > 15 || fraction.is_empty() || fraction.len() > 15 {
            return None;
        }
        let parts = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        let fine = fraction.parse::<i128>().ok()? * size;
        if fine % parts != 0 {
            return None;
        }
        total += whole.parse::<i128>().ok()? * size + fine / parts;
        rest = tail;
    }
    (total <= 1_000_000 * DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        let read = |text| nanoseconds_of(text);
        assert_eq!(read("20s"), Some(20 * SECOND));
        assert_eq!(read("1.2s"), Some(SECOND + 200_000_000));
        assert_eq!(read("1h30m"), Some(5_400 * SECOND));
        assert_eq!(read("0.000001ms"), Some(1));
        assert_eq!(read("1d12h"), Some(DAY * 3 / 2));
        assert_eq!(read("0s"), Some(0));
        for wrong in [
            "",
            "s",
            "20",
            "1.s",
            ".5s",
            "1.2.3s",
            "-5s",
            "5 s",
            "5S",
            "5w",
            "0.0000001ms",
            "1000001d",
            "9999999999999999s",
            "1h 5m",
            "١s",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_between_two_dates_is_compared_with_the_first() {
        let operand = |data_type| Operand { expr: datafusion::prelude::ident("d"), data_type, name: "d".to_owned() };
        let node = |kind| Node { at: 0, kind };
        let text = |text: &str| node(NodeKind::Text(text.to_owned()));
        let noon = node(NodeKind::Call("plus".to_owned(), vec![text("1970-01-03"), text("12h")]));
        let clock = Clock::new(0);
        let compare = |operator| compare(&operand(DataType::Date32), operator, &noon, &clock).map(|e| e.to_string());
        assert_eq!(compare(">=").as_deref(), Ok("d > Date32(\"1970-01-03\")"));
        assert_eq!(compare("<").as_deref(), Ok("d <= Date32(\"1970-01-03\")"));
        assert_eq!(compare("=").as_deref(), Ok("d < Date32(\"1970-01-03\") AND d > Date32(\"1970-01-03\")"));
        assert_eq!(compare("!=").as_deref(), Ok("d <= Date32(\"1970-01-03\") OR d > Date32(\"1970-01-03\")"));
        assert!(!clock.was_read());
    }
}
