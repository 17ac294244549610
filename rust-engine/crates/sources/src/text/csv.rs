//! CSV layout: which delimiter, which header, which names.

use std::collections::{HashMap, HashSet};

use super::csv_cell::{Cell, split_record};
use super::error::Stop;
use super::kinds::Kinds;
use super::scalar::cell_kind;

/// Text looked at to find the delimiter.
pub(super) const SNIFF_BYTES: usize = 64 << 10;
/// Lines looked at to find the delimiter.
const SNIFF_LINES: usize = 50;
/// The delimiters looked for, in the order that breaks ties.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// The delimiter that splits the most of the first lines into as many cells as the first one has, at least two; the
/// more cells the better; a comma if none does.
pub(super) fn sniff_delimiter(text: &str, last: bool) -> u8 {
    let mut best = (b',', (0, 0));
    for delimiter in DELIMITERS {
        let score = consistency(text, last, delimiter);
        if score.1 > 1 && score > best.1 {
            best = (delimiter, score);
        }
    }
    best.0
}

/// Lines with as many cells as the first, and that number of cells.
fn consistency(text: &str, last: bool, delimiter: u8) -> (usize, usize) {
    let mut cells = Vec::new();
    let mut rest = text;
    let mut first = 0;
    let mut alike = 0;
    for _ in 0..SNIFF_LINES {
        let Ok(Some(end)) = split_record(rest, last, delimiter, &mut cells) else {
            break;
        };
        if first == 0 {
            first = cells.len();
        }
        alike += usize::from(cells.len() == first);
        rest = &rest[end..];
    }
    (alike, first)
}

/// Whether the first line looks like a header: some text, and no number, date, timestamp or boolean.
pub(super) fn looks_like_header(text: &str, cells: &[Cell]) -> Result<bool, Stop> {
    let mut any_text = false;
    for cell in cells {
        let value = cell.text(text);
        if value.is_empty() {
            continue;
        }
        if cell_kind(&value) != Kinds::TEXT {
            return Ok(false);
        }
        any_text = true;
    }
    Ok(any_text)
}

/// The column names of a header line.
pub(super) fn header_names(text: &str, cells: &[Cell]) -> Vec<String> {
    unique(cells.iter().map(|cell| cell.text(text).into_owned()).collect())
}

/// The column names of a file without header.
pub(super) fn numbered_names(columns: usize) -> Vec<String> {
    (1..=columns).map(|number| format!("column{number}")).collect()
}

/// Fills in empty names and tells equal ones apart. A name made up here never takes one that the header has.
fn unique(mut names: Vec<String>) -> Vec<String> {
    for (at, name) in names.iter_mut().enumerate() {
        if name.is_empty() {
            *name = format!("column{}", at + 1);
        }
    }
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for name in &mut names {
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            continue;
        }
        let mut candidate = format!("{name}_{count}");
        while taken.contains(&candidate) {
            *count += 1;
            candidate = format!("{name}_{count}");
        }
        taken.insert(candidate.clone());
        *name = candidate;
    }
    names
}
