//! Writing one value of a prepared column: as JSON or as a CSV field.

use super::cell::{Body, Cell, Dialect};
use super::sink::{Fault, Sink};

impl Cell<'_> {
    #[inline]
    fn is_null(&self, index: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(index))
    }

    pub(crate) fn write(&self, index: usize, dialect: Dialect, sink: &mut Sink) {
        match dialect {
            Dialect::Json => self.json(index, sink),
            Dialect::Csv => self.csv(index, sink),
        }
    }

    /// One JSON value.
    #[inline]
    pub(crate) fn json(&self, index: usize, sink: &mut Sink) {
        if self.is_null(index) {
            return sink.raw(b"null");
        }
        match &self.body {
            Body::Text(texts, clean) => sink.json_string(texts.get(index), *clean),
            Body::F16(values) if !values[index].is_finite() => sink.raw(b"null"),
            Body::F32(values) if !values[index].is_finite() => sink.raw(b"null"),
            Body::F64(values) if !values[index].is_finite() => sink.raw(b"null"),
            Body::Null => sink.raw(b"null"),
            _ if self.quoted => {
                sink.byte(b'"');
                self.plain(index, sink);
                sink.byte(b'"');
            }
            _ => self.plain(index, sink),
        }
    }

    /// One CSV field; null is the empty field.
    pub(crate) fn csv(&self, index: usize, sink: &mut Sink) {
        if self.is_null(index) {
            return;
        }
        match &self.body {
            Body::Null => {}
            Body::Text(texts, _) => sink.csv_string(texts.get(index)),
            Body::F16(values) => csv_float(f64::from(values[index]), sink, |sink| {
                sink.float(values[index].to_f32());
            }),
            Body::F32(values) => csv_float(f64::from(values[index]), sink, |sink| {
                sink.float(values[index]);
            }),
            Body::F64(values) => csv_float(values[index], sink, |sink| sink.float(values[index])),
            Body::Dictionary(keys, values) => values.csv(keys[index], sink),
            Body::Runs(runs, values) => values.csv(runs.get(index), sink),
            Body::Binary(blobs) if blobs.get(index).is_empty() => sink.csv_string(b""),
            Body::List(..) | Body::Map(..) | Body::Struct(_) => {
                std::mem::swap(&mut sink.buf, &mut sink.scratch);
                self.plain(index, sink);
                std::mem::swap(&mut sink.buf, &mut sink.scratch);
                let mut text = std::mem::take(&mut sink.scratch);
                sink.csv_string(&text);
                text.clear();
                sink.scratch = text;
            }
            _ => self.plain(index, sink),
        }
    }

    /// The text of a value that is not null, without quotes around scalars; floats are finite.
    #[inline]
    fn plain(&self, index: usize, sink: &mut Sink) {
        match &self.body {
            Body::Null => {}
            Body::Bool(bits) => sink.raw(if bits.value(index) { b"true" } else { b"false" }),
            Body::I8(values) => sink.number(i64::from(values[index])),
            Body::I16(values) => sink.number(i64::from(values[index])),
            Body::I32(values) => sink.number(i64::from(values[index])),
            Body::I64(values) => sink.number(values[index]),
            Body::U8(values) => sink.number(i64::from(values[index])),
            Body::U16(values) => sink.number(i64::from(values[index])),
            Body::U32(values) => sink.number(i64::from(values[index])),
            Body::U64(values) => sink.int(values[index]),
            Body::F16(values) => sink.float(values[index].to_f32()),
            Body::F32(values) => sink.float(values[index]),
            Body::F64(values) => sink.float(values[index]),
            Body::Decimal32(values, scale) => sink.decimal(i128::from(values[index]), *scale),
            Body::Decimal64(values, scale) => sink.decimal(i128::from(values[index]), *scale),
            Body::Decimal128(values, scale) => sink.decimal(values[index], *scale),
            Body::Decimal256(values, scale) => sink.decimal256(values[index], *scale),
            Body::Date32(values) => sink.date(i64::from(values[index])),
            Body::Date64(values) => sink.date64(values[index]),
            Body::Time32(values, unit) => sink.time(i64::from(values[index]), *unit),
            Body::Time64(values, unit) => sink.time(values[index], *unit),
            Body::Timestamp(values, unit, zone) => sink.timestamp(values[index], *unit, *zone),
            Body::Duration(values, unit) => sink.duration(values[index], *unit),
            Body::YearMonth(values) => sink.interval_year_month(values[index]),
            Body::DayTime(values) => sink.interval_day_time(values[index]),
            Body::MonthDayNano(values) => sink.interval_month_day_nano(values[index]),
            Body::Text(texts, clean) => sink.json_string(texts.get(index), *clean),
            Body::Binary(blobs) => sink.base64(blobs.get(index)),
            Body::Encoded(keys, ends, text) => {
                let key = keys[index];
                sink.raw(&text[ends[key]..ends[key + 1]]);
            }
            Body::Dictionary(keys, values) => values.json(keys[index], sink),
            Body::Runs(runs, values) => values.json(runs.get(index), sink),
            Body::List(..) | Body::Map(..) | Body::Struct(_) => self.nested(index, sink),
        }
    }

    fn nested(&self, index: usize, sink: &mut Sink) {
        match &self.body {
            Body::List(spans, items) => {
                sink.byte(b'[');
                for (at, item) in spans.get(index).enumerate() {
                    if at > 0 {
                        sink.byte(b',');
                    }
                    items.json(item, sink);
                }
                sink.byte(b']');
            }
            Body::Map(spans, keys, values, object) => {
                let [open, between, close] = if *object { *b"{:}" } else { *b"[,]" };
                sink.byte(open);
                for (at, entry) in spans.get(index).enumerate() {
                    if at > 0 {
                        sink.byte(b',');
                    }
                    if *object && keys.is_null(entry) {
                        sink.fail(Fault::NullKey);
                    }
                    let pair = !*object;
                    sink.raw(if pair { b"[" } else { b"" });
                    keys.json(entry, sink);
                    sink.byte(between);
                    values.json(entry, sink);
                    sink.raw(if pair { b"]" } else { b"" });
                }
                sink.byte(close);
            }
            Body::Struct(fields) => {
                sink.byte(b'{');
                for (key, cell) in fields {
                    sink.raw(key);
                    cell.json(index, sink);
                }
                sink.byte(b'}');
            }
            _ => {}
        }
    }
}

/// CSV has no null for numbers that are none: it names them.
fn csv_float(value: f64, sink: &mut Sink, finite: impl FnOnce(&mut Sink)) {
    if value.is_finite() {
        finite(sink);
    } else if value.is_nan() {
        sink.raw(b"NaN");
    } else if value > 0.0 {
        sink.raw(b"Infinity");
    } else {
        sink.raw(b"-Infinity");
    }
}
