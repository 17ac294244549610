//! How the allocator is to behave, which it learns from its environment before this program's first line runs.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cgroup::machine_memory;

/// How long mimalloc keeps memory that was freed, in milliseconds.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Below this, memory that is kept for later is missing for queries now.
const LITTLE: u64 = 2 << 30;

/// Where there is little memory, starts this program over with an allocator that gives back at once what was freed, unless
/// the environment says how long it is to be kept. The process stays the same.
pub(crate) fn keep_little() {
    if machine_memory() >= LITTLE || std::env::var_os(PURGE_DELAY).is_some() {
        return;
    }
    let started = std::env::current_exe()
        .map(|program| Command::new(program).args(std::env::args_os().skip(1)).env(PURGE_DELAY, "0").exec());
    // It comes back only where that failed.
    let (Ok(error) | Err(error)) = started;
    tracing::warn!(%error, "the allocator keeps what was freed");
}
