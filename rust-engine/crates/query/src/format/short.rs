//! Texts of at most 16 bytes, made in registers: numbers and dates without a loop over digits and without a
//! branch on how many there are.

/// How many bytes a short text may have.
pub(crate) const SHORT: usize = 16;

/// Digits of the two kinds of numbers that are written here; a sign and a point fill a text with the wide ones.
const WIDE: u32 = 14;
const NARROW: u32 = 8;

/// Whole numbers that are written with one go of arithmetic are below this.
pub(crate) const INTS: u64 = 10_u64.pow(NARROW);

/// A text of at most 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Short {
    /// The text as a little-endian number: its first letter in the lowest byte, zeros behind its end.
    pub(crate) text: u128,
    pub(crate) len: u8,
}

impl Short {
    /// A text that is known beforehand.
    pub(crate) const fn new(bytes: &[u8]) -> Self {
        let mut text = 0;
        let mut at = bytes.len();
        while at > 0 {
            at -= 1;
            text = text << 8 | bytes[at] as u128;
        }
        Self { text, len: bytes.len() as u8 }
    }

    /// The text, of at most 14 bytes, in double quotes.
    #[inline]
    pub(crate) fn quoted(self) -> Self {
        const QUOTE: u128 = b'"' as u128;
        let end = QUOTE << (8 * (u32::from(self.len) + 1));
        Self { text: self.text << 8 | QUOTE | end, len: self.len + 2 }
    }

    /// The text, of at most 15 bytes, behind a minus if the number is negative.
    #[inline]
    pub(crate) fn signed(self, negative: bool) -> Self {
        let signed = self.text << 8 | u128::from(b'-');
        Self { text: if negative { signed } else { self.text }, len: self.len + u8::from(negative) }
    }
}

/// How the magnitudes of a column's numbers are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// Whole, with up to eight digits.
    Ints,
    /// With up to eight digits.
    Narrow(Narrow),
    /// With up to 14 digits.
    Wide(Wide),
}

impl Numbers {
    /// Numbers of at most `most` in magnitude with `scale` digits after the point; `None` for those that short
    /// texts can't have, with two bytes less where they get quotes.
    pub(crate) fn new(most: u64, scale: i8, quoted: bool) -> Option<Self> {
        let digits = if quoted { WIDE - 2 } else { WIDE };
        let places = u32::try_from(scale).ok()?;
        if most >= 10_u64.pow(digits) || places >= digits {
            return None;
        }
        Some(match (most < INTS && places < NARROW, places) {
            (true, 0) => Self::Ints,
            (true, places) => Self::Narrow(Narrow::new(places)),
            (false, places) => Self::Wide(Wide::new(places)),
        })
    }
}

/// A whole number below `INTS`.
#[inline]
pub(crate) fn int(value: u64) -> Short {
    let digits = eight_digits(value);
    // The lowest digit counts even where it is a zero.
    let zeros = (digits | 1 << 56).trailing_zeros() & !7;
    let text = (digits | ZEROS as u64) >> zeros;
    Short { text: u128::from(text), len: (8 - zeros / 8) as u8 }
}

/// Any whole number: its first digits, if it has more than 16, and the others.
#[inline]
pub(crate) fn long_int(value: u64) -> (Short, Short) {
    const SPLIT: u64 = 10_u64.pow(16);
    if value < SPLIT {
        let digits = sixteen_digits(value);
        let zeros = (digits | 1 << 120).trailing_zeros() & !7;
        return (Short::default(), Short { text: (digits | ZEROS) >> zeros, len: 16 - (zeros / 8) as u8 });
    }
    (int(value / SPLIT), Short { text: sixteen_digits(value % SPLIT) | ZEROS, len: 16 })
}

/// Numbers below 10^8 with a decimal point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrow {
    /// A bit in the digit before the point: with it, no zero from there on counts as a leading one.
    units: u64,
    /// The digits before the point.
    whole: u64,
    point: u64,
}

impl Narrow {
    fn new(places: u32) -> Self {
        let before = 8 * (NARROW - places);
        Self { units: 1 << (before - 8), whole: (1 << before) - 1, point: u64::from(b'.') << before }
    }

    #[inline]
    pub(crate) fn write(self, value: u64) -> Short {
        let digits = eight_digits(value);
        let zeros = (digits | self.units).trailing_zeros() & !7;
        let text = digits | ZEROS as u64;
        // The point makes it nine bytes: the last digit is kept apart.
        let (head, last) = ((text & self.whole) | self.point | (text & !self.whole) << 8, text >> 56);
        let low = head >> zeros | last << 8 << (56 - zeros);
        let high = last >> zeros;
        Short { text: u128::from(low) | u128::from(high) << 64, len: 9 - (zeros / 8) as u8 }
    }
}

/// Numbers below 10^14 with or without a decimal point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide {
    units: u128,
    whole: u128,
    point: u128,
    /// How far the digits behind the point are moved for it.
    shift: u32,
    len: u8,
}

impl Wide {
    fn new(places: u32) -> Self {
        let before = 8 * (WIDE - places);
        let has_point = places > 0;
        let point = if has_point { u128::from(b'.') << before } else { 0 };
        let (shift, len) = (8 * u32::from(has_point), WIDE as u8 + u8::from(has_point));
        Self { units: 1 << (before - 8), whole: (1 << before) - 1, point, shift, len }
    }

    #[inline]
    pub(crate) fn write(self, value: u64) -> Short {
        // Two of sixteen digits are zeros: they leave room for the point and a sign.
        let digits = sixteen_digits(value) >> 16;
        let zeros = (digits | self.units).trailing_zeros() & !7;
        let text = digits | ZEROS >> 16;
        let text = (text & self.whole) | self.point | (text & !self.whole) << self.shift;
        Short { text: text >> zeros, len: self.len - (zeros / 8) as u8 }
    }
}

/// `0` in each byte.
pub(crate) const ZEROS: u128 = u128::from_le_bytes([b'0'; 16]);

/// The eight digits of a number below 10^8 as values from 0 to 9, the first in the lowest byte. All are split
/// off at once, in lanes of 32, 16 and 8 bits; multiplying and shifting divides by 100 and by 10.
#[inline]
pub(crate) fn eight_digits(value: u64) -> u64 {
    let value = value as u32;
    let fours = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = ((fours * 5_243) >> 19) & 0x0000_007f_0000_007f;
    split_pairs(hundreds | (fours - hundreds * 100) << 16)
}

/// The same for a number below 10^16.
#[inline]
fn sixteen_digits(value: u64) -> u128 {
    let (high, low) = (eight_digits(value / INTS), eight_digits(value % INTS));
    u128::from(low) << 64 | u128::from(high)
}

/// Four numbers below 100 as eight digits from 0 to 9, the first in the lowest byte.
#[inline]
pub(crate) fn pairs_to_digits([first, second, third, fourth]: [u32; 4]) -> u64 {
    let low = u64::from(first | second << 16);
    split_pairs(low | u64::from(third | fourth << 16) << 32)
}

#[inline]
fn split_pairs(pairs: u64) -> u64 {
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - tens * 10) << 8
}
