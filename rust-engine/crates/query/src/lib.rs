//! Sessions, planning, limits and execution of read-only SQL and of pages of rows, and the formats of their results.
//!
//! [`Engine::execute`] takes a question to a stream of encoded [`format::Part`]s. Planning, execution and encoding run
//! on the engine's own CPU runtime; callers only wait. This crate knows no transport.

mod admission;
mod allow;
mod casts;
mod checked;
mod complexity;
mod engine;
mod errors;
pub mod format;
mod functions;
mod idents;
mod interrupt;
mod limits;
mod memory;
mod params;
mod parse;
mod pins;
mod plans;
mod pressure;
pub mod rows;
mod runtime;
mod session;
mod sums;

pub use engine::{Ask, Engine, Execution, Load, Outline, Peeked, Request};
pub use limits::Limits;
pub use params::Params;
