//! The byte buffer that encoders write to, and the text of scalars that JSON and CSV share.
//!
//! Nothing here allocates for a value: numbers are formatted on the stack, the buffer only grows.

use arrow::datatypes::i256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::short::{self, Short};

/// Why a value has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A date or timestamp outside the years 0000 to 9999.
    Year,
    /// A time of day outside `00:00:00` to `23:59:59.999999999`.
    TimeOfDay,
    /// A map entry whose key is null.
    NullKey,
}

impl Fault {
    /// The reason, as the end of a sentence.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Year => "a date outside the years 0000 to 9999, which RFC 3339 can't write",
            Self::TimeOfDay => "a time of day outside 00:00:00 to 23:59:59.999999999",
            Self::NullKey => "a map with a null key, which a JSON object can't have",
        }
    }
}

/// Collects encoded bytes. A value without text sets `fault` instead of failing there and then: that
/// keeps the loop over values free of error paths, and the caller looks once a piece.
#[derive(Default)]
pub(crate) struct Sink {
    /// What was written.
    pub(crate) buf: Vec<u8>,
    /// Where nested values are written before CSV quotes them.
    pub(crate) scratch: Vec<u8>,
    /// The first value that could not be written.
    pub(crate) fault: Option<Fault>,
}

impl Sink {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { buf: Vec::with_capacity(capacity), ..Self::default() }
    }

    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.buf.push(byte);
    }

    #[cold]
    pub(crate) fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Copies 16 bytes whatever the length is: that takes two instructions.
    #[inline]
    pub(crate) fn short(&mut self, short: Short) {
        let end = self.buf.len() + usize::from(short.len);
        self.raw(&short.text.to_le_bytes());
        self.buf.truncate(end);
    }

    #[inline]
    pub(crate) fn number(&mut self, value: i64) {
        let magnitude = value.unsigned_abs();
        if magnitude < short::INTS {
            self.short(short::int(magnitude).signed(value < 0));
        } else {
            self.int(value);
        }
    }

    #[inline]
    pub(crate) fn int<I: itoa::Integer>(&mut self, value: I) {
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The shortest digits that give the same value back; `1.0` for one, `1e30` where that is shorter.
    #[inline]
    pub(crate) fn float<F: zmij::Float>(&mut self, value: F) {
        self.raw(zmij::Buffer::new().format_finite(value).as_bytes());
    }

    #[inline]
    pub(crate) fn decimal(&mut self, value: i128, scale: i8) {
        if value < 0 {
            self.byte(b'-');
        }
        let magnitude = value.unsigned_abs();
        let mut digits = itoa::Buffer::new();
        match u64::try_from(magnitude) {
            Ok(small) => self.scaled(digits.format(small).as_bytes(), scale),
            Err(_) => self.scaled(digits.format(magnitude).as_bytes(), scale),
        }
    }

    pub(crate) fn decimal256(&mut self, value: i256, scale: i8) {
        if let Some(small) = value.to_i128() {
            return self.decimal(small, scale);
        }
        let negative = value.is_negative();
        if negative {
            self.byte(b'-');
        }
        // The magnitude of the least value does not fit i256, but its wrapped bits are right as unsigned.
        let magnitude = if negative { value.wrapping_neg() } else { value };
        let mut digits = [0_u8; 80];
        let start = wide_digits(magnitude, &mut digits);
        self.scaled(&digits[start..], scale);
    }

    /// `digits` with the decimal point `scale` places from the right, all places printed.
    #[inline]
    fn scaled(&mut self, digits: &[u8], scale: i8) {
        let places = usize::from(scale.unsigned_abs());
        if scale <= 0 {
            self.raw(digits);
            if digits != b"0" {
                self.zeros(places);
            }
        } else if digits.len() > places {
            let (whole, fraction) = digits.split_at(digits.len() - places);
            self.raw(whole);
            self.byte(b'.');
            self.raw(fraction);
        } else {
            self.raw(b"0.");
            self.zeros(places - digits.len());
            self.raw(digits);
        }
    }

    fn zeros(&mut self, count: usize) {
        self.buf.resize(self.buf.len() + count, b'0');
    }

    /// RFC 4648 base64, standard alphabet, padded.
    pub(crate) fn base64(&mut self, bytes: &[u8]) {
        let start = self.buf.len();
        self.buf.resize(start + bytes.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(bytes, &mut self.buf[start..]);
        self.buf.truncate(start + written.unwrap_or_default());
    }

    /// A JSON string. `clean` says that the caller knows there is nothing to escape.
    #[inline]
    pub(crate) fn json_string(&mut self, text: &[u8], clean: bool) {
        self.byte(b'"');
        if clean {
            self.raw(text);
        } else {
            self.escaped(text);
        }
        self.byte(b'"');
    }

    fn escaped(&mut self, text: &[u8]) {
        let mut copied = 0;
        let mut at = 0;
        while at < text.len() {
            if let Some(chunk) = text[at..].first_chunk::<8>()
                && !word_needs_escape(u64::from_le_bytes(*chunk))
            {
                at += 8;
                continue;
            }
            let end = text.len().min(at + 8);
            while at < end {
                let escape = ESCAPES[usize::from(text[at])];
                if escape != 0 {
                    self.raw(&text[copied..at]);
                    self.escape(text[at], escape);
                    copied = at + 1;
                }
                at += 1;
            }
        }
        self.raw(&text[copied..]);
    }

    #[inline]
    fn escape(&mut self, byte: u8, escape: u8) {
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            self.raw(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
        } else {
            self.raw(&[b'\\', escape]);
        }
    }

    /// A CSV field: quoted where it is empty, has a comma, a quote or a line break, or starts or ends
    /// with a space or tab, which some readers trim.
    pub(crate) fn csv_string(&mut self, text: &[u8]) {
        if !csv_needs_quotes(text) {
            return self.raw(text);
        }
        self.byte(b'"');
        let mut copied = 0;
        for quote in memchr::memchr_iter(b'"', text) {
            self.raw(&text[copied..=quote]);
            copied = quote;
        }
        self.raw(&text[copied..]);
        self.byte(b'"');
    }
}

/// The digits of an unsigned 256-bit number, right-aligned in `out`; returns where they start.
fn wide_digits(value: i256, out: &mut [u8; 80]) -> usize {
    const STEP: u128 = 10_u128.pow(19);
    let bytes = value.to_be_bytes();
    let mut limbs = [0_u64; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = chunk.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    }
    let mut end = out.len();
    loop {
        let mut remainder = 0_u128;
        for limb in &mut limbs {
            let wide = (remainder << 64) | u128::from(*limb);
            *limb = (wide / STEP) as u64;
            remainder = wide % STEP;
        }
        let mut digits = itoa::Buffer::new();
        let text = digits.format(remainder as u64).as_bytes();
        let start = end - text.len();
        out[start..end].copy_from_slice(text);
        if limbs == [0; 4] {
            return start;
        }
        // Lower groups are always 19 digits wide: fill up with zeros.
        out[end - 19..start].fill(b'0');
        end -= 19;
    }
}

/// For each byte: 0 to copy it, `u` for `\u00xx`, otherwise the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Whether one of eight bytes is a control character, a quote or a backslash, found without a loop.
#[inline]
fn word_needs_escape(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let quote = below(word ^ (ONES * 0x22), 1);
    let backslash = below(word ^ (ONES * 0x5c), 1);
    (below(word, 0x20) | quote | backslash) & HIGHS != 0
}

/// Whether JSON can take all of these bytes as they are.
pub(crate) fn json_clean(bytes: &[u8]) -> bool {
    none(bytes, |byte| (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

/// Whether nothing in these bytes asks for quotes in CSV.
pub(crate) fn csv_clean(bytes: &[u8]) -> bool {
    none(bytes, |byte| (byte == b',') | (byte == b'"') | (byte == b'\r') | (byte == b'\n'))
}

/// Whether no byte is one of those. The fold without early exit is what lets the compiler use vector
/// instructions, so whole columns are looked at in one go.
#[inline]
fn none(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let none = |block: &[u8]| block.iter().fold(0, |any, byte| any | u8::from(is(*byte))) == 0;
    blocks.iter().all(|block| none(block)) && none(rest)
}

fn csv_needs_quotes(text: &[u8]) -> bool {
    csv_trimmed(text) || !csv_clean(text)
}

/// Whether readers may see less than is there: nothing at all, or no space or tab at an end.
pub(crate) fn csv_trimmed(text: &[u8]) -> bool {
    let padding = |byte: &u8| matches!(byte, b' ' | b'\t');
    text.is_empty() || text.first().is_some_and(padding) || text.last().is_some_and(padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Sink)) -> String {
        let mut sink = Sink::default();
        write(&mut sink);
        String::from_utf8(sink.buf).expect("encoders write UTF-8")
    }

    #[test]
    fn decimals_keep_all_their_digits() {
        let cases = [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 0, "-5"),
            (-12345, 3, "-12.345"),
            (12345, 5, "0.12345"),
            (7, -3, "7000"),
            (0, -3, "0"),
            (i128::MAX, 38, "1.70141183460469231731687303715884105727"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
        ];
        for (value, scale, expected) in cases {
            assert_eq!(text(|sink| sink.decimal(value, scale)), expected);
            let wide = i256::from_i128(value);
            assert_eq!(text(|sink| sink.decimal256(wide, scale)), expected);
        }
    }

    #[test]
    fn wide_decimals_match_the_library_text() {
        let step = i256::from_i128(10_i128.pow(19));
        let grouped = step.wrapping_mul(step).wrapping_mul(step).wrapping_mul(i256::from_i128(30));
        let values = [i256::MAX, i256::MIN, grouped, i256::MAX.wrapping_sub(step), i256::ONE];
        for value in values {
            assert_eq!(text(|sink| sink.decimal256(value, 0)), value.to_string());
        }
    }

    #[test]
    fn strings_are_escaped_wherever_the_byte_stands() {
        for byte in 0_u8..0x80 {
            for before in 0..20 {
                let mut value = "é".repeat(before / 2) + &"x".repeat(before % 2);
                value.push(char::from(byte));
                value.push_str("tail of more than eight");
                let json = text(|sink| sink.json_string(value.as_bytes(), false));
                assert_eq!(json, serde_json::to_string(&value).expect("strings are JSON"));
                let clean = !json[1..json.len() - 1].contains('\\');
                assert_eq!(json_clean(value.as_bytes()), clean, "{value:?}");
            }
        }
        assert!(!json_clean(&[&[b'a'; 130][..], b"\n"].concat()));
        assert!(!json_clean(&[&b"\n"[..], &[b'a'; 130][..]].concat()));
    }

    #[test]
    fn csv_quotes_only_where_needed() {
        let cases = [
            ("", "\"\""),
            ("a b", "a b"),
            (" a", "\" a\""),
            ("a\t", "\"a\t\""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("\"", "\"\"\"\""),
            ("a\nb", "\"a\nb\""),
        ];
        for (value, expected) in cases {
            assert_eq!(text(|sink| sink.csv_string(value.as_bytes())), expected);
        }
    }

    #[test]
    fn base64_is_standard_and_padded() {
        assert_eq!(text(|sink| sink.base64(b"")), "");
        assert_eq!(text(|sink| sink.base64(&[0xfb, 0xff])), "+/8=");
        assert_eq!(text(|sink| sink.base64(b"abc")), "YWJj");
    }
}
