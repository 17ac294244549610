//! What went wrong in a text file, and where.

use std::fmt;

/// An error in a text file. It names the place; the caller adds the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// The data row, counted from 1, where it is known.
    pub row: Option<u64>,
    /// The physical line, counted from 1, where it is known (CSV).
    pub line: Option<u64>,
    /// The column; keys of nested objects are joined by dots, a list's elements are `[]`.
    pub column: Option<String>,
    /// Offset in bytes from the start of the decompressed text.
    pub byte_offset: u64,
    /// What is wrong and what would work.
    pub message: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(f, "row {row}, ")?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        if let Some(column) = &self.column {
            write!(f, "column `{column}`, ")?;
        }
        write!(f, "byte {}: {}", self.byte_offset, self.message)
    }
}

impl std::error::Error for TextError {}

/// Why reading a row stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The text ends within the row; more may come.
    Incomplete,
    /// The row is wrong. Boxed, since it is rare and every step returns it.
    Bad(Box<Fault>),
}

/// A fault at a place in the buffered text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) position: usize,
    pub(super) column: Option<String>,
    pub(super) message: String,
}

impl Stop {
    pub(super) fn bad(position: usize, message: impl Into<String>) -> Self {
        Self::Bad(Box::new(Fault { position, column: None, message: message.into() }))
    }

    /// Puts `name` before the path of the column that failed.
    pub(super) fn within(mut self, name: &str) -> Self {
        if let Self::Bad(fault) = &mut self {
            fault.column = Some(match fault.column.take() {
                Some(inner) if inner.starts_with("[]") => format!("{name}{inner}"),
                Some(inner) => format!("{name}.{inner}"),
                None => name.to_owned(),
            });
        }
        self
    }
}

/// At most `max` bytes of a value for an error message.
pub(super) fn excerpt(text: &str) -> String {
    const MAX: usize = 60;
    if text.len() <= MAX {
        return text.to_owned();
    }
    let cut = (0..=MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..cut])
}
