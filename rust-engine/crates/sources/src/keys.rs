//! Where rows lie by their keys: an index for each snapshot that is asked for by key, made by one scan of the key's columns.
//!
//! An index holds the hash of each row's key and the row's number, not the key: whoever looks a row up compares the key
//! that it has. Its memory is lent by the hot columns and bounded with them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use futures::TryStreamExt;
use hashbrown::HashTable;
use tokio::sync::OnceCell;

use crate::hot::Lent;
use crate::scan::{Caches, Points, RowScan};
use crate::store::PinnedStore;
use crate::table::Table;

/// How many indexes there are at most, those that were refused too.
const MOST: usize = 100;

/// Writes the values of columns of these types so that equal keys are equal bytes.
pub fn converter(types: impl IntoIterator<Item = DataType>) -> Result<RowConverter> {
    Ok(RowConverter::new(types.into_iter().map(SortField::new).collect())?)
}

/// A row as an index has it, in twelve bytes.
struct Entry {
    hash: [u32; 2],
    row: u32,
}

/// The rows of one snapshot by their key.
pub struct KeyIndex {
    entries: HashTable<Entry>,
    hasher: RandomState,
    /// The number of each file's first row, counted over all files.
    starts: Vec<u64>,
    duplicate: Option<String>,
    bytes: usize,
    _lent: Lent,
}

impl std::fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyIndex({} rows)", self.entries.len())
    }
}

/// A row's place: its file's number among the table's, and its own in the file.
pub type Place = (usize, u64);

impl KeyIndex {
    /// Indexes the columns at these places of the table's schema. Nothing where that takes too much memory.
    async fn build(
        table: &Arc<Table>,
        store: &Arc<PinnedStore>,
        caches: &Caches,
        columns: &[usize],
    ) -> Result<Option<Self>> {
        let Ok(rows) = u32::try_from(table.rows()) else { return Ok(None) };
        let rows = rows as usize;
        // Buckets are a power of two, seven of eight filled at most, with a byte each beside their entries.
        let bytes = (rows + rows / 7 + 1).next_power_of_two() * (size_of::<Entry>() + 1);
        let Some(lent) = caches.hot.lend(bytes) else { return Ok(None) };
        let mut starts = Vec::with_capacity(table.files.len());
        let mut start = 0;
        for (_, info) in &table.files {
            starts.push(start);
            start += info.rows;
        }
        let entries = HashTable::with_capacity(rows);
        let mut index = Self { entries, hasher: RandomState::new(), starts, duplicate: None, bytes, _lent: lent };
        let scan = RowScan::new(Arc::clone(table), Arc::clone(store), caches, None, columns, Vec::new(), 1)?;
        let converter = converter(scan.schema().fields().iter().map(|field| field.data_type().clone()))?;
        let mut batches = std::pin::pin!(scan.batches(None, None));
        let (mut first, mut alike) = (0, None);
        while let Some(batch) = batches.try_next().await? {
            let keys = converter.convert_columns(batch.columns())?;
            for (at, key) in keys.iter().enumerate() {
                // A row with a null in its key can't be asked for.
                if batch.columns().iter().any(|column| column.is_null(at)) {
                    continue;
                }
                let row = first + u32::try_from(at).unwrap_or_default();
                if let Some(other) = index.insert(key.as_ref(), row) {
                    alike.get_or_insert((other, row));
                }
            }
            first += u32::try_from(batch.num_rows()).unwrap_or_default();
        }
        if let Some((one, other)) = alike {
            let points = Points::new(Arc::clone(table), Arc::clone(store), caches, columns)?;
            let one = index.key_at(&points, one).await?;
            let other = index.key_at(&points, other).await?;
            if converter.convert_columns(&one)?.row(0) != converter.convert_columns(&other)?.row(0) {
                // Two keys of one hash: so rare that it is not worth more than to do without.
                return Ok(None);
            }
            index.duplicate = Some(spell(&one)?);
        }
        Ok(Some(index))
    }

    /// Adds a row; returns one that has the same hash. Two of a hash are enough to know that their key is none.
    fn insert(&mut self, key: &[u8], row: u32) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let halves = halves(hash);
        let mut same = self.entries.iter_hash(hash).filter(|entry| entry.hash == halves).map(|entry| entry.row);
        let (one, more) = (same.next(), same.next().is_some());
        if !more {
            self.entries.insert_unique(hash, Entry { hash: halves, row }, |entry| whole(entry.hash));
        }
        one
    }

    async fn key_at(&self, points: &Points, row: u32) -> Result<Vec<ArrayRef>> {
        let (file, row) = self.place(row);
        let (batch, at) = points.around(file, row).await?;
        Ok(batch.columns().iter().map(|column| column.slice(at, 1)).collect())
    }

    fn place(&self, row: u32) -> Place {
        let row = u64::from(row);
        let file = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        (file, row - self.starts.get(file).copied().unwrap_or_default())
    }

    /// Where rows may lie that have this key, as [`converter`] writes it: two at most, and none where no row has it.
    pub fn find(&self, key: &[u8]) -> impl Iterator<Item = Place> {
        let hash = self.hasher.hash_one(key);
        let halves = halves(hash);
        self.entries.iter_hash(hash).filter(move |entry| entry.hash == halves).map(|entry| self.place(entry.row))
    }

    /// A key that more than one row has, if there is one; the values of several columns are separated by `~`.
    pub fn duplicate(&self) -> Option<&str> {
        self.duplicate.as_deref()
    }
}

fn halves(hash: u64) -> [u32; 2] {
    // Nothing is lost: these are the two halves.
    [(hash >> 32) as u32, hash as u32]
}

fn whole([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn spell(key: &[ArrayRef]) -> Result<String> {
    let values = key.iter().map(|column| {
        let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
        Ok(formatter.value(0).to_string())
    });
    Ok(values.collect::<Result<Vec<_>>>()?.join("~"))
}

type Name = (String, Vec<usize>);
type Cell = Arc<OnceCell<Option<Arc<KeyIndex>>>>;

/// The indexes, by snapshot and columns. Those that were not asked for the longest go first.
#[derive(Debug)]
pub struct KeyIndexes {
    bytes: usize,
    cells: Mutex<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    cells: HashMap<Name, (Cell, u64)>,
    /// Counts what was asked.
    asked: u64,
}

impl Cells {
    fn get(&mut self, name: Name) -> Cell {
        self.asked += 1;
        let (cell, asked) = self.cells.entry(name).or_default();
        *asked = self.asked;
        Arc::clone(cell)
    }

    fn bytes(&self) -> usize {
        let bytes = |(cell, _): &(Cell, u64)| cell.get().and_then(Option::as_ref).map_or(0, |index| index.bytes);
        self.cells.values().map(bytes).sum()
    }

    fn bound(&mut self, bytes: usize) {
        while self.cells.len() > MOST || self.bytes() > bytes {
            let oldest = self.cells.iter().min_by_key(|(_, (_, asked))| *asked).map(|(name, _)| name.clone());
            match oldest {
                Some(name) => drop(self.cells.remove(&name)),
                None => return,
            }
        }
    }
}

impl KeyIndexes {
    /// Indexes of at most so many bytes together.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, cells: Mutex::default() }
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        // Nothing panics while it is held.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the columns at these places of the table's schema, made by the first who asks. Nothing where it would
    /// take too much memory.
    pub async fn get(
        &self,
        table: &Arc<Table>,
        store: &Arc<PinnedStore>,
        caches: &Caches,
        columns: &[usize],
    ) -> Result<Option<Arc<KeyIndex>>> {
        let cell = self.cells().get((table.snapshot.clone(), columns.to_vec()));
        if let Some(known) = cell.get() {
            return Ok(known.clone());
        }
        let build = || async { Ok(KeyIndex::build(table, store, caches, columns).await?.map(Arc::new)) };
        let index = cell.get_or_try_init(build).await.cloned();
        self.cells().bound(self.bytes);
        index
    }

    /// The index of these columns, if it was made.
    pub fn known(&self, table: &Table, columns: &[usize]) -> Option<Arc<KeyIndex>> {
        self.cells().get((table.snapshot.clone(), columns.to_vec())).get().cloned().flatten()
    }

    /// How many indexes there are, and what they take, in bytes.
    pub fn counts(&self) -> (usize, usize) {
        let cells = self.cells();
        let made = cells.cells.values().filter(|(cell, _)| matches!(cell.get(), Some(Some(_)))).count();
        (made, cells.bytes())
    }

    /// Gives all memory back that no lookup uses at the moment.
    pub fn clear(&self) {
        self.cells().cells.clear();
    }
}
