//! `date_part` and `date_trunc` over columns of timestamps without a time zone, and of dates, by arithmetic alone: DataFusion
//! makes a calendar date of each value first. What is not done here is left to it.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// Which of the two functions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Calendar {
    Part,
    Truncate,
}

/// Something that a point in time has, or that it is cut down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    DayOfYear,
    /// From Sunday, which is 0.
    DayOfWeek,
    /// From Monday, which is 1.
    IsoDayOfWeek,
}

const SECONDS_A_DAY: i64 = 86_400;
/// The farthest day from 1970 for which this holds, in years 260,000: beyond, DataFusion has no calendar.
const FARTHEST: i64 = 95_000_000;

/// The function that is named so, by the name that it has itself.
pub(super) fn of(name: &str) -> Option<Calendar> {
    match name {
        "date_part" => Some(Calendar::Part),
        "date_trunc" => Some(Calendar::Truncate),
        _ => None,
    }
}

impl Calendar {
    /// The function's values, where they can be had here.
    pub(super) fn values(self, args: &ScalarFunctionArgs) -> Option<ColumnarValue> {
        let [ColumnarValue::Scalar(name), ColumnarValue::Array(array)] = args.args.as_slice() else { return None };
        let part = Part::named(name.try_as_str().flatten()?)?;
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let values = match array.data_type() {
            DataType::Timestamp(Second, None) => self.of_times::<TimestampSecondType, 1>(part, array),
            DataType::Timestamp(Millisecond, None) => self.of_times::<TimestampMillisecondType, 1_000>(part, array),
            DataType::Timestamp(Microsecond, None) => self.of_times::<TimestampMicrosecondType, 1_000_000>(part, array),
            DataType::Timestamp(Nanosecond, None) => {
                self.of_times::<TimestampNanosecondType, 1_000_000_000>(part, array)
            }
            DataType::Date32 => self.of_dates(part, array),
            _ => None,
        };
        values.map(ColumnarValue::Array)
    }

    fn of_times<T: ArrowPrimitiveType<Native = i64>, const SECOND: i64>(
        self,
        part: Part,
        array: &ArrayRef,
    ) -> Option<ArrayRef> {
        let start = match self {
            Self::Part => None,
            Self::Truncate => Some(first_day(part)?),
        };
        let array: &PrimitiveArray<T> = array.as_primitive();
        let farthest = FARTHEST.saturating_mul(SECONDS_A_DAY).saturating_mul(SECOND);
        if !array.values().iter().all(|time| (-farthest..=farthest).contains(time)) {
            return None;
        }
        let day = move |time: i64| time.div_euclid(SECONDS_A_DAY * SECOND);
        if let Some(start) = start {
            // The first day of a period can lie before the farthest time of nanoseconds, which DataFusion refuses.
            let cut = array.try_unary::<_, T, _>(|time| start(day(time)).checked_mul(SECONDS_A_DAY * SECOND).ok_or(()));
            return Some(Arc::new(cut.ok()?));
        }
        Some(match part {
            Part::Hour => parts(array, |time| time.div_euclid(3600 * SECOND).rem_euclid(24)),
            Part::Minute => parts(array, |time| time.div_euclid(60 * SECOND).rem_euclid(60)),
            Part::Second => parts(array, |time| time.div_euclid(SECOND).rem_euclid(60)),
            _ => parts_of_days(part, array, day)?,
        })
    }

    fn of_dates(self, part: Part, array: &ArrayRef) -> Option<ArrayRef> {
        let array = array.as_primitive::<Date32Type>();
        let farthest = -FARTHEST..=FARTHEST;
        if !matches!(self, Self::Part) || !array.values().iter().all(|day| farthest.contains(&i64::from(*day))) {
            return None;
        }
        parts_of_days(part, array, i64::from)
    }
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        const NAMES: [(&str, Part); 11] = [
            ("year", Part::Year),
            ("quarter", Part::Quarter),
            ("month", Part::Month),
            ("week", Part::Week),
            ("day", Part::Day),
            ("hour", Part::Hour),
            ("minute", Part::Minute),
            ("second", Part::Second),
            ("doy", Part::DayOfYear),
            ("dow", Part::DayOfWeek),
            ("isodow", Part::IsoDayOfWeek),
        ];
        NAMES.iter().find_map(|(known, part)| known.eq_ignore_ascii_case(name).then_some(*part))
    }
}

/// Small numbers of each value; what is null stays so.
fn parts<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, part: impl Fn(T::Native) -> i64) -> ArrayRef {
    // Years are the largest of them.
    Arc::new(array.unary::<_, Int32Type>(|value| part(value) as i32))
}

fn parts_of_days<T: ArrowPrimitiveType>(
    part: Part,
    array: &PrimitiveArray<T>,
    day: impl Fn(T::Native) -> i64,
) -> Option<ArrayRef> {
    Some(match part {
        Part::Year => parts(array, |value| Date::of(day(value)).year),
        Part::Quarter => parts(array, |value| (Date::of(day(value)).month - 1) / 3 + 1),
        Part::Month => parts(array, |value| Date::of(day(value)).month),
        Part::Day => parts(array, |value| Date::of(day(value)).day),
        Part::DayOfYear => parts(array, |value| {
            let day = day(value);
            day - first_of(Date::of(day).year, 1) + 1
        }),
        // The first day of 1970 was a Thursday.
        Part::DayOfWeek => parts(array, |value| (day(value) + 4).rem_euclid(7)),
        Part::IsoDayOfWeek => parts(array, |value| (day(value) + 3).rem_euclid(7) + 1),
        Part::Week | Part::Hour | Part::Minute | Part::Second => return None,
    })
}

/// What gives the first day of the period that a day lies in. Shorter periods than days are quick in DataFusion.
fn first_day(period: Part) -> Option<fn(i64) -> i64> {
    match period {
        Part::Year => Some(|day| first_of(Date::of(day).year, 1)),
        Part::Quarter => Some(|day| {
            let date = Date::of(day);
            first_of(date.year, (date.month - 1) / 3 * 3 + 1)
        }),
        Part::Month => Some(|day| day - Date::of(day).day + 1),
        Part::Week => Some(|day| day - (day + 3).rem_euclid(7)),
        _ => None,
    }
}

/// A date of the proleptic Gregorian calendar. Months and days count from 1.
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

/// Years count from March, so that a leap day is a year's last; a cycle is 400 of them, and begins in March of the year 0.
const CYCLE: i64 = 146_097;
/// The days from the first cycle's beginning to 1970.
const TO_1970: i64 = 719_468;
/// How many cycles before that days are counted from, so that none within [`FARTHEST`] is negative.
const CYCLES_BEFORE: i64 = 700;

impl Date {
    /// The date of a day counted from 1970-01-01, by 32-bit arithmetic without branches (Neri and Schneider, "Euclidean
    /// affine functions and their application to calendar algorithms", 2022): a division by a constant is the upper half of a
    /// product, its remainder the lower one.
    #[inline]
    fn of(day: i64) -> Self {
        const DAYS_A_YEAR: u32 = 2_939_745; // 2^32 / 1461, rounded up
        const DAYS_A_MONTH: u32 = 2_141; // 2^16 * 5 / 153, rounded down
        const JANUARY: u32 = 306;
        let quarters = 4 * (day + TO_1970 + CYCLES_BEFORE * CYCLE) as u32 + 3;
        let (century, of_century) = (quarters / CYCLE as u32, quarters % CYCLE as u32 / 4);
        let years = u64::from(DAYS_A_YEAR) * u64::from(4 * of_century + 3);
        let (year, of_year) = ((years >> 32) as u32, years as u32 / DAYS_A_YEAR / 4);
        let months = DAYS_A_MONTH * of_year + 197_913;
        let next = u32::from(of_year >= JANUARY);
        Self {
            year: i64::from(100 * century + year + next) - 400 * CYCLES_BEFORE,
            month: i64::from((months >> 16) - 12 * next),
            day: i64::from((months & 0xffff) / DAYS_A_MONTH + 1),
        }
    }
}

/// The day, counted from 1970-01-01, that a month begins with.
fn first_of(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    cycle * CYCLE + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 - TO_1970
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Date32Array, TimestampNanosecondArray, new_null_array};
    use arrow::compute::cast;
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;
    use datafusion::functions::datetime;
    use proptest::prelude::*;

    use super::*;

    const PARTS: [&str; 13] = [
        "year", "QUARTER", "month", "week", "day", "hour", "Minute", "second", "doy", "dow", "isodow", "epoch",
        "decade",
    ];

    fn args(part: &str, array: ArrayRef, returns: DataType) -> ScalarFunctionArgs {
        let name = ScalarValue::from(part);
        ScalarFunctionArgs {
            arg_fields: vec![
                Arc::new(Field::new("part", name.data_type(), false)),
                Arc::new(Field::new("time", array.data_type().clone(), true)),
            ],
            number_rows: array.len(),
            args: vec![ColumnarValue::Scalar(name), ColumnarValue::Array(array)],
            return_field: Arc::new(Field::new("value", returns, true)),
            config_options: Arc::new(ConfigOptions::default()),
        }
    }

    /// Compares with DataFusion's own functions, and returns how many had values here.
    fn compare(array: &ArrayRef) -> usize {
        let mut had = 0;
        for part in PARTS {
            for (function, calendar, returns) in [
                (datetime::date_part(), Calendar::Part, DataType::Int32),
                (datetime::date_trunc(), Calendar::Truncate, array.data_type().clone()),
            ] {
                let args = args(part, Arc::clone(array), returns);
                let Some(ours) = calendar.values(&args) else { continue };
                had += 1;
                let theirs = match function.invoke_with_args(args) {
                    Ok(theirs) => theirs,
                    // It cuts down nanoseconds, which end in the year 2262.
                    Err(error) if error.to_string().contains("out of range") => continue,
                    Err(error) => panic!("{part}: {error}"),
                };
                let (ours, theirs) = (ours.into_array(array.len()), theirs.into_array(array.len()));
                assert_eq!(&ours.expect("an array"), &theirs.expect("an array"), "{calendar:?} {part}");
            }
        }
        had
    }

    fn times(values: Vec<Option<i64>>, unit: TimeUnit) -> ArrayRef {
        let plain = arrow::array::Int64Array::from(values);
        cast(&plain, &DataType::Timestamp(unit, None)).expect("casts")
    }

    proptest! {
        #[test]
        fn times_have_datafusions_parts(
            seconds in prop::collection::vec(prop::option::of(-8_000_000_000_000_i64..8_000_000_000_000), 1..200),
            nanos in prop::collection::vec(prop::option::of(-9_000_000_000_000_000_000_i64..i64::MAX), 1..200),
        ) {
            prop_assert_eq!(compare(&times(seconds.clone(), TimeUnit::Second)), 14);
            let millis = seconds.iter().map(|second| second.map(|s| s * 1000 + s % 1000)).collect();
            prop_assert_eq!(compare(&times(millis, TimeUnit::Millisecond)), 14);
            let micros = nanos.iter().map(|nano| nano.map(|n| n / 2)).collect();
            prop_assert_eq!(compare(&times(micros, TimeUnit::Microsecond)), 14);
            prop_assert_eq!(compare(&times(nanos, TimeUnit::Nanosecond)), 14);
        }

        #[test]
        fn dates_have_datafusions_parts(days in prop::collection::vec(prop::option::of(-90_000_000..90_000_000), 1..200)) {
            let days: ArrayRef = Arc::new(Date32Array::from(days));
            prop_assert_eq!(compare(&days), 7);
        }
    }

    #[test]
    fn each_day_of_eight_hundred_years_has_its_date() {
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values(-146_097..146_097));
        assert_eq!(compare(&days), 7);
        let times = cast(&days, &DataType::Timestamp(TimeUnit::Second, None)).expect("casts");
        assert_eq!(compare(&times), 14);
        // DataFusion can't cut most of them down.
        for part in ["year", "quarter", "month", "week"] {
            let cut = Calendar::Truncate.values(&args(part, Arc::clone(&times), times.data_type().clone()));
            let cut = cut.and_then(|cut| cut.into_array(times.len()).ok()).expect("values");
            let parts = |array: &ArrayRef, part| {
                let args = args(part, Arc::clone(array), DataType::Int32);
                let parts =
                    datetime::date_part().invoke_with_args(args).and_then(|parts| parts.into_array(array.len()));
                parts.expect("parts")
            };
            let same: &[&str] = match part {
                "quarter" => &["year", "quarter"],
                "month" => &["year", "month"],
                "week" => &["isoyear", "week"],
                _ => &["year"],
            };
            for same in same {
                assert_eq!(&parts(&times, same), &parts(&cut, same), "{part} {same}");
            }
            let first = match part {
                "year" => parts(&cut, "doy"),
                "week" => parts(&cut, "isodow"),
                _ => parts(&cut, "day"),
            };
            assert!(first.as_primitive::<Int32Type>().values().iter().all(|first| *first == 1), "{part}");
        }
    }

    #[test]
    fn what_has_no_date_is_left_to_datafusion() {
        for array in [
            times(vec![Some(i64::MAX)], TimeUnit::Second),
            times(vec![Some(0), Some(i64::MIN)], TimeUnit::Microsecond),
            new_null_array(&DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), 2),
            new_null_array(&DataType::Time64(TimeUnit::Nanosecond), 2),
        ] {
            assert_eq!(compare(&array), 0, "{:?}", array.data_type());
        }
        // The week, month and year of the first nanoseconds began before them.
        let first: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![i64::MIN + 1]));
        assert_eq!(compare(&first), 10);
        assert_eq!(compare(&new_null_array(&DataType::Timestamp(TimeUnit::Nanosecond, None), 3)), 14);
    }
}
