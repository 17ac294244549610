//! From tokens and cells to columns.

use std::collections::HashMap;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::Fields;
use arrow::error::ArrowError;

use super::MAX_STRUCT_FIELDS;
use super::column::{Column, Values, struct_array};
use super::error::{Stop, excerpt};
use super::kinds::Kinds;
use super::scalar::{cell_kind, parse_bool, parse_decimal, parse_f64, parse_i64, parse_moment};
use super::scan::{Scan, Scanner, Token, minify_into};

/// Named columns filled row by row: a batch, or a struct column.
#[derive(Debug)]
pub(super) struct Record {
    fields: Fields,
    columns: Vec<Column>,
    index: HashMap<String, usize>,
    valid: Vec<bool>,
    /// The keys of the first objects in their order, each with its column: most others have the same.
    order: Vec<(Box<str>, Option<usize>)>,
}

impl Record {
    pub(super) fn new(fields: &Fields) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(fields.len());
        let mut index = HashMap::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            columns.push(Column::new(field).map_err(|why| format!("column `{}`: {why}", field.name()))?);
            index.insert(field.name().clone(), at);
        }
        Ok(Self { fields: fields.clone(), columns, index, valid: Vec::new(), order: Vec::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    pub(super) fn column(&mut self, at: usize) -> &mut Column {
        &mut self.columns[at]
    }

    pub(super) fn push_null(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
        self.valid.push(false);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.valid.truncate(rows);
    }

    /// Ends a row: columns without a value get a null.
    pub(super) fn close(&mut self) {
        let rows = self.valid.len();
        for column in &mut self.columns {
            if column.len() == rows {
                column.push_null();
            }
        }
        self.valid.push(true);
    }

    /// The column of an object's nth key.
    fn place(&mut self, ordinal: usize, name: &str) -> Option<usize> {
        if let Some((known, at)) = self.order.get(ordinal)
            && known.as_ref() == name
        {
            return *at;
        }
        let found = self.position(name);
        if ordinal == self.order.len() && ordinal < MAX_STRUCT_FIELDS {
            self.order.push((name.into(), found));
        }
        found
    }

    /// Reads the rest of an object. Keys that have no column are passed over.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        let rows = self.valid.len();
        let mut first = true;
        for ordinal in 0.. {
            let Some(key) = scanner.key(&mut first)? else {
                break;
            };
            let name = key.text()?;
            let found = self.place(ordinal, &name);
            let token = scanner.value()?;
            let Some(at) = found else {
                scanner.skip(token)?;
                continue;
            };
            let column = &mut self.columns[at];
            if column.len() > rows {
                let message = "the key occurs twice in one object; rename one of them";
                return Err(Stop::bad(scanner.position(), message).within(&name));
            }
            column.read(scanner, token).map_err(|stop| stop.within(&name))?;
        }
        self.close();
        Ok(())
    }

    /// The columns' arrays; an error names the column. The record is empty after.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>, (String, ArrowError)> {
        self.valid.clear();
        let named = self.columns.iter_mut().zip(self.fields.iter());
        named.map(|(column, field)| column.finish().map_err(|error| (field.name().clone(), error))).collect()
    }

    /// The struct array of all rows; the record is empty after.
    pub(super) fn take(&mut self) -> Result<StructArray, ArrowError> {
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
        struct_array(&self.fields, arrays, &mut self.valid)
    }
}

impl Column {
    /// Reads the rest of a JSON value that `token` has begun.
    pub(super) fn read<'a>(&mut self, scanner: &mut Scanner<'a>, token: Token<'a>) -> Scan<()> {
        let position = scanner.position();
        match (&mut self.values, token) {
            (_, Token::Null) => self.push_null(),
            (Values::Json(strings), _) => {
                minify_into(scanner.source(token)?, &mut strings.bytes);
                strings.close();
            }
            (Values::Struct(record), Token::Object) => record.read(scanner)?,
            (Values::List(lists), Token::Array) => {
                let mut first = true;
                while scanner.element(&mut first)? {
                    let element = scanner.value()?;
                    lists.items.read(scanner, element).map_err(|stop| stop.within("[]"))?;
                }
                lists.close();
            }
            (Values::Text(strings), Token::Object | Token::Array) => {
                minify_into(scanner.source(token)?, &mut strings.bytes);
                strings.close();
            }
            (Values::Text(strings), Token::String(quoted)) => strings.push(&quoted.text()?),
            (Values::Bool(fixed), Token::Bool(value)) => fixed.push(value),
            (_, Token::Number(number)) => self.parse(number.text).map_err(|why| Stop::bad(position, why))?,
            (_, Token::String(quoted)) => {
                let text = quoted.text()?;
                self.parse(&text).map_err(|why| Stop::bad(position, why))?;
            }
            (Values::Text(strings), Token::Bool(value)) => strings.push(if value { "true" } else { "false" }),
            (_, Token::Bool(value)) => return Err(self.contradicts(position, &value.to_string())),
            (_, Token::Object) => return Err(self.contradicts(position, "an object")),
            (_, Token::Array) => return Err(self.contradicts(position, "an array")),
        }
        Ok(())
    }

    fn contradicts(&self, position: usize, found: &str) -> Stop {
        Stop::bad(position, format!("{found} where the column is {}", self.describe()))
    }

    /// Appends a value from its text; the caller has dealt with nulls.
    pub(super) fn parse(&mut self, text: &str) -> Result<(), String> {
        let outcome = match &mut self.values {
            Values::Text(strings) => {
                strings.push(text);
                Ok(())
            }
            Values::Int(fixed, low, high) => match parse_i64(text) {
                Some(value) if (*low..=*high).contains(&value) => {
                    fixed.push(value);
                    Ok(())
                }
                Some(_) => Err("is outside its range"),
                None => Err("is not an integer that fits"),
            },
            Values::UInt64(fixed) => match text.parse() {
                Ok(value) if !text.starts_with('+') => {
                    fixed.push(value);
                    Ok(())
                }
                _ => Err("is not an unsigned integer that fits"),
            },
            Values::Float(fixed) => parse_f64(text).map(|value| fixed.push(value)),
            Values::Decimal(fixed, precision, scale) => {
                parse_decimal(text, *precision, *scale).map(|value| fixed.push(value))
            }
            Values::Bool(fixed) => match parse_bool(text) {
                Some(value) => {
                    fixed.push(value);
                    Ok(())
                }
                None => Err("is neither true nor false"),
            },
            Values::Date(fixed) => match parse_moment(text) {
                Some(moment) if !moment.time => {
                    fixed.push(moment.days);
                    Ok(())
                }
                _ => Err("is not a date such as 2024-01-31"),
            },
            Values::Timestamp(fixed, unit, zone) => match parse_moment(text) {
                Some(moment) if moment.offset.is_some() == zone.is_some() => {
                    moment.since_epoch(*unit).map(|value| fixed.push(value))
                }
                Some(_) if zone.is_some() => Err("has no `Z` or offset from UTC, which the column needs"),
                Some(_) => Err("has an offset from UTC, which the column has not"),
                None => Err("is not a timestamp such as 2024-01-31 10:00:00"),
            },
            Values::Json(strings) => {
                push_json_cell(text, &mut strings.bytes);
                strings.close();
                Ok(())
            }
            Values::Null(_) | Values::Struct(_) | Values::List(_) => Err("is no value for it"),
        };
        outcome.map_err(|why| format!("`{}` {why}; the column is {}", excerpt(text), self.describe()))
    }

    /// Appends a CSV cell.
    pub(super) fn parse_cell(&mut self, cell: &str, quoted: bool) -> Result<(), String> {
        match &self.values {
            Values::Text(_) if quoted || !cell.is_empty() => self.parse(cell),
            _ if cell.is_empty() => {
                self.push_null();
                Ok(())
            }
            Values::Json(_) => self.parse(cell),
            _ => self.parse(cell.trim_matches(' ')),
        }
    }

    fn describe(&self) -> String {
        match &self.values {
            Values::Json(_) => "JSON text".to_owned(),
            Values::Struct(_) => "an object".to_owned(),
            Values::List(_) => "a list".to_owned(),
            _ => self.wanted().data_type().to_string(),
        }
    }
}

/// A CSV cell in a column that other files hold objects or lists in: numbers and booleans as they are, all else as a
/// JSON string.
fn push_json_cell(cell: &str, out: &mut Vec<u8>) {
    let literal = serde_json::from_str::<&serde_json::value::RawValue>(cell).is_ok()
        && matches!(cell_kind(cell), Kinds::INT64 | Kinds::UINT64 | Kinds::BIG | Kinds::FLOAT | Kinds::BOOL);
    if literal {
        out.extend_from_slice(cell.trim().as_bytes());
    } else {
        // Writing a string to memory cannot fail.
        out.extend_from_slice(serde_json::Value::from(cell).to_string().as_bytes());
    }
}
