//! The shape of a JSON file, folded from every row.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use bytes::Bytes;

use super::compress::Compression;
use super::error::{Stop, TextError};
use super::json::{Advance, JsonReader, Rows};
use super::kinds::Kinds;
use super::scalar::number_kind;
use super::scan::{Scan, Scanner, Token};
use super::{MAX_COLUMNS, MAX_STRUCT_FIELDS};
use crate::widen;

/// The one column of a file whose rows are not all objects.
pub(super) const VALUE_COLUMN: &str = "value";
/// The most distinct nested keys of one column before it is kept as JSON text.
const MAX_NESTED_KEYS: usize = 10_000;
/// The most distinct nested keys of a file, all columns together.
const MAX_FILE_KEYS: usize = 200_000;

/// What a JSON file turned out to hold.
#[derive(Debug)]
pub(super) struct JsonInferred {
    pub(super) schema: Schema,
    pub(super) rows: u64,
    /// Not all rows are objects: they are in one column.
    pub(super) values: bool,
}

/// Infers the schema of a JSON file.
#[derive(Debug)]
pub(super) struct JsonInference {
    reader: JsonReader,
    shape: FileShape,
}

impl JsonInference {
    pub(super) fn new(compression: Compression) -> Result<Self, TextError> {
        Ok(Self { reader: JsonReader::new(compression, true)?, shape: FileShape::default() })
    }

    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), TextError> {
        self.reader.push(chunk);
        self.reader.advance(&mut self.shape).map(|_| ())
    }

    pub(super) fn finish(mut self) -> Result<JsonInferred, TextError> {
        self.reader.finish();
        let end = self.reader.advance(&mut self.shape)?;
        debug_assert_eq!(end, Advance::End);
        let rows = self.reader.rows();
        let shape = self.shape;
        let only_nulls = rows > 0 && shape.objects == 0 && shape.other.is_null();
        let values = !shape.other.is_null() || only_nulls;
        let schema = if !values {
            Schema::new(shape.columns.fields())
        } else if shape.objects > 0 {
            Schema::new(vec![widen::json_field(VALUE_COLUMN)])
        } else {
            Schema::new(vec![shape.other.field(VALUE_COLUMN)])
        };
        Ok(JsonInferred { schema, rows, values })
    }
}

/// The shapes of all rows: those that are objects, and those that are not.
#[derive(Debug, Default)]
struct FileShape {
    columns: ObjectShape,
    other: Shape,
    objects: u64,
    other_keys: usize,
    keys: usize,
}

impl Rows for FileShape {
    fn row<'a>(&mut self, scanner: &mut Scanner<'a>, token: Token<'a>) -> Scan<()> {
        match token {
            Token::Null => Ok(()),
            Token::Object => {
                self.objects += 1;
                self.fold_columns(scanner)
            }
            _ => {
                let mut budget = Budget { column: self.other_keys, file: &mut self.keys };
                let folded = self.other.fold(scanner, token, &mut budget);
                self.other_keys = budget.column;
                folded.map_err(|stop| stop.within(VALUE_COLUMN))
            }
        }
    }

    /// Nothing to do: the row comes again, and folding its beginning twice changes nothing.
    fn undo(&mut self) {}

    fn done(&mut self, _bytes: usize) -> bool {
        true
    }
}

impl FileShape {
    fn fold_columns(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        self.columns.begin();
        let mut first = true;
        let mut expected = 0;
        while let Some(key) = scanner.key(&mut first)? {
            let name = key.text()?;
            let at = self.columns.slot(&name, expected, scanner)?;
            expected = at + 1;
            if self.columns.slots.len() > MAX_COLUMNS {
                let message = format!("more than {MAX_COLUMNS} columns; nest them in an object");
                return Err(Stop::bad(scanner.position(), message));
            }
            let slot = &mut self.columns.slots[at];
            let mut budget = Budget { column: slot.keys, file: &mut self.keys };
            let token = scanner.value()?;
            let folded = slot.shape.fold(scanner, token, &mut budget);
            slot.keys = budget.column;
            folded.map_err(|stop| stop.within(&name))?;
            if slot.keys > MAX_NESTED_KEYS && !slot.shape.json {
                slot.shape.become_json();
                self.keys = self.keys.saturating_sub(slot.keys);
            }
        }
        Ok(())
    }
}

/// Counts the nested keys met for the first time, to bound memory.
struct Budget<'a> {
    column: usize,
    file: &'a mut usize,
}

/// What one column, key or list element has shown.
#[derive(Debug, Default)]
struct Shape {
    kinds: Kinds,
    object: Option<Box<ObjectShape>>,
    list: Option<Box<Shape>>,
    json: bool,
}

impl Shape {
    fn is_null(&self) -> bool {
        self.kinds.is_empty() && self.object.is_none() && self.list.is_none() && !self.json
    }

    fn become_json(&mut self) {
        *self = Self { json: true, ..Self::default() };
    }

    fn fold<'a>(&mut self, scanner: &mut Scanner<'a>, token: Token<'a>, budget: &mut Budget<'_>) -> Scan<()> {
        match token {
            Token::Null => {}
            Token::Bool(_) => self.kinds.insert(Kinds::BOOL),
            Token::Number(number) => self.kinds.insert(number_kind(number.text, number.integer)),
            Token::String(_) => self.kinds.insert(Kinds::TEXT),
            Token::Object | Token::Array if self.json => return scanner.skip(token),
            Token::Object => {
                let object = self.object.get_or_insert_default();
                object.fold(scanner, budget)?;
                let mixed = self.list.is_some();
                if object.slots.len() > MAX_STRUCT_FIELDS || budget.column > MAX_NESTED_KEYS || mixed {
                    self.become_json();
                }
            }
            Token::Array => {
                let list = self.list.get_or_insert_default();
                let mut first = true;
                while scanner.element(&mut first)? {
                    let element = scanner.value()?;
                    list.fold(scanner, element, budget).map_err(|stop| stop.within("[]"))?;
                }
                if self.object.is_some() {
                    self.become_json();
                }
            }
        }
        Ok(())
    }

    fn field(&self, name: &str) -> Field {
        let nested = self.object.is_some() || self.list.is_some();
        if self.json || (nested && !self.kinds.is_empty()) {
            return widen::json_field(name);
        }
        let data_type = match (&self.object, &self.list) {
            (Some(object), _) => DataType::Struct(object.fields()),
            (_, Some(list)) => DataType::List(list.field("item").into()),
            _ => self.kinds.data_type(),
        };
        Field::new(name, data_type, true)
    }
}

/// The keys of an object in the order first seen.
#[derive(Debug, Default)]
struct ObjectShape {
    slots: Vec<Slot>,
    index: HashMap<String, usize>,
    /// Counts objects, to notice a key that occurs twice in one.
    epoch: u64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    shape: Shape,
    seen: u64,
    /// Distinct keys nested below (kept for columns only).
    keys: usize,
}

impl ObjectShape {
    fn begin(&mut self) {
        self.epoch += 1;
    }

    /// The slot of a key; `expected` is where it is if this object has the keys of the one before.
    fn slot(&mut self, name: &str, expected: usize, scanner: &Scanner<'_>) -> Scan<usize> {
        let at = match self.slots.get(expected) {
            Some(slot) if slot.name == name => expected,
            _ => match self.index.get(name) {
                Some(&at) => at,
                None => self.add(name),
            },
        };
        let slot = &mut self.slots[at];
        if slot.seen == self.epoch {
            let message = "the key occurs twice in one object; rename one of them";
            return Err(Stop::bad(scanner.position(), message).within(name));
        }
        slot.seen = self.epoch;
        Ok(at)
    }

    fn add(&mut self, name: &str) -> usize {
        let at = self.slots.len();
        self.index.insert(name.to_owned(), at);
        self.slots.push(Slot { name: name.to_owned(), shape: Shape::default(), seen: 0, keys: 0 });
        at
    }

    fn fold(&mut self, scanner: &mut Scanner<'_>, budget: &mut Budget<'_>) -> Scan<()> {
        self.begin();
        let mut first = true;
        let mut expected = 0;
        while let Some(key) = scanner.key(&mut first)? {
            // Too many keys already: what holds this object will be JSON text, whatever follows.
            if self.slots.len() > MAX_STRUCT_FIELDS || budget.column > MAX_NESTED_KEYS {
                let token = scanner.value()?;
                scanner.skip(token)?;
                continue;
            }
            let name = key.text()?;
            let known = self.slots.len();
            let at = self.slot(&name, expected, scanner)?;
            expected = at + 1;
            if self.slots.len() > known {
                budget.column += 1;
                *budget.file += 1;
            }
            if *budget.file > MAX_FILE_KEYS {
                let message = format!("more than {MAX_FILE_KEYS} distinct nested keys in one file");
                return Err(Stop::bad(scanner.position(), message));
            }
            let token = scanner.value()?;
            let folded = self.slots[at].shape.fold(scanner, token, budget);
            folded.map_err(|stop| stop.within(&name))?;
        }
        Ok(())
    }

    fn fields(&self) -> Fields {
        self.slots.iter().map(|slot| slot.shape.field(&slot.name)).collect()
    }
}
