//! Judges a schema before anything is encoded: names that collide, types that a format can't carry; and
//! says which types the binary formats write instead.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema};

use super::Format;
use super::error::FormatError;
use super::time::Zone;

/// Refuses what can't be written faithfully.
pub(crate) fn check(schema: &Schema, format: Format) -> Result<(), FormatError> {
    let needs_columns = matches!(format, Format::Csv | Format::Parquet);
    if schema.fields().is_empty() && needs_columns {
        return Err(FormatError::NoColumns { format });
    }
    check_fields("", schema.fields(), format)
}

fn check_fields(parent: &str, fields: &Fields, format: Format) -> Result<(), FormatError> {
    let mut names = HashSet::new();
    for field in fields {
        let column = match parent {
            "" => field.name().clone(),
            parent => format!("{parent}.{}", field.name()),
        };
        if !names.insert(field.name()) {
            return Err(FormatError::DuplicateColumn { column });
        }
        check_type(&column, field.data_type(), format)?;
    }
    Ok(())
}

fn check_type(column: &str, data_type: &DataType, format: Format) -> Result<(), FormatError> {
    let refuse =
        |hint| Err(FormatError::Unsupported { column: column.to_owned(), data_type: data_type.clone(), format, hint });
    let text = !matches!(format, Format::Arrow | Format::Parquet);
    match data_type {
        DataType::Union(..) if format != Format::Arrow => refuse("select one of its members, or ask for arrow"),
        DataType::Timestamp(_, Some(zone)) if text && Zone::parse(Some(zone)).is_none() => {
            Err(FormatError::UnknownZone { column: column.to_owned(), zone: zone.to_string() })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) if format == Format::Parquet => {
            refuse("CAST it to VARCHAR, or ask for arrow")
        }
        DataType::Struct(fields) if fields.is_empty() && format == Format::Parquet => {
            refuse("leave it out, or ask for arrow")
        }
        DataType::Struct(fields) => check_fields(column, fields, format),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => check_type(&format!("{column}[]"), item.data_type(), format),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => check_fields(column, entry, format),
            _ => refuse("its entries are no struct"),
        },
        DataType::Dictionary(_, values) => check_type(column, values, format),
        DataType::RunEndEncoded(_, values) => check_type(column, values.data_type(), format),
        _ => Ok(()),
    }
}

/// The schema that a binary format writes for `schema`.
pub(crate) fn written_schema(schema: &Schema, format: Format) -> Schema {
    let fields: Fields = schema.fields().iter().map(|field| written(field, format)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn written(field: &FieldRef, format: Format) -> FieldRef {
    let data_type = written_type(field.data_type(), format);
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// Views become plain strings and binaries, which older clients can read too. Runs become their values: Parquet has
/// none, and Arrow's IPC writer (59.3) gives an empty slice of runs a run end of 0, which readers refuse. Parquet has
/// no list views either, and its dictionaries are its own affair.
fn written_type(data_type: &DataType, format: Format) -> DataType {
    use DataType::*;
    let parquet = format == Format::Parquet;
    match data_type {
        Utf8View => Utf8,
        BinaryView => Binary,
        List(item) => List(written(item, format)),
        LargeList(item) => LargeList(written(item, format)),
        FixedSizeList(item, size) => FixedSizeList(written(item, format), *size),
        ListView(item) if parquet => List(written(item, format)),
        LargeListView(item) if parquet => LargeList(written(item, format)),
        ListView(item) => ListView(written(item, format)),
        LargeListView(item) => LargeListView(written(item, format)),
        Struct(fields) => Struct(fields.iter().map(|field| written(field, format)).collect()),
        Map(entries, sorted) => Map(written(entries, format), *sorted),
        Dictionary(_, values) if parquet => written_type(values, format),
        Dictionary(keys, values) => Dictionary(keys.clone(), Box::new(written_type(values, format))),
        RunEndEncoded(_, values) => written_type(values.data_type(), format),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{TimeUnit, UnionFields, UnionMode};

    fn one(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("v", data_type, true)])
    }

    #[test]
    fn duplicate_names_are_refused_at_every_depth() {
        let twice = vec![Field::new("a", DataType::Int8, true), Field::new("a", DataType::Int8, true)];
        let nested = DataType::Struct(twice.clone().into());
        let list = DataType::List(Arc::new(Field::new("item", nested, true)));
        for format in Format::ALL {
            let flat = check(&Schema::new(twice.clone()), format);
            let column = |column: &str| Err(FormatError::DuplicateColumn { column: column.to_owned() });
            assert_eq!(flat, column("a"));
            assert_eq!(check(&one(list.clone()), format), column("v[].a"));
        }
    }

    #[test]
    fn types_without_text_are_refused_with_a_hint() {
        let member = Field::new("i", DataType::Int32, true);
        let members = UnionFields::try_new([0], [member]).expect("one member");
        let union = one(DataType::Union(members, UnionMode::Dense));
        let message = check(&union, Format::Json).expect_err("refused").to_string();
        assert!(message.contains("column `v`") && message.contains("members"), "{message}");
        assert_eq!(check(&union, Format::Arrow), Ok(()));

        let zone = Some(Arc::from("Mars/Olympus"));
        let zoned = one(DataType::Timestamp(TimeUnit::Second, zone));
        let message = check(&zoned, Format::Csv).expect_err("refused").to_string();
        assert!(message.contains("`Mars/Olympus`"), "{message}");
        assert_eq!(check(&zoned, Format::Arrow), Ok(()));

        let interval = one(DataType::Interval(IntervalUnit::MonthDayNano));
        let message = check(&interval, Format::Parquet).expect_err("refused").to_string();
        assert!(message.contains("CAST it to VARCHAR"), "{message}");
    }

    #[test]
    fn results_without_columns_fit_only_some_formats() {
        for format in Format::ALL {
            let refused = matches!(format, Format::Csv | Format::Parquet);
            assert_eq!(check(&Schema::empty(), format).is_err(), refused, "{format}");
        }
    }
}
