//! The engine's one error table: reason → canonical code.
//!
//! Every error that leaves the engine carries exactly one [`Reason`], in the words of
//! [AIP-193](https://google.aip.dev/193). The table in `docs/reference/errors.md` is compared with [`Reason::ALL`]
//! by a test.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// The result of whatever can fail with an [`EngineError`].
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// The canonical codes of google.rpc.Code that the engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong, whatever the state of the system.
    InvalidArgument,
    /// The thing named does not exist.
    NotFound,
    /// The system is in a state in which the request can't be met; repeating it won't help.
    FailedPrecondition,
    /// The request lost a race; it may be repeated from the start.
    Aborted,
    /// A limit was reached.
    ResourceExhausted,
    /// Time ran out.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The engine can't answer now; it may be asked again.
    Unavailable,
    /// A defect of the engine.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal => $code:ident,)*) => {
        /// Why a request failed, as `google.rpc.ErrorInfo.reason` spells it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the reference page.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// The UPPER_SNAKE word.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $word,)* }
            }

            /// The canonical code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// The SQL text does not parse.
    SqlSyntax = "SQL_SYNTAX" => InvalidArgument,
    /// The SQL parses but means nothing: types that do not fit, a column outside GROUP BY.
    SqlInvalid = "SQL_INVALID" => InvalidArgument,
    /// The SQL text is too long.
    SqlTooLarge = "SQL_TOO_LARGE" => InvalidArgument,
    /// The SQL is nested too deeply or has too many operators.
    SqlTooComplex = "SQL_TOO_COMPLEX" => InvalidArgument,
    /// A feature of SQL that the engine does not have.
    SqlUnsupported = "SQL_UNSUPPORTED" => InvalidArgument,
    /// Something else than one read-only query.
    StatementNotAllowed = "STATEMENT_NOT_ALLOWED" => InvalidArgument,
    /// No table has that name (in SQL).
    UnknownTable = "UNKNOWN_TABLE" => InvalidArgument,
    /// No table has that name (as a resource).
    TableNotFound = "TABLE_NOT_FOUND" => NotFound,
    /// No column has that name.
    UnknownColumn = "UNKNOWN_COLUMN" => InvalidArgument,
    /// More than one column has that name.
    AmbiguousColumn = "AMBIGUOUS_COLUMN" => InvalidArgument,
    /// No function has that name.
    UnknownFunction = "UNKNOWN_FUNCTION" => InvalidArgument,
    /// The result would have two columns of one name.
    DuplicateColumn = "DUPLICATE_COLUMN" => InvalidArgument,
    /// A parameter is missing, superfluous or of the wrong type.
    ParameterInvalid = "PARAMETER_INVALID" => InvalidArgument,
    /// A field of the request is missing or out of range.
    RequestInvalid = "REQUEST_INVALID" => InvalidArgument,
    /// The filter of a request for rows does not parse, or means nothing.
    FilterInvalid = "FILTER_INVALID" => InvalidArgument,
    /// The order of a request for rows does not parse, or can't be had.
    OrderInvalid = "ORDER_INVALID" => InvalidArgument,
    /// A row's key that has not the key's columns or types.
    KeyInvalid = "KEY_INVALID" => InvalidArgument,
    /// No row has that key.
    RowNotFound = "ROW_NOT_FOUND" => NotFound,
    /// The table has no key to find rows by.
    NoKey = "NO_KEY" => FailedPrecondition,
    /// More than one row has that key.
    KeyNotUnique = "KEY_NOT_UNIQUE" => FailedPrecondition,
    /// A page token that was not given out for this request.
    PageTokenInvalid = "PAGE_TOKEN_INVALID" => InvalidArgument,
    /// The format asked for can't carry a column's type.
    FormatUnsupportedType = "FORMAT_UNSUPPORTED_TYPE" => InvalidArgument,
    /// A value made an expression fail: division by zero, overflow, a failed cast.
    DataError = "DATA_ERROR" => InvalidArgument,
    /// A function was asked for a value larger than its cap.
    ValueTooLarge = "VALUE_TOO_LARGE" => InvalidArgument,
    /// The table's files can't be read.
    TableBroken = "TABLE_BROKEN" => FailedPrecondition,
    /// A bucket does not answer, or refuses to.
    SourceUnavailable = "SOURCE_UNAVAILABLE" => Unavailable,
    /// A file changed while it was being read.
    SnapshotChanged = "SNAPSHOT_CHANGED" => Aborted,
    /// The snapshot that a page token names can't be read any more.
    SnapshotGone = "SNAPSHOT_GONE" => Aborted,
    /// The query ran past its deadline.
    QueryTimeout = "QUERY_TIMEOUT" => DeadlineExceeded,
    /// The query needed more memory than its share.
    MemoryLimit = "MEMORY_LIMIT" => ResourceExhausted,
    /// The query needed more spill space than it may take, or the disk is full.
    SpillLimit = "SPILL_LIMIT" => ResourceExhausted,
    /// The engine has as many files open as the system lets it.
    FileLimit = "FILE_LIMIT" => ResourceExhausted,
    /// Too many queries are running and waiting.
    TooManyQueries = "TOO_MANY_QUERIES" => ResourceExhausted,
    /// The caller went away.
    Cancelled = "CANCELLED" => Cancelled,
    /// The engine is shutting down.
    ShuttingDown = "SHUTTING_DOWN" => Unavailable,
    /// A defect of the engine; the log has the details.
    Internal = "INTERNAL" => Internal,
    /// A file is not what its extension says, or is damaged or cut short.
    FileCorrupt = "FILE_CORRUPT" => FailedPrecondition,
    /// A file or folder can't be opened or read.
    FileUnreadable = "FILE_UNREADABLE" => FailedPrecondition,
    /// The files of one table hold types that can't be united.
    SchemaConflict = "SCHEMA_CONFLICT" => FailedPrecondition,
    /// Two files claim the same table name.
    NameConflict = "NAME_CONFLICT" => FailedPrecondition,
    /// The configuration is wrong about a table.
    ConfigInvalid = "CONFIG_INVALID" => FailedPrecondition,
}

impl Reason {
    /// Whether it would be the same at the next attempt, on the same files.
    pub fn is_lasting(self) -> bool {
        !matches!(self, Self::SnapshotChanged | Self::SourceUnavailable | Self::FileLimit | Self::Internal)
    }
}

/// An error as callers see it: a reason, one sentence that says what would work, and machine-readable facts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Which row of the error table this is.
    pub reason: Reason,
    /// The sentence for people. No paths outside the sources, no internals.
    pub message: String,
    /// Facts for programs, such as `table` or `line`.
    pub metadata: BTreeMap<String, String>,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
}

impl EngineError {
    /// An error with a message and nothing more.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: BTreeMap::new(), retry_after: None }
    }

    /// A defect. The message goes to the log through the caller; this text goes out.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// What an I/O error says of a system that has run out of room or of file handles; nothing where it says something else.
    pub fn exhausted(error: &io::Error) -> Option<Self> {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        let (reason, message) = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => (
                Reason::SpillLimit,
                "the disk is full on which the query needed room; ask again when there is room, or filter or aggregate earlier",
            ),
            (_, Some(ENFILE | EMFILE)) => {
                (Reason::FileLimit, "the engine has as many files open as the system lets it; ask again in a moment")
            }
            _ => return None,
        };
        Some(Self::new(reason, message).retry_after(Duration::from_secs(1)))
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_upper_snake_and_unique() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{word}");
            assert!(seen.insert(word), "{word} twice");
        }
    }

    #[test]
    fn what_the_system_lacks_has_its_reason() {
        let reason = |code| EngineError::exhausted(&io::Error::from_raw_os_error(code)).map(|error| error.reason);
        let (enoent, enfile, emfile, enospc, edquot) = (2, 23, 24, 28, 122);
        assert_eq!(reason(enospc), Some(Reason::SpillLimit));
        assert_eq!(reason(edquot), Some(Reason::SpillLimit));
        assert_eq!(reason(enfile), Some(Reason::FileLimit));
        assert_eq!(reason(emfile), Some(Reason::FileLimit));
        assert_eq!(reason(enoent), None);
        assert!(!Reason::FileLimit.is_lasting());
    }

    #[test]
    fn reference_page_lists_every_reason_with_its_code() {
        let page = include_str!("../../../../docs/reference/errors.md");
        for reason in Reason::ALL {
            let code = match reason.code() {
                Code::InvalidArgument => "INVALID_ARGUMENT",
                Code::NotFound => "NOT_FOUND",
                Code::FailedPrecondition => "FAILED_PRECONDITION",
                Code::Aborted => "ABORTED",
                Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
                Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
                Code::Cancelled => "CANCELLED",
                Code::Unavailable => "UNAVAILABLE",
                Code::Internal => "INTERNAL",
            };
            let row = page.lines().find(|l| l.starts_with(&format!("| `{}` |", reason.as_str())));
            assert!(
                row.is_some_and(|r| r.contains(&format!("`{code}`"))),
                "{} {code} is not in errors.md",
                reason.as_str()
            );
        }
    }
}
