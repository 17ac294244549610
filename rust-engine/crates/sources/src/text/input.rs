//! The window of decompressed, valid UTF-8 text that rows are read from.

use bytes::Bytes;

use super::MAX_RECORD_BYTES;
use super::compress::{Compression, Fill, Inflate};
use super::error::TextError;

/// What is told of a row beyond [`MAX_RECORD_BYTES`].
pub(super) const TOO_LONG: &str = "a row is longer than 64 MiB; split it into several rows";

/// Text that has come and is not yet consumed.
#[derive(Debug)]
pub(super) struct Input {
    inflate: Inflate,
    /// Bytes not yet known to be UTF-8: at most one cut character between steps.
    raw: Vec<u8>,
    text: String,
    start: usize,
    /// Offset in the file of the first byte of `text`.
    base: u64,
    at_beginning: bool,
    ended: bool,
    invalid_utf8: bool,
    /// The length that unread text must reach before another try at an incomplete row, so that the tries at a long
    /// row take time in proportion to its length.
    retry_at: usize,
}

/// Whether there is more to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum More {
    /// Unread text has grown enough to try again, or the input has ended.
    Ready,
    /// Nothing to do until the caller pushes more.
    Starved,
}

impl Input {
    pub(super) fn new(compression: Compression) -> Result<Self, TextError> {
        let inflate = Inflate::new(compression).map_err(|message| TextError {
            row: None,
            line: None,
            column: None,
            byte_offset: 0,
            message,
        })?;
        Ok(Self {
            inflate,
            raw: Vec::new(),
            text: String::new(),
            start: 0,
            base: 0,
            at_beginning: true,
            ended: false,
            invalid_utf8: false,
            retry_at: 1,
        })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.inflate.push(chunk);
    }

    pub(super) fn finish(&mut self) {
        self.inflate.finish();
    }

    /// The text not yet consumed.
    pub(super) fn unread(&self) -> &str {
        &self.text[self.start..]
    }

    /// Nothing more follows the unread text.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Text that is not UTF-8 follows the unread text.
    pub(super) fn spoiled(&self) -> bool {
        self.invalid_utf8
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Offset in the file of the first unread byte.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The unread text stays incomplete: asks that it at least double before the next try.
    pub(super) fn want_more(&mut self) {
        let length = self.text.len() - self.start;
        self.retry_at =
            if length > MAX_RECORD_BYTES { usize::MAX } else { (length * 2).clamp(1, MAX_RECORD_BYTES + 1) };
    }

    /// Asks for so many unread bytes, unless the file ends before.
    pub(super) fn want_at_least(&mut self, bytes: usize) {
        self.retry_at = bytes;
    }

    /// Reads on until another try makes sense.
    pub(super) fn read_more(&mut self) -> Result<More, TextError> {
        self.base += self.start as u64;
        self.text.drain(..self.start);
        self.start = 0;
        loop {
            if self.ended || self.text.len() >= self.retry_at {
                return Ok(More::Ready);
            }
            if self.text.len() > MAX_RECORD_BYTES {
                return Err(self.error(0, TOO_LONG));
            }
            if self.invalid_utf8 {
                return Err(self.invalid());
            }
            match self.inflate.fill(&mut self.raw) {
                Ok(Fill::Progress) => self.accept()?,
                Ok(Fill::Starved) => return Ok(More::Starved),
                Ok(Fill::End) => self.close()?,
                Err(message) => return Err(self.error(self.text.len(), message)),
            }
        }
    }

    fn close(&mut self) -> Result<(), TextError> {
        self.accept()?;
        if !self.raw.is_empty() {
            self.invalid_utf8 = true;
            return Err(self.invalid());
        }
        self.ended = true;
        Ok(())
    }

    /// Moves what is valid from `raw` to `text`.
    fn accept(&mut self) -> Result<(), TextError> {
        if self.at_beginning {
            match self.raw.as_slice() {
                [0xEF, 0xBB, 0xBF, ..] => {
                    self.raw.drain(..3);
                    self.base = 3;
                }
                // A mark that may still be cut in two: wait for the rest.
                [0xEF] | [0xEF, 0xBB] | [] => return Ok(()),
                _ => {}
            }
            self.at_beginning = false;
        }
        let valid = match std::str::from_utf8(&self.raw) {
            Ok(text) => {
                self.text.push_str(text);
                self.raw.clear();
                return Ok(());
            }
            Err(error) => {
                self.invalid_utf8 = error.error_len().is_some();
                error.valid_up_to()
            }
        };
        // The rows before the fault are read first: the fault must be told with its row.
        self.text.push_str(std::str::from_utf8(&self.raw[..valid]).unwrap_or_default());
        self.raw.drain(..valid);
        if self.invalid_utf8 {
            self.retry_at = 1;
        }
        Ok(())
    }

    fn invalid(&self) -> TextError {
        let utf16 = self.base == 0 && matches!(self.raw.as_slice(), [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]);
        let message = if utf16 {
            "the text is UTF-16; save it as UTF-8"
        } else {
            "the text is not valid UTF-8; save the file as UTF-8"
        };
        self.error(self.text.len() - self.start, message)
    }

    /// An error at a place in the unread text.
    pub(super) fn error(&self, position: usize, message: impl Into<String>) -> TextError {
        TextError {
            row: None,
            line: None,
            column: None,
            byte_offset: self.offset() + position as u64,
            message: message.into(),
        }
    }
}
