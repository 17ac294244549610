//! The one lattice of types, used within a text file and across the files of a folder.
//!
//! [`widen`] takes two fields to the narrowest type that holds the values of both. It is commutative and associative,
//! up to the order of a struct's fields, so that a schema depends neither on the order of rows nor on that of files.
//!
//! | types | become |
//! |---|---|
//! | Null and T | T |
//! | integers | the narrowest integer that holds both; Int64 (or narrower signed) and UInt64: Decimal128(20,0) |
//! | integer and decimal, two decimals | a decimal with the digits of both, up to 76, beyond that Float64 |
//! | floats | the wider; a float and any other number: Float64 |
//! | date and timestamp without zone | timestamp |
//! | two timestamps | the finer unit; two different zones: UTC; with and without zone: Utf8 |
//! | other scalars that differ (boolean, number, date, text …) | Utf8: the value's source text |
//! | struct and struct | the fields of both, widened by name |
//! | list and list | a list of the widened element |
//! | scalar and nested, struct and list, JSON text and anything | JSON text: Utf8 marked as `arrow.json` |
//! | binary or union and anything else | no type: an error |

mod apply;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

pub use apply::{cast, castable};

use crate::text::MAX_STRUCT_FIELDS;

/// Metadata key and value that mark a text column as holding JSON text (Arrow's canonical extension type).
const EXTENSION_KEY: &str = "ARROW:extension:name";
const JSON_EXTENSION: &str = "arrow.json";

/// Two types that no type holds both of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WidenError {
    /// The column; keys of nested objects are joined by dots, a list's elements are `[]`.
    pub path: String,
    /// The type on one side.
    pub left: DataType,
    /// The type on the other side.
    pub right: DataType,
}

impl fmt::Display for WidenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column `{}` is {} here and {} there, and no type holds both", self.path, self.left, self.right)
    }
}

impl std::error::Error for WidenError {}

/// A nullable text column that holds JSON text.
pub fn json_field(name: &str) -> Field {
    let metadata = [(EXTENSION_KEY.to_owned(), JSON_EXTENSION.to_owned())];
    Field::new(name, DataType::Utf8, true).with_metadata(metadata.into())
}

/// Whether the field holds JSON text.
pub fn is_json(field: &Field) -> bool {
    is_text(field.data_type()) && field.metadata().get(EXTENSION_KEY).is_some_and(|name| name == JSON_EXTENSION)
}

/// The narrowest field that holds the values of both; it has the name of the first and is nullable.
pub fn widen(left: &Field, right: &Field) -> Result<Field, WidenError> {
    if is_json(left) || is_json(right) {
        return widen_json(left, right);
    }
    let join = Join { left, right };
    let data_type = match (left.data_type(), right.data_type()) {
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Struct(ours), DataType::Struct(theirs)) => match union(ours, theirs, left.name())? {
            Some(fields) => DataType::Struct(fields),
            None => return Ok(json_field(left.name())),
        },
        (ours, theirs) if ours == theirs => ours.clone(),
        (ours, theirs) if is_closed(ours) || is_closed(theirs) => join.closed()?,
        (DataType::Map(ours, sorted), DataType::Map(theirs, _)) => DataType::Map(join.element(ours, theirs)?, *sorted),
        (ours, theirs) => match (list_item(ours), list_item(theirs)) {
            (Some(our_item), Some(their_item)) => join.list(our_item, their_item)?,
            _ if is_nested(ours) || is_nested(theirs) => return Ok(json_field(left.name())),
            _ => scalar(ours, theirs),
        },
    };
    Ok(Field::new(left.name(), data_type, true))
}

/// Unites two schemas by name, columns in the order first seen, and widens those that both have.
pub fn widen_schemas(left: &Schema, right: &Schema) -> Result<Schema, WidenError> {
    let fields = union_fields(left.fields(), right.fields(), "")?;
    Ok(Schema::new_with_metadata(fields, left.metadata().clone()))
}

/// A schema fit for tables: columns without any value become Utf8, objects without any key JSON text, all nullable.
pub fn finalize(schema: &Schema) -> Schema {
    let fields: Fields = schema.fields().iter().map(|field| finalize_field(field)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn finalize_field(field: &Field) -> Field {
    let item = |inner: &FieldRef| -> FieldRef { finalize_field(inner).into() };
    let data_type = match field.data_type() {
        DataType::Null => DataType::Utf8,
        DataType::Struct(fields) if fields.is_empty() => return json_field(field.name()),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(item).collect()),
        DataType::List(inner) => DataType::List(item(inner)),
        DataType::LargeList(inner) => DataType::LargeList(item(inner)),
        DataType::ListView(inner) => DataType::ListView(item(inner)),
        DataType::LargeListView(inner) => DataType::LargeListView(item(inner)),
        DataType::FixedSizeList(inner, size) => DataType::FixedSizeList(item(inner), *size),
        // A map's entries and keys must not be nullable, so a map stays as its file has it.
        other => other.clone(),
    };
    field.clone().with_data_type(data_type).with_nullable(true)
}

fn widen_json(left: &Field, right: &Field) -> Result<Field, WidenError> {
    let closed = |field: &Field| is_closed(field.data_type());
    if closed(left) || closed(right) {
        Join { left, right }.closed()?;
    }
    let both = is_json(left) && is_json(right) && left.data_type() == right.data_type();
    Ok(if both { left.clone().with_nullable(true) } else { json_field(left.name()) })
}

/// The two sides of one widening.
struct Join<'a> {
    left: &'a Field,
    right: &'a Field,
}

impl Join<'_> {
    fn refuse(&self) -> WidenError {
        WidenError {
            path: self.left.name().clone(),
            left: self.left.data_type().clone(),
            right: self.right.data_type().clone(),
        }
    }

    /// Bytes widen to bytes only, unions to nothing.
    fn closed(&self) -> Result<DataType, WidenError> {
        let (ours, theirs) = (unpack(self.left.data_type()), unpack(self.right.data_type()));
        if ours == theirs {
            return Ok(ours.clone());
        }
        if is_binary(ours) && is_binary(theirs) { Ok(DataType::Binary) } else { Err(self.refuse()) }
    }

    fn element(&self, ours: &Field, theirs: &Field) -> Result<FieldRef, WidenError> {
        let widened = widen(ours, theirs).map_err(|mut error| {
            error.path = format!("{}[]", self.left.name());
            error
        })?;
        // A map's entries stay as they are declared: not nullable.
        let nullable = ours.is_nullable() || theirs.is_nullable();
        Ok(widened.with_nullable(nullable).into())
    }

    fn list(&self, ours: &Field, theirs: &Field) -> Result<DataType, WidenError> {
        let item = self.element(ours, theirs)?;
        Ok(match (self.left.data_type(), self.right.data_type()) {
            (DataType::LargeList(_), DataType::LargeList(_)) => DataType::LargeList(item),
            (DataType::FixedSizeList(_, size), DataType::FixedSizeList(_, other)) if size == other => {
                DataType::FixedSizeList(item, *size)
            }
            _ => DataType::List(item),
        })
    }
}

fn union_fields(ours: &Fields, theirs: &Fields, parent: &str) -> Result<Fields, WidenError> {
    let mut index = std::collections::HashMap::with_capacity(ours.len());
    let mut fields: Vec<FieldRef> = Vec::with_capacity(ours.len());
    for field in ours.iter().chain(theirs.iter()) {
        match index.get(field.name().as_str()) {
            None => {
                index.insert(field.name().as_str(), fields.len());
                fields.push(field.clone());
            }
            Some(&at) => {
                let slot: &mut FieldRef = &mut fields[at];
                *slot = widen(slot, field).map_err(|error| under(parent, error))?.into();
            }
        }
    }
    Ok(fields.into_iter().map(|field| field.as_ref().clone().with_nullable(true)).collect())
}

fn under(parent: &str, mut error: WidenError) -> WidenError {
    if !parent.is_empty() {
        error.path = format!("{parent}.{}", error.path);
    }
    error
}

/// The fields of both structs; none where the union holds more keys than a struct of text may, unless one of the two
/// holds them all (as a wide struct of a Parquet file does).
fn union(ours: &Fields, theirs: &Fields, name: &str) -> Result<Option<Fields>, WidenError> {
    let fields = union_fields(ours, theirs, name)?;
    let too_many = fields.len() > MAX_STRUCT_FIELDS && fields.len() > ours.len().max(theirs.len());
    Ok((!too_many).then_some(fields))
}

/// Widens two scalar types that differ and are neither binary nor union.
fn scalar(ours: &DataType, theirs: &DataType) -> DataType {
    let (ours, theirs) = (unpack(ours), unpack(theirs));
    if ours == theirs {
        return ours.clone();
    }
    if let (Some(left), Some(right)) = (Number::of(ours), Number::of(theirs)) {
        return left.join(right);
    }
    match (ours, theirs) {
        (DataType::Date32 | DataType::Date64, DataType::Date32 | DataType::Date64) => DataType::Date64,
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(unit, None))
        | (DataType::Timestamp(unit, None), DataType::Date32 | DataType::Date64) => DataType::Timestamp(*unit, None),
        (DataType::Timestamp(left, None), DataType::Timestamp(right, None)) => {
            DataType::Timestamp(finer(*left, *right), None)
        }
        (DataType::Timestamp(left, Some(zone)), DataType::Timestamp(right, Some(other))) => {
            let zone = if zone == other { zone.clone() } else { "UTC".into() };
            DataType::Timestamp(finer(*left, *right), Some(zone))
        }
        (DataType::Time32(left) | DataType::Time64(left), DataType::Time32(right) | DataType::Time64(right)) => {
            match finer(*left, *right) {
                unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                unit => DataType::Time64(unit),
            }
        }
        (DataType::Duration(left), DataType::Duration(right)) => DataType::Duration(finer(*left, *right)),
        _ => DataType::Utf8,
    }
}

fn finer(left: TimeUnit, right: TimeUnit) -> TimeUnit {
    left.max(right)
}

/// A numeric type as the lattice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Bits of the narrowest signed integer that holds the type; 128 for UInt64, which needs a decimal beside a sign.
    Integer {
        signed: bool,
        bits: u8,
    },
    /// Digits before the point, digits after it, and the least width in bits.
    Decimal {
        whole: i16,
        scale: i8,
        bits: u16,
    },
    Float {
        bits: u8,
    },
}

impl Number {
    fn of(data_type: &DataType) -> Option<Self> {
        let signed = |bits| Self::Integer { signed: true, bits };
        let unsigned = |bits| Self::Integer { signed: false, bits };
        let decimal = |precision: u8, scale: i8, bits| {
            let whole = i16::from(precision) - i16::from(scale);
            Self::Decimal { whole, scale, bits }
        };
        Some(match data_type {
            DataType::Int8 => signed(8),
            DataType::Int16 => signed(16),
            DataType::Int32 => signed(32),
            DataType::Int64 => signed(64),
            DataType::UInt8 => unsigned(8),
            DataType::UInt16 => unsigned(16),
            DataType::UInt32 => unsigned(32),
            DataType::UInt64 => unsigned(64),
            DataType::Decimal32(precision, scale) => decimal(*precision, *scale, 32),
            DataType::Decimal64(precision, scale) => decimal(*precision, *scale, 64),
            DataType::Decimal128(precision, scale) => decimal(*precision, *scale, 128),
            DataType::Decimal256(precision, scale) => decimal(*precision, *scale, 256),
            DataType::Float16 => Self::Float { bits: 16 },
            DataType::Float32 => Self::Float { bits: 32 },
            DataType::Float64 => Self::Float { bits: 64 },
            _ => return None,
        })
    }

    /// An integer as a decimal. All but UInt64 count 19 digits, so that the result does not depend on which integers
    /// were joined before the decimal came.
    fn as_decimal(self) -> Option<(i16, i8, u16)> {
        match self {
            Self::Integer { signed: false, bits: 64 } => Some((20, 0, 128)),
            Self::Integer { .. } => Some((19, 0, 128)),
            Self::Decimal { whole, scale, bits } => Some((whole, scale, bits)),
            Self::Float { .. } => None,
        }
    }

    fn join(self, other: Self) -> DataType {
        match (self, other) {
            (Self::Integer { signed, bits }, Self::Integer { signed: other_signed, bits: other_bits }) => {
                integer((signed, bits), (other_signed, other_bits))
            }
            (Self::Float { bits }, Self::Float { bits: other }) => match bits.max(other) {
                16 => DataType::Float16,
                32 => DataType::Float32,
                _ => DataType::Float64,
            },
            _ => match (self.as_decimal(), other.as_decimal()) {
                (Some(left), Some(right)) => decimal(left, right),
                _ => DataType::Float64,
            },
        }
    }
}

fn integer((signed, bits): (bool, u8), (other_signed, other_bits): (bool, u8)) -> DataType {
    let needed = |as_signed: bool, of: u8| if as_signed { of } else { of.saturating_mul(2) };
    let (signed, bits) = if signed == other_signed {
        (signed, bits.max(other_bits))
    } else {
        (true, needed(signed, bits).max(needed(other_signed, other_bits)))
    };
    match (signed, bits) {
        (true, 8) => DataType::Int8,
        (true, 16) => DataType::Int16,
        (true, 32) => DataType::Int32,
        (true, 64) => DataType::Int64,
        (false, 8) => DataType::UInt8,
        (false, 16) => DataType::UInt16,
        (false, 32) => DataType::UInt32,
        (false, _) => DataType::UInt64,
        _ => DataType::Decimal128(20, 0),
    }
}

fn decimal((whole, scale, bits): (i16, i8, u16), (other_whole, other_scale, other_bits): (i16, i8, u16)) -> DataType {
    let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
    let precision = (whole + i16::from(scale)).max(1);
    let bits = bits.max(other_bits);
    match u8::try_from(precision) {
        Ok(precision @ 0..=9) if bits == 32 => DataType::Decimal32(precision, scale),
        Ok(precision @ 0..=18) if bits <= 64 => DataType::Decimal64(precision, scale),
        Ok(precision @ 0..=38) if bits <= 128 => DataType::Decimal128(precision, scale),
        Ok(precision @ 0..=76) => DataType::Decimal256(precision, scale),
        _ => DataType::Float64,
    }
}

/// The type of the values, without dictionary or run-end encoding.
fn unpack(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => unpack(value),
        DataType::RunEndEncoded(_, values) => unpack(values.data_type()),
        other => other,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// Types that nothing else widens to.
fn is_closed(data_type: &DataType) -> bool {
    let inner = unpack(data_type);
    is_binary(inner) || matches!(inner, DataType::Union(..))
}

/// The element of any kind of list.
fn list_item(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

fn is_nested(data_type: &DataType) -> bool {
    list_item(data_type).is_some() || matches!(data_type, DataType::Struct(_) | DataType::Map(..))
}
