//! A pull scanner over JSON text (RFC 8259): tokens that borrow from the text, no tree.
//!
//! Written here rather than taken from serde_json because a column needs the source text of a number (all its digits)
//! and one must be able to stop in the middle of a row and try again when more text has come. Escapes, the one
//! intricate part, are left to serde_json.

use std::borrow::Cow;

use super::MAX_DEPTH;
use super::error::{Stop, excerpt};

pub(super) type Scan<T> = Result<T, Stop>;

/// The start of a value; for objects and arrays only the bracket has been read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    String(Quoted<'a>),
    Object,
    Array,
}

/// The source text of a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// It has neither a fraction nor an exponent.
    pub(super) integer: bool,
}

/// A string as it stands in the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a> {
    /// With its quotes.
    source: &'a str,
    escaped: bool,
    position: usize,
}

impl<'a> Quoted<'a> {
    /// The string that the source stands for.
    pub(super) fn text(&self) -> Scan<Cow<'a, str>> {
        if !self.escaped {
            return Ok(Cow::Borrowed(&self.source[1..self.source.len() - 1]));
        }
        serde_json::from_str::<String>(self.source)
            .map(Cow::Owned)
            .map_err(|_| Stop::bad(self.position, format!("the string {} has a bad escape", excerpt(self.source))))
    }
}

/// Reads one piece of text from its beginning.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
    last: bool,
    /// Check escapes even of strings that nobody looks at.
    strict: bool,
    depth: usize,
}

impl<'a> Scanner<'a> {
    /// `last`: the text is the end of the file.
    pub(super) fn new(text: &'a str, last: bool, strict: bool) -> Self {
        Self { text, position: 0, last, strict, depth: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next byte that is not white space, not consumed.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.position += 1;
        }
        None
    }

    /// No text follows the text at hand.
    pub(super) fn at_last(&self) -> bool {
        self.last
    }

    /// Consumes the byte that `peek` has shown.
    pub(super) fn bump(&mut self) {
        self.position += 1;
    }

    fn need(&mut self) -> Scan<u8> {
        self.peek().ok_or(Stop::Incomplete)
    }

    /// An error at the present position that shows the text found there.
    pub(super) fn unexpected(&self, wanted: &str) -> Stop {
        let rest = &self.text[self.position..];
        let found: String = rest.chars().take(20).collect();
        Stop::bad(self.position, format!("expected {wanted}, found `{}`", found.escape_debug()))
    }

    /// The next value's start.
    pub(super) fn value(&mut self) -> Scan<Token<'a>> {
        match self.need()? {
            b'"' => Ok(Token::String(self.string()?)),
            b'-' | b'0'..=b'9' => Ok(Token::Number(self.number()?)),
            b'{' => self.open().map(|()| Token::Object),
            b'[' => self.open().map(|()| Token::Array),
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            _ => Err(self.unexpected("a JSON value")),
        }
    }

    fn open(&mut self) -> Scan<()> {
        if self.depth == MAX_DEPTH {
            return Err(Stop::bad(self.position, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        self.position += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.position += 1;
    }

    fn word(&mut self, word: &'static str, token: Token<'a>) -> Scan<Token<'a>> {
        let rest = &self.text.as_bytes()[self.position..];
        if rest.starts_with(word.as_bytes()) {
            self.position += word.len();
            return Ok(token);
        }
        if !self.last && word.as_bytes().starts_with(rest) {
            return Err(Stop::Incomplete);
        }
        Err(self.unexpected("a JSON value"))
    }

    /// The next key of an object, with its colon; none at the object's end.
    pub(super) fn key(&mut self, first: &mut bool) -> Scan<Option<Quoted<'a>>> {
        match self.need()? {
            b'}' if *first => {
                self.close();
                return Ok(None);
            }
            b'"' if *first => {}
            _ if *first => return Err(self.unexpected("a key in double quotes or `}`")),
            b'}' => {
                self.close();
                return Ok(None);
            }
            b',' => {
                self.bump();
                if self.need()? != b'"' {
                    return Err(self.unexpected("a key in double quotes"));
                }
            }
            _ => return Err(self.unexpected("`,` or `}`")),
        }
        *first = false;
        let key = self.string()?;
        if self.need()? != b':' {
            return Err(self.unexpected("`:` after the key"));
        }
        self.bump();
        Ok(Some(key))
    }

    /// Whether the array has a next element.
    pub(super) fn element(&mut self, first: &mut bool) -> Scan<bool> {
        match (self.need()?, *first) {
            (b']', _) => {
                self.close();
                Ok(false)
            }
            (_, true) => {
                *first = false;
                Ok(true)
            }
            (b',', false) => {
                self.bump();
                Ok(true)
            }
            _ => Err(self.unexpected("`,` or `]`")),
        }
    }

    /// Like [`Self::element`] for the array that holds the rows, whose bracket may lie in text long consumed.
    pub(super) fn element_of_rows(&mut self, first: &mut bool) -> Scan<bool> {
        self.depth += 1;
        let more = self.element(first);
        if !matches!(more, Ok(false)) {
            self.depth -= 1;
        }
        more
    }

    fn string(&mut self) -> Scan<Quoted<'a>> {
        let bytes = self.text.as_bytes();
        let begin = self.position;
        let mut at = begin + 1;
        let mut escaped = false;
        loop {
            at = next_special(bytes, at);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => {
                    self.position = at;
                    return Err(Stop::bad(at, "a control character in a string; write it as an escape such as \\n"));
                }
                None => return Err(Stop::Incomplete),
            }
        }
        self.position = at + 1;
        let quoted = Quoted { source: &self.text[begin..=at], escaped, position: begin };
        if self.strict && escaped {
            quoted.text()?;
        }
        Ok(quoted)
    }

    fn digits(&self, mut at: usize) -> usize {
        let bytes = self.text.as_bytes();
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    }

    fn number(&mut self) -> Scan<Number<'a>> {
        let bytes = self.text.as_bytes();
        let begin = self.position;
        let whole = begin + usize::from(bytes[begin] == b'-');
        let mut at = self.digits(whole);
        let mut well_formed = at > whole && (bytes[whole] != b'0' || at == whole + 1);
        let mut integer = true;
        if bytes.get(at) == Some(&b'.') {
            integer = false;
            let fraction = at + 1;
            at = self.digits(fraction);
            well_formed &= at > fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            integer = false;
            let exponent = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            at = self.digits(exponent);
            well_formed &= at > exponent;
        }
        match bytes.get(at) {
            None if !self.last => return Err(Stop::Incomplete),
            None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t') if well_formed => {}
            _ => return Err(self.unexpected("a JSON number (no leading zeros or plus sign)")),
        }
        self.position = at;
        Ok(Number { text: &self.text[begin..at], integer })
    }

    /// Passes over the rest of the value that `token` has begun.
    pub(super) fn skip(&mut self, token: Token<'a>) -> Scan<()> {
        match token {
            Token::Object => {
                let mut first = true;
                while self.key(&mut first)?.is_some() {
                    let inner = self.value()?;
                    self.skip(inner)?;
                }
            }
            Token::Array => {
                let mut first = true;
                while self.element(&mut first)? {
                    let inner = self.value()?;
                    self.skip(inner)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The source text of the whole value that `token` has begun.
    pub(super) fn source(&mut self, token: Token<'a>) -> Scan<&'a str> {
        let text = self.text;
        match token {
            Token::Null => Ok("null"),
            Token::Bool(true) => Ok("true"),
            Token::Bool(false) => Ok("false"),
            Token::Number(number) => Ok(number.text),
            Token::String(quoted) => Ok(quoted.source),
            Token::Object | Token::Array => {
                let begin = self.position - 1;
                self.skip(token)?;
                Ok(&text[begin..self.position])
            }
        }
    }
}

/// Position of the next quote, backslash or control character from `at` on; the text's length if there is none.
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        // A byte's high bit is set where that byte is zero (quote, backslash) or below 0x20; bytes from 0x80 on are
        // masked out. A borrow can only mark bytes above a true hit, and the lowest hit is the one used.
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5C);
        let hit = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hit = hit & HIGHS;
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Appends JSON text without the white space outside its strings.
pub(super) fn minify_into(source: &str, out: &mut Vec<u8>) {
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            b'"' => {
                let begin = at;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                out.extend_from_slice(&bytes[begin..at]);
            }
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
}
