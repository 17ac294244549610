//! The kinds of scalars that a column has shown, as a set: what order they came in makes no difference.

use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::widen;

/// A set of scalar kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) const BOOL: Self = Self(1);
    pub(super) const INT64: Self = Self(1 << 1);
    /// Beyond Int64, within UInt64.
    pub(super) const UINT64: Self = Self(1 << 2);
    /// An integer beyond UInt64 of at most 38 digits.
    pub(super) const BIG: Self = Self(1 << 3);
    pub(super) const FLOAT: Self = Self(1 << 4);
    pub(super) const DATE: Self = Self(1 << 5);
    pub(super) const TIMESTAMP: Self = Self(1 << 6);
    /// With more than six digits of a second's fraction.
    pub(super) const TIMESTAMP_NS: Self = Self(1 << 7);
    pub(super) const INSTANT: Self = Self(1 << 8);
    pub(super) const INSTANT_NS: Self = Self(1 << 9);
    pub(super) const TEXT: Self = Self(1 << 10);

    /// A date or time that nanoseconds cannot express, beside its own kind.
    const FAR: Self = Self(1 << 11);

    const ALL: [Self; 11] = [
        Self::BOOL,
        Self::INT64,
        Self::UINT64,
        Self::BIG,
        Self::FLOAT,
        Self::DATE,
        Self::TIMESTAMP,
        Self::TIMESTAMP_NS,
        Self::INSTANT,
        Self::INSTANT_NS,
        Self::TEXT,
    ];

    pub(super) fn insert(&mut self, kind: Self) {
        self.0 |= kind.0;
    }

    /// The same for a date or time that nanoseconds cannot express.
    pub(super) fn far(self) -> Self {
        Self(self.0 | Self::FAR.0)
    }

    pub(super) fn contains(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The type that holds every kind of the set, by the one lattice of [`crate::widen`]; Null for the empty set.
    pub(super) fn data_type(self) -> DataType {
        if self.contains(Self::FAR) && (self.contains(Self::TIMESTAMP_NS) || self.contains(Self::INSTANT_NS)) {
            return DataType::Utf8;
        }
        Self::ALL.into_iter().filter(|kind| self.contains(*kind)).fold(DataType::Null, |wide, kind| {
            let left = Field::new("", wide, true);
            let right = Field::new("", kind.single(), true);
            widen::widen(&left, &right).map_or(DataType::Utf8, |field| field.data_type().clone())
        })
    }

    fn single(self) -> DataType {
        let utc = || Some("UTC".into());
        match self {
            Self::BOOL => DataType::Boolean,
            Self::INT64 => DataType::Int64,
            Self::UINT64 => DataType::UInt64,
            Self::BIG => DataType::Decimal128(38, 0),
            Self::FLOAT => DataType::Float64,
            Self::DATE => DataType::Date32,
            Self::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TIMESTAMP_NS => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Self::INSTANT => DataType::Timestamp(TimeUnit::Microsecond, utc()),
            Self::INSTANT_NS => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
            _ => DataType::Utf8,
        }
    }
}
