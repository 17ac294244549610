//! One file of a scan, opened: which of its columns are read, what the others are, and which of its rows are left.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue};

use super::parquet::ParquetFile;
use super::reader::Plan;
use super::work::Group;
use super::{Source, prune};
use crate::decode::FileDecoding;
use crate::hot::{BLOCK_ROWS, SEGMENT_ROWS};
use crate::inspect::FileInfo;
use crate::listing::{FileFormat, ListedFile};
use crate::spill::{SpillKey, Spilled};
use crate::store::PinnedStore;
use crate::table::NULL_PARTITION;

/// What decoding a byte costs, in bytes of Parquet.
const PARQUET_COST: u8 = 1;
const STREAM_COST: u8 = 8;

/// A file that was opened.
pub(super) struct OpenFile {
    /// Its number among the table's files.
    pub(super) number: usize,
    /// What is read: the file itself, or what it was spilled to.
    pub(super) listed: Arc<ListedFile>,
    /// Keeps what it was spilled to.
    _spilled: Option<Arc<Spilled>>,
    /// Names its content.
    pub(super) id: u64,
    /// The columns that are read of it.
    pub(super) reads: Vec<ReadColumn>,
    /// Where each column comes from that the scan needs.
    pub(super) slots: Vec<Slot>,
    pub(super) kind: Kind,
}

/// A column that is read of a file.
pub(super) struct ReadColumn {
    /// Its place in the file.
    pub(super) column: u32,
    /// A hash of the type that it is brought to.
    pub(super) kind: u64,
    /// What the table has it as.
    pub(super) field: FieldRef,
}

/// Where a column comes from.
pub(super) enum Slot {
    /// Of the file: a place in [`OpenFile::reads`].
    Read(usize),
    /// It has one value, here as often as a block has rows.
    Constant(ArrayRef),
    /// It is the row's number in the file.
    Row,
}

pub(super) enum Kind {
    Parquet(Box<ParquetFile>),
    /// Decoded front to back.
    Stream(FileDecoding),
}

/// A file with the rows of it that are to be read.
pub(super) type Opened = Vec<(Group, Range<u64>)>;

impl OpenFile {
    /// What decoding a byte of it costs, in bytes of Parquet.
    pub(super) fn cost(&self) -> u8 {
        match self.kind {
            Kind::Parquet(_) => PARQUET_COST,
            Kind::Stream(_) => STREAM_COST,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Whether rows in the middle of a group can be had without what lies before them.
    pub(super) fn can_seek(&self) -> bool {
        matches!(&self.kind, Kind::Parquet(file) if file.can_seek())
    }

    /// Whether conditions that were found out since the file was opened leave out the whole group.
    pub(super) fn excludes(&self, group: usize) -> Result<bool> {
        match &self.kind {
            Kind::Parquet(file) => file.excludes(group),
            Kind::Stream(_) => Ok(false),
        }
    }
}

/// The first row of a file that lies behind a place in its table; nothing where no row does.
pub(super) fn start(plan: &Plan, number: usize, after: Option<(u32, i64)>) -> Option<u64> {
    let (_, info) = plan.source.table.files.get(number)?;
    let start = match after {
        Some((file, _)) if (number as u64) < u64::from(file) => return None,
        Some((file, row)) if number as u64 == u64::from(file) => u64::try_from(row).map_or(0, |row| row + 1),
        _ => 0,
    };
    (start < info.rows).then_some(start)
}

/// What lies in an opened file from row `start` on.
pub(super) fn from(opened: Opened, start: u64) -> Opened {
    let rest = opened.into_iter().map(|(group, rows)| {
        let first = u64::try_from(group.first_row).unwrap_or(u64::MAX);
        let begin = rows.start.max(start.saturating_sub(first));
        (group, begin..rows.end)
    });
    rest.filter(|(_, rows)| rows.start < rows.end).collect()
}

/// Opens a file: nothing where none of its rows are to be read. With `spills`, what it was spilled to is opened instead.
pub(super) async fn open(plan: &Plan, number: usize, spills: bool) -> Result<Opened> {
    let source = &plan.source;
    let Some((listed, info)) = source.table.files.get(number) else { return Ok(Vec::new()) };
    let constants = constants(plan, number, listed)?;
    let predicate = match &plan.predicate {
        None => None,
        Some(predicate) => match prune::with_constants(predicate, &constants, &source.schema)? {
            prune::Bound::Never => return Ok(Vec::new()),
            prune::Bound::Perhaps(predicate) => Some(predicate),
        },
    };
    let (reads, slots) = columns(plan, info, &constants)?;
    let spilled =
        if spills && listed.is_text() { source.caches.hot.spills().get(spill_key(source, info)) } else { None };
    let listed = spilled.as_ref().map_or(listed, |spilled| &spilled.listed);
    let (kind, groups) = match listed.format {
        FileFormat::Parquet => {
            let store = match &spilled {
                Some(_) => Arc::new(PinnedStore::new([Arc::clone(listed)])),
                None => Arc::clone(&source.store),
            };
            let (parquet, groups) = ParquetFile::open(plan, listed, store, predicate).await?;
            (Kind::Parquet(parquet), groups)
        }
        FileFormat::Json | FileFormat::Csv | FileFormat::Tsv | FileFormat::Arrow => {
            let decoding = FileDecoding { file: Arc::clone(listed), layout: info.layout.clone() };
            (Kind::Stream(decoding), vec![GroupRows { rows: info.rows, left: Left::All }])
        }
    };
    let listed = Arc::clone(listed);
    let file = OpenFile { number, listed, _spilled: spilled, id: info.id, reads, slots, kind };
    Ok(place(&Arc::new(file), groups))
}

/// Names what the file decodes to in this table.
pub(super) fn spill_key(source: &Source, info: &FileInfo) -> SpillKey {
    let mut hasher = DefaultHasher::new();
    for field in whole(source, info).fields() {
        hash_type(field, &mut hasher);
    }
    SpillKey { file: info.id, kind: hasher.finish() }
}

/// All columns of a file, in its order, as the table has them.
pub(super) fn whole(source: &Source, info: &FileInfo) -> Schema {
    let table = &source.table.file_schema;
    let fields = info.schema.fields().iter();
    Schema::new(fields.map(|field| table.field_with_name(field.name()).unwrap_or(field).clone()).collect::<Vec<_>>())
}

fn hash_type(field: &Field, hasher: &mut DefaultHasher) {
    field.data_type().hash(hasher);
    field.metadata().iter().collect::<BTreeMap<_, _>>().hash(hasher);
}

/// A group of a file as statistics leave it.
pub(super) struct GroupRows {
    /// How many rows it has.
    pub(super) rows: u64,
    pub(super) left: Left,
}

/// Which rows of a group are left.
pub(super) enum Left {
    None,
    Some(Arc<[Range<u64>]>),
    All,
}

/// Numbers groups, their rows and segments.
fn place(file: &Arc<OpenFile>, groups: Vec<GroupRows>) -> Opened {
    let (mut row, mut segment) = (0, 0);
    let mut opened = Vec::with_capacity(groups.len());
    for (number, GroupRows { rows, left }) in groups.into_iter().enumerate() {
        if rows > 0 && !matches!(left, Left::None) {
            let left = if let Left::Some(ranges) = left { Some(ranges) } else { None };
            let first_row = i64::try_from(row).unwrap_or(i64::MAX);
            let group = Group { file: Arc::clone(file), number, first_row, rows, first_segment: segment, left };
            opened.push((group, 0..rows));
        }
        row += rows;
        segment += u32::try_from(rows.div_ceil(SEGMENT_ROWS as u64)).unwrap_or(u32::MAX);
    }
    opened
}

/// The columns that have one value for all rows of the file, by name: those of partitions, and the file's number.
fn constants(plan: &Plan, number: usize, listed: &ListedFile) -> Result<HashMap<String, ScalarValue>> {
    let source = &plan.source;
    let mut constants = HashMap::new();
    for ((_, value), field) in listed.partitions.iter().zip(&source.table.partition_fields) {
        let value = if value == NULL_PARTITION {
            ScalarValue::try_from(field.data_type())
        } else {
            ScalarValue::try_from_string(value.clone(), field.data_type())
        };
        constants.insert(field.name().clone(), value?);
    }
    if let Some(positions) = &source.positions {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        constants.insert(positions.file.clone(), ScalarValue::UInt32(Some(number)));
    }
    Ok(constants)
}

fn columns(
    plan: &Plan,
    info: &FileInfo,
    constants: &HashMap<String, ScalarValue>,
) -> Result<(Vec<ReadColumn>, Vec<Slot>)> {
    let row = plan.source.positions.as_ref().map(|positions| positions.row.as_str());
    let (mut reads, mut slots) = (Vec::new(), Vec::new());
    for field in plan.schema.fields() {
        slots.push(if Some(field.name().as_str()) == row {
            Slot::Row
        } else if let Some(value) = constants.get(field.name()) {
            Slot::Constant(value.to_array_of_size(BLOCK_ROWS)?)
        } else if let Ok(column) = info.schema.index_of(field.name()) {
            let mut hasher = DefaultHasher::new();
            hash_type(field, &mut hasher);
            let column = u32::try_from(column).unwrap_or(u32::MAX);
            reads.push(ReadColumn { column, kind: hasher.finish(), field: Arc::clone(field) });
            Slot::Read(reads.len() - 1)
        } else {
            Slot::Constant(new_null_array(field.data_type(), BLOCK_ROWS))
        });
    }
    Ok((reads, slots))
}
