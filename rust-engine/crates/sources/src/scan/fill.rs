//! Leaves what a cold run decodes to the cache of hot columns, block by block.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MutableArrayData, make_array};
use arrow::buffer::Buffer;
use arrow::compute::concat;
use arrow::datatypes::DataType;

use super::work::{Group, block_in_segment};
use crate::hot::{BLOCK_ROWS, Chunk, ChunkKey, HotColumns, SEGMENT_BLOCKS};

/// Gathers the rows of a run's columns into blocks. Holds one block's rows at most.
pub(super) struct Filler {
    hot: Arc<HotColumns>,
    group: Group,
    /// The columns, as places in what is read of the file.
    reads: Vec<usize>,
    /// The segment that is being filled, and its columns.
    segment: Option<u64>,
    chunks: Vec<Entry>,
    /// What there is of a block so far, by column, and its rows.
    pending: Vec<Vec<ArrayRef>>,
    rows: u64,
    /// The row that has to come next for the block to go on.
    next: u64,
    enabled: bool,
    /// Whether something was refused.
    refused: bool,
}

/// A column of a segment.
#[derive(Clone)]
enum Entry {
    Unasked,
    Refused,
    In(ChunkKey, Arc<Chunk>),
}

impl Filler {
    pub(super) fn new(hot: &Arc<HotColumns>, group: &Group, reads: &[usize]) -> Self {
        Self {
            hot: Arc::clone(hot),
            reads: reads.to_vec(),
            segment: None,
            chunks: vec![Entry::Unasked; reads.len()],
            pending: vec![Vec::new(); reads.len()],
            rows: 0,
            next: 0,
            // What has not settled will never be asked for under the same name.
            enabled: hot.enabled() && group.file.listed.settled,
            group: group.clone(),
            refused: false,
        }
    }

    /// Whether anything comes of it at the moment.
    pub(super) fn is_useful(&self) -> bool {
        self.enabled && !self.chunks.iter().all(|entry| matches!(entry, Entry::Refused))
    }

    /// Whether all that came was let in.
    pub(super) fn kept_all(&self) -> bool {
        self.enabled && !self.refused
    }

    /// Takes rows of one block, from `row` on, counted within the group. `whole` says that they are all that the arrays
    /// hold memory for.
    pub(super) fn feed(&mut self, row: u64, arrays: &[ArrayRef], rows: u64, whole: bool) {
        if !self.enabled {
            return;
        }
        let at_start = row.is_multiple_of(BLOCK_ROWS as u64);
        if at_start || row != self.next {
            self.pending.iter_mut().for_each(Vec::clear);
            self.rows = 0;
        }
        self.next = row + rows;
        if !at_start && self.rows == 0 {
            return;
        }
        let block = row / BLOCK_ROWS as u64;
        self.rows += rows;
        if self.rows < self.group.block_rows(block) {
            self.pending.iter_mut().zip(arrays).for_each(|(pending, array)| pending.push(Arc::clone(array)));
            return;
        }
        for (at, last) in arrays.iter().enumerate() {
            let values = if self.pending[at].is_empty() {
                if whole { slim(last) } else { own(last) }
            } else {
                self.pending[at].push(Arc::clone(last));
                let pieces: Vec<&dyn Array> = self.pending[at].iter().map(|piece| piece.as_ref()).collect();
                match concat(&pieces) {
                    Ok(values) => slim(&values),
                    Err(error) => {
                        tracing::debug!(%error, "a block can't be put together");
                        continue;
                    }
                }
            };
            self.fill(block, at, &values);
        }
        self.pending.iter_mut().for_each(Vec::clear);
        self.rows = 0;
    }

    fn fill(&mut self, block: u64, at: usize, values: &ArrayRef) {
        let segment = block / SEGMENT_BLOCKS as u64;
        if self.segment != Some(segment) {
            self.segment = Some(segment);
            self.chunks.fill(Entry::Unasked);
        }
        if matches!(self.chunks[at], Entry::Unasked) {
            self.chunks[at] = self.enter(segment, values, at);
        }
        if let Entry::In(key, chunk) = &self.chunks[at]
            && !self.hot.fill(*key, chunk, block_in_segment(block), values)
        {
            self.chunks[at] = Entry::Refused;
        }
        self.refused |= matches!(self.chunks[at], Entry::Refused);
    }

    /// Asks whether a column of a segment may come in.
    fn enter(&self, segment: u64, values: &ArrayRef, at: usize) -> Entry {
        let Some(key) = self.group.keys(segment).nth(self.reads[at]) else { return Entry::Refused };
        let blocks = self.group.segment_blocks(segment);
        match self.hot.begin(key, blocks, weigh(values) * blocks, self.group.file.cost()) {
            Some(chunk) => Entry::In(key, chunk),
            None => Entry::Refused,
        }
    }
}

/// About what an array's values take.
fn weigh(values: &ArrayRef) -> usize {
    const VIEW: usize = 16;
    let views = |used: usize| used + values.len() * VIEW;
    match values.data_type() {
        DataType::Utf8View => views(values.as_string_view().total_buffer_bytes_used()),
        DataType::BinaryView => views(values.as_binary_view().total_buffer_bytes_used()),
        _ => values.get_array_memory_size(),
    }
}

/// The same without buffers that no view leads to: text of at most 12 bytes lies in its view, but a file's reader attaches what
/// it has decoded. Besides the memory, whatever reads a column without buffers need not look for long values.
fn slim(array: &ArrayRef) -> ArrayRef {
    let unused = |buffers: &[Buffer], used: usize| !buffers.is_empty() && used == 0;
    if let Some(text) = array.as_string_view_opt()
        && unused(text.data_buffers(), text.total_buffer_bytes_used())
    {
        return Arc::new(text.gc());
    }
    if let Some(bytes) = array.as_binary_view_opt()
        && unused(bytes.data_buffers(), bytes.total_buffer_bytes_used())
    {
        return Arc::new(bytes.gc());
    }
    Arc::clone(array)
}

/// A copy that holds no more memory than its values need.
fn own(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => {
            let data = array.to_data();
            let mut copy = MutableArrayData::new(vec![&data], false, array.len());
            match copy.try_extend(0, 0, array.len()) {
                Ok(()) => make_array(copy.freeze()),
                Err(_) => Arc::clone(array),
            }
        }
    }
}
