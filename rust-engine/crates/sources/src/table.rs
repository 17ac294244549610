//! A table whose files are all known: the united schema and what a scan needs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::datasource::physical_plan::parquet::transform_schema_to_view;
use quern_core::{EngineError, Reason};

use crate::inspect::FileInfo;
use crate::listing::{FileFormat, ListedFile, ListedTable};
use crate::widen;

/// A table at one snapshot, ready to be scanned.
#[derive(Debug)]
pub struct Table {
    /// The table's name.
    pub name: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// The files' columns, united, without the partition columns.
    pub file_schema: SchemaRef,
    /// The columns that come from `key=value` folders.
    pub partition_fields: Fields,
    /// The files in order, with what inspection found.
    pub files: Vec<(Arc<ListedFile>, Arc<FileInfo>)>,
}

impl Table {
    /// Unites inspected files by column name.
    pub(crate) fn unite(
        listed: &ListedTable,
        snapshot: String,
        files: Vec<(Arc<ListedFile>, Arc<FileInfo>)>,
    ) -> Result<Self, EngineError> {
        let mut fields: Vec<Field> = Vec::new();
        let mut positions = std::collections::HashMap::new();
        for (file, info) in &files {
            for field in info.schema.fields() {
                match positions.get(field.name()) {
                    None => {
                        positions.insert(field.name().clone(), fields.len());
                        fields.push(field.as_ref().clone());
                    }
                    Some(&at) => {
                        let united: &mut Field = &mut fields[at];
                        *united = widen::widen(united, field).map_err(|_| conflict(file, united, field))?;
                    }
                }
            }
        }
        let partition_fields = partition_fields(&files)?;
        if let Some(field) = partition_fields.iter().find(|f| positions.contains_key(f.name())) {
            return Err(EngineError::new(
                Reason::SchemaConflict,
                format!("`{}` is both a column of the files and a `{}=…` folder", field.name(), field.name()),
            ));
        }
        let schema = widen::finalize(&Schema::new(fields));
        refuse_uncastable(&files, &schema)?;
        // Views are what comparisons, groups and joins are fastest on, and what a filter need not copy.
        let schema = transform_schema_to_view(&schema);
        Ok(Self { name: listed.name.clone(), snapshot, file_schema: Arc::new(schema), partition_fields, files })
    }

    /// All columns: the files', then the partitions'.
    pub fn schema(&self) -> SchemaRef {
        if self.partition_fields.is_empty() {
            return Arc::clone(&self.file_schema);
        }
        let all = self.file_schema.fields().iter().chain(&self.partition_fields);
        Arc::new(Schema::new(all.cloned().collect::<Fields>()))
    }

    /// How many rows all files hold.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|(_, info)| info.rows).sum()
    }
}

/// Readers of Parquet and Arrow cast what the file holds to the united type; text is decoded straight into it.
fn refuse_uncastable(files: &[(Arc<ListedFile>, Arc<FileInfo>)], united: &Schema) -> Result<(), EngineError> {
    for (file, info) in files.iter().filter(|(f, _)| matches!(f.format, FileFormat::Parquet | FileFormat::Arrow)) {
        for field in info.schema.fields() {
            if let Ok(target) = united.field_with_name(field.name())
                && !widen::castable(field, target)
            {
                return Err(conflict(file, target, field));
            }
        }
    }
    Ok(())
}

fn conflict(file: &ListedFile, united: &Field, field: &Field) -> EngineError {
    EngineError::new(
        Reason::SchemaConflict,
        format!(
            "column `{}` is {} in `{}` but {} in the other files, and the two can't be united",
            field.name(),
            field.data_type(),
            file.shown,
            united.data_type()
        ),
    )
    .with("file", &file.shown)
    .with("column", field.name())
}

/// The partition columns: every file must lie below the same keys. Whole numbers without leading zeros are BIGINT
/// if all values are; else VARCHAR.
fn partition_fields(files: &[(Arc<ListedFile>, Arc<FileInfo>)]) -> Result<Fields, EngineError> {
    let Some((first, _)) = files.first() else { return Ok(Fields::empty()) };
    let keys: Vec<&str> = first.partitions.iter().map(|(k, _)| k.as_str()).collect();
    for (file, _) in files {
        if file.partitions.iter().map(|(k, _)| k.as_str()).ne(keys.iter().copied()) {
            return Err(EngineError::new(
                Reason::SchemaConflict,
                format!("`{}` does not lie below the same `key=value` folders as `{}`", file.shown, first.shown),
            )
            .with("file", &file.shown));
        }
    }
    let field = |(i, key): (usize, &&str)| {
        let all_whole = files.iter().all(|(f, _)| f.partitions.get(i).is_some_and(|(_, v)| is_whole(v)));
        let data_type = if all_whole { DataType::Int64 } else { DataType::Utf8 };
        Field::new(*key, data_type, true)
    };
    Ok(keys.iter().enumerate().map(field).collect())
}

/// Hive's word for a null partition value.
pub(crate) const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

fn is_whole(value: &str) -> bool {
    value == NULL_PARTITION || value.parse::<i64>().is_ok_and(|n| n.to_string() == value)
}
