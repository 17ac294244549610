//! The status table: the engine's errors as google.rpc.Status with exactly one ErrorInfo (AIP-193).

use std::collections::HashMap;

use quern_core::{Code, EngineError};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every ErrorInfo.
const DOMAIN: &str = "quern";

/// The longest message and metadata value that leave the engine, in bytes: status details travel in headers.
const MAX_TEXT: usize = 1024;

/// The status of an error.
pub(crate) fn status(error: EngineError) -> Status {
    let metadata: HashMap<String, String> = error.metadata.into_iter().map(|(k, v)| (k, shortened(v))).collect();
    let mut details = ErrorDetails::with_error_info(error.reason.as_str(), DOMAIN, metadata);
    if error.retry_after.is_some() {
        details.set_retry_info(error.retry_after);
    }
    Status::with_error_details(code(error.reason.code()), shortened(error.message), details)
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Aborted => tonic::Code::Aborted,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Cancelled => tonic::Code::Cancelled,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Internal => tonic::Code::Internal,
    }
}
