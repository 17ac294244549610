//! Where JSON rows begin and end: the elements of one array, or values one after another.

use bytes::Bytes;

use super::MAX_RECORD_BYTES;
use super::compress::Compression;
use super::error::{Stop, TextError};
use super::input::{Input, More, TOO_LONG};
use super::scan::{Scan, Scanner, Token};

/// Takes the rows of a file.
pub(super) trait Rows {
    /// Reads the rest of the row that `token` has begun.
    fn row<'a>(&mut self, scanner: &mut Scanner<'a>, token: Token<'a>) -> Scan<()>;
    /// The row just begun was cut off and will come again: forget what was taken of it.
    fn undo(&mut self);
    /// The row is complete and took so many bytes. Returns whether to go on at once.
    fn done(&mut self, bytes: usize) -> bool;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Begin,
    /// Within the one array of the file; whether its first element is still to come.
    Array {
        first: bool,
    },
    /// Values one after another.
    Sequence,
    /// The array has been closed.
    Closed,
}

/// What a single step found.
enum Step {
    Row,
    Frame(Frame),
    End,
}

/// Why [`JsonReader::advance`] came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// The caller must push more.
    Starved,
    /// The rows' taker asked for a pause.
    Paused,
    /// The file has been read.
    End,
}

/// Reads rows from chunks of a JSON file.
#[derive(Debug)]
pub(super) struct JsonReader {
    input: Input,
    frame: Frame,
    rows: u64,
    strict: bool,
    ended: bool,
}

impl JsonReader {
    /// `strict` checks also what nobody looks at: inference does, so that decoding need not.
    pub(super) fn new(compression: Compression, strict: bool) -> Result<Self, TextError> {
        Ok(Self { input: Input::new(compression)?, frame: Frame::Begin, rows: 0, strict, ended: false })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    pub(super) fn finish(&mut self) {
        self.input.finish();
    }

    /// Rows read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Hands rows to `taker` until it asks for a pause or the text at hand is used up.
    pub(super) fn advance(&mut self, taker: &mut impl Rows) -> Result<Advance, TextError> {
        if self.ended {
            return Ok(Advance::End);
        }
        loop {
            match self.read_rows(taker)? {
                Some(advance) => return Ok(advance),
                None if self.input.ended() => return Err(self.truncated()),
                None => self.input.want_more(),
            }
            let more = self.input.read_more().map_err(|error| self.in_row(error))?;
            if more == More::Starved {
                return Ok(Advance::Starved);
            }
        }
    }

    /// Reads the rows of the text at hand; `None` when it ends within one.
    fn read_rows(&mut self, taker: &mut impl Rows) -> Result<Option<Advance>, TextError> {
        let text = self.input.unread();
        let mut consumed = 0;
        let mut scanner = Scanner::new(text, self.input.ended(), self.strict);
        let outcome = loop {
            match step(self.frame, &mut scanner, taker) {
                Ok(Step::Row) => {
                    let bytes = scanner.position() - consumed;
                    if bytes > MAX_RECORD_BYTES {
                        break Err(self.input.error(consumed, TOO_LONG));
                    }
                    consumed = scanner.position();
                    self.rows += 1;
                    if let Frame::Array { first } = &mut self.frame {
                        *first = false;
                    }
                    if !taker.done(bytes) {
                        break Ok(Some(Advance::Paused));
                    }
                }
                Ok(Step::Frame(frame)) => {
                    consumed = scanner.position();
                    self.frame = frame;
                }
                Ok(Step::End) => {
                    self.ended = true;
                    break Ok(Some(Advance::End));
                }
                Err(Stop::Incomplete) => {
                    taker.undo();
                    break Ok(None);
                }
                Err(Stop::Bad(fault)) => {
                    let mut error = self.input.error(fault.position, fault.message);
                    error.column = fault.column;
                    break Err(error);
                }
            }
        };
        self.input.consume(consumed);
        outcome.map_err(|error| self.in_row(error))
    }

    fn in_row(&self, mut error: TextError) -> TextError {
        if self.frame != Frame::Closed {
            error.row = Some(self.rows + 1);
        }
        error
    }

    fn truncated(&self) -> TextError {
        let message = match self.frame {
            Frame::Array { .. } => "the file ends before its array is closed: it is truncated or still being written",
            _ => "the file ends within a row: it is truncated or still being written",
        };
        self.in_row(self.input.error(self.input.unread().len(), message))
    }
}

/// Reads the next row or passes a bracket.
fn step(frame: Frame, scanner: &mut Scanner<'_>, taker: &mut impl Rows) -> Scan<Step> {
    match frame {
        Frame::Begin => match scanner.peek() {
            None if scanner.at_last() => Ok(Step::End),
            None => Err(Stop::Incomplete),
            Some(b'[') => {
                scanner.bump();
                Ok(Step::Frame(Frame::Array { first: true }))
            }
            Some(_) => Ok(Step::Frame(Frame::Sequence)),
        },
        Frame::Sequence => match scanner.peek() {
            None if scanner.at_last() => Ok(Step::End),
            None => Err(Stop::Incomplete),
            Some(b',') => Err(scanner.unexpected("a row without a comma before it, or `[` before the first row")),
            Some(_) => read_row(scanner, taker),
        },
        Frame::Array { mut first } => {
            if scanner.element_of_rows(&mut first)? {
                read_row(scanner, taker)
            } else {
                Ok(Step::Frame(Frame::Closed))
            }
        }
        Frame::Closed => match scanner.peek() {
            None if scanner.at_last() => Ok(Step::End),
            None => Err(Stop::Incomplete),
            Some(_) => Err(scanner.unexpected("nothing after the array that holds the rows")),
        },
    }
}

fn read_row(scanner: &mut Scanner<'_>, taker: &mut impl Rows) -> Scan<Step> {
    let token = scanner.value()?;
    taker.row(scanner, token)?;
    Ok(Step::Row)
}
