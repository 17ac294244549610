//! The one place where DataFusion's errors become ours.

use std::error::Error;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use quern_core::suggest::{nearest, some_of};
use quern_core::{EngineError, Reason};
use quern_sources::inspect::{find, find_changed, find_exhausted};

use crate::allow::Findings;
use crate::format::{EncodeError, FormatError};

/// An error of parsing or planning `sql`.
pub(crate) fn planning(sql: &str, error: &DataFusionError) -> EngineError {
    convert(sql, error, &Findings::default())
}

/// An error of execution; `findings` says which expressions may be at fault.
pub(crate) fn execution(error: &DataFusionError, findings: &Findings) -> EngineError {
    convert("", error, findings)
}

/// An error of encoding.
pub(crate) fn encoding(error: &EncodeError<DataFusionError>, findings: &Findings) -> EngineError {
    match error {
        EncodeError::Source(e) => execution(e, findings),
        EncodeError::Data { .. } => EngineError::new(Reason::DataError, error.to_string()),
        EncodeError::RowTooLarge { .. } => EngineError::new(Reason::MemoryLimit, error.to_string()),
        EncodeError::Mismatch { .. } | EncodeError::Arrow(_) | EncodeError::Parquet(_) | EncodeError::Stopped(_) => {
            internal(error)
        }
    }
}

/// A result that the format can't carry.
pub(crate) fn format(error: &FormatError) -> EngineError {
    match error {
        FormatError::DuplicateColumn { column } => {
            EngineError::new(Reason::DuplicateColumn, error.to_string()).with("column", column)
        }
        FormatError::Unsupported { column, .. } | FormatError::UnknownZone { column, .. } => {
            EngineError::new(Reason::FormatUnsupportedType, error.to_string()).with("column", column)
        }
        FormatError::NoColumns { .. } | FormatError::Refused { .. } => {
            EngineError::new(Reason::FormatUnsupportedType, error.to_string())
        }
        FormatError::NoRuntime => internal(error),
    }
}

fn internal(error: &dyn Error) -> EngineError {
    tracing::error!(error = %error, "internal error");
    EngineError::internal("the engine failed; its log says why")
}

fn convert(sql: &str, error: &DataFusionError, findings: &Findings) -> EngineError {
    if let Some(own) = find::<EngineError>(error) {
        return match own.reason {
            // A file that passed inspection and fails now: damaged since, or inspected before a rule changed.
            Reason::FileCorrupt | Reason::FileUnreadable => EngineError { reason: Reason::TableBroken, ..own.clone() },
            _ => own.clone(),
        };
    }
    if let Some(changed) = find_changed(error) {
        return EngineError::new(Reason::SnapshotChanged, format!("{changed}; ask again")).with("file", &changed.file);
    }
    if let Some(exhausted) = find_exhausted(error) {
        return exhausted;
    }
    // The spill limit comes as an I/O error, by whatever wrapper the operator at hand puts around it.
    if error.to_string().contains("max_temp_directory_size") {
        return exhausted("disk");
    }
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => convert(sql, inner, findings),
        DataFusionError::Shared(inner) => convert(sql, inner, findings),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => convert(sql, first, findings),
            None => internal(error),
        },
        DataFusionError::SQL(parser, _) => match parser.as_ref() {
            ParserError::RecursionLimitExceeded => too_deep(),
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => syntax(sql, message),
        },
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::Plan(message) => plan(message),
        DataFusionError::NotImplemented(message) => {
            EngineError::new(Reason::SqlUnsupported, format!("not supported: {}", first_line(message)))
        }
        DataFusionError::Configuration(message) | DataFusionError::Substrait(message) => {
            EngineError::new(Reason::SqlInvalid, first_line(message))
        }
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow, findings),
        DataFusionError::Execution(message) => {
            EngineError::new(Reason::DataError, capitalised_off(first_line(message)))
        }
        DataFusionError::External(inner) => match inner.downcast_ref::<ArrowError>() {
            Some(arrow) => arrow_error(arrow, findings),
            None => internal(error),
        },
        DataFusionError::ParquetError(parquet) => EngineError::new(
            Reason::TableBroken,
            format!("a Parquet file is damaged: {}", first_line(&parquet.to_string())),
        ),
        DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::ExecutionJoin(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Ffi(_) => internal(error),
    }
}

fn too_deep() -> EngineError {
    EngineError::new(Reason::SqlTooComplex, "the statement nests too deeply; split it with WITH")
}

/// A syntax error with line, column and the offending word, read off the parser's message.
pub(crate) fn syntax(sql: &str, message: &str) -> EngineError {
    let message = message.trim_start_matches("sql parser error: ");
    let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let mut numbers = place.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<usize>().ok());
    let (Some(line), Some(column)) = (numbers.next(), numbers.next()) else {
        return EngineError::new(Reason::SqlSyntax, format!("the SQL does not parse: {}", first_line(what)));
    };
    let rest =
        sql.lines().nth(line.saturating_sub(1)).map(|l| l.chars().skip(column.saturating_sub(1)).collect::<String>());
    let word: String =
        rest.unwrap_or_default().split_whitespace().next().unwrap_or_default().chars().take(40).collect();
    let near = if word.is_empty() { String::new() } else { format!(" near `{word}`") };
    EngineError::new(
        Reason::SqlSyntax,
        format!("the SQL does not parse at line {line}, column {column}{near}: {}", first_line(what)),
    )
    .with("line", line)
    .with("column", column)
    .with("near", word)
}

fn schema_error(error: &SchemaError) -> EngineError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
            let tables: std::collections::BTreeSet<String> =
                valid_fields.iter().filter_map(|c| c.relation.as_ref()).map(|r| format!("`{}`", r.table())).collect();
            let place = match tables.len() {
                0 => String::new(),
                _ => format!(" in {}", tables.into_iter().collect::<Vec<_>>().join(", ")),
            };
            let hint = match nearest(&field.name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => "there are no columns here".to_owned(),
                None => format!("there are {}", some_of(names.iter().copied())),
            };
            EngineError::new(Reason::UnknownColumn, format!("no column `{}`{place}; {hint}", field.name))
                .with("column", &field.name)
        }
        SchemaError::AmbiguousReference { field } => EngineError::new(
            Reason::AmbiguousColumn,
            format!("more than one table has a column `{0}`; write `table.{0}`", field.name),
        )
        .with("column", &field.name),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            EngineError::new(
                Reason::DuplicateColumn,
                format!("two columns are named `{name}`; give one of them another name with AS"),
            )
            .with("column", name)
        }
    }
}

fn plan(message: &str) -> EngineError {
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or_default();
        let hint = message.split_once("Did you mean '").and_then(|(_, m)| m.split('\'').next());
        let hint = hint.map_or_else(String::new, |m| format!("; did you mean `{m}`?"));
        return EngineError::new(Reason::UnknownFunction, format!("no function `{name}`{hint}")).with("function", name);
    }
    if message.contains("unique expression names") || message.contains("duplicate") && message.contains("name") {
        return EngineError::new(
            Reason::DuplicateColumn,
            format!("two columns have the same name; give one of them another name with AS ({})", first_line(message)),
        );
    }
    EngineError::new(Reason::SqlInvalid, first_line(message))
}

fn exhausted(message: &str) -> EngineError {
    if message.contains("disk") || message.contains("temp directory") {
        return EngineError::new(
            Reason::SpillLimit,
            "the query needed more spill space than there is; filter or aggregate earlier",
        );
    }
    EngineError::new(
        Reason::MemoryLimit,
        "the query needed more memory than its share; filter earlier, select fewer columns, or aggregate",
    )
}

fn arrow_error(error: &ArrowError, findings: &Findings) -> EngineError {
    let among = |set: &std::collections::BTreeSet<String>| match set.len() {
        0 => String::new(),
        1 => format!(" in {}", set.iter().cloned().collect::<String>()),
        _ => format!(" in one of {}", set.iter().cloned().collect::<Vec<_>>().join(", ")),
    };
    let data = |message: String| EngineError::new(Reason::DataError, message);
    match error {
        ArrowError::DivideByZero => {
            data(format!("division by zero{}; `nullif(divisor, 0)` gives null instead", among(&findings.divisions)))
        }
        ArrowError::ArithmeticOverflow(what) => {
            data(format!("overflow{}: {}", among(&findings.arithmetic), first_line(what)))
        }
        ArrowError::CastError(what) | ArrowError::ParseError(what) => data(format!(
            "a cast failed{}: {}; `try_cast` gives null instead",
            among(&findings.casts),
            first_line(what)
        )),
        ArrowError::ComputeError(what) | ArrowError::InvalidArgumentError(what) => {
            data(capitalised_off(first_line(what)))
        }
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => execution(inner, findings),
            None => internal(error),
        },
        _ => internal(error),
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn capitalised_off(message: String) -> String {
    let mut chars = message.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => message,
    }
}
