//! The engine binary: parse, telemetry, run, exit code.

mod allocator;
mod cgroup;
mod config;
mod healthcheck;
mod listen;
mod run;
mod telemetry;
mod tls;
mod trace;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = config::Config::parse();
    if let Some(config::Command::Healthcheck) = config.command {
        return match healthcheck::run(&config.asked()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("quern-engine: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    allocator::keep_little();
    let traces = config::otel::traces(|name| std::env::var(name).ok());
    let exporter = telemetry::init(&config.log_level, traces.as_ref().ok().cloned().flatten());
    if let Err(error) = traces {
        tracing::warn!(error, "no traces are exported");
    }
    keep_pages_small();
    open_more_files();
    match run::run(config, exporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

/// Takes as many file handles as the system lets it have; the limit that is set at first is for programs that use select(2).
fn open_more_files() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "the system keeps the limit of open files");
    }
}

/// Does without transparent huge pages: columns come and go in pieces, and a piece that is left would keep two megabytes.
/// It costs a few percent of time and saves a third of the memory. Where the system refuses, memory is what it is.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "the system keeps huge pages");
    }
}
