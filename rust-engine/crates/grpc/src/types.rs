//! Arrow types as the contract spells them.

use arrow::datatypes::{DataType, Field, TimeUnit};
use quern_core::TableSnapshot;

use crate::proto;

/// A column of a schema.
pub(crate) fn column(field: &Field) -> proto::Column {
    let children: Vec<proto::Column> = match field.data_type() {
        DataType::Struct(fields) => fields.iter().map(|f| column(f)).collect(),
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::Map(f, _) => vec![column(f)],
        _ => Vec::new(),
    };
    proto::Column { name: field.name().clone(), r#type: sql_type(field), nullable: field.is_nullable(), children }
}

/// The SQL name of a type; JSON for text that the files held as mixed JSON values.
fn sql_type(field: &Field) -> String {
    if quern_sources::widen::is_json(field) {
        return "JSON".to_owned();
    }
    type_name(field.data_type())
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INTEGER UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BYTEA".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            let zone = zone.as_ref().map_or("", |_| " WITH TIME ZONE");
            format!("TIMESTAMP({digits}){zone}")
        }
        DataType::Duration(_) | DataType::Interval(_) => "INTERVAL".to_owned(),
        DataType::Struct(_) => "STRUCT".to_owned(),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..) => "LIST".to_owned(),
        DataType::Map(..) => "MAP".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
        DataType::Union(..) => "UNION".to_owned(),
    }
}

/// Snapshots, one for one.
pub(crate) fn snapshots(snapshots: &[TableSnapshot]) -> Vec<proto::TableSnapshot> {
    snapshots.iter().map(|s| proto::TableSnapshot { table: s.table.clone(), snapshot: s.snapshot.clone() }).collect()
}
