//! The engine's configuration: flags, their environment variables, defaults and help. The only reader of both.

pub(crate) mod otel;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use quern_query::Limits;

use crate::cgroup::machine_memory;
use crate::tls::{Files, PeerName};

/// Executes read-only SQL over folders of data files, for the edge.
#[derive(Debug, Parser)]
#[command(name = "quern-engine", version, subcommand_negates_reqs = true)]
pub(crate) struct Config {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The sources: folders, or buckets as `s3://bucket/prefix`, `gs://…`, `az://…`. Each file in them is a table, and each
    /// sub-folder.
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,

    /// How often buckets are listed: a change is seen one interval and one listing later at the latest.
    #[arg(long, env = "QUERN_BUCKET_POLL", value_parser = duration, default_value = "5s")]
    pub(crate) bucket_poll: Duration,

    /// Where to listen: `unix:///path`, beside which `/path.data` carries large results, or `tcp://host:port`.
    #[arg(long, env = "QUERN_ENGINE_LISTEN", global = true, default_value = "tcp://127.0.0.1:9091")]
    pub(crate) listen: String,

    /// The engine's certificate in PEM, with what lies between it and the authority: TLS on `tcp://`, with the next three.
    /// The files are read again when they change.
    #[arg(long, env = "QUERN_ENGINE_LISTEN_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of `--tls-cert`, in PEM.
    #[arg(long, env = "QUERN_ENGINE_LISTEN_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The authorities that sign the certificates of who may connect, in PEM.
    #[arg(long, env = "QUERN_ENGINE_LISTEN_TLS_CLIENT_CA", value_name = "FILE")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// The DNS name or URI that the certificate of who connects must have.
    #[arg(long, env = "QUERN_ENGINE_LISTEN_TLS_CLIENT_NAME", value_name = "NAME")]
    pub(crate) tls_client_name: Option<PeerName>,

    /// Listen beyond this machine without TLS: for networks that encrypt and authenticate on their own.
    #[arg(long, env = "QUERN_PLAIN_TCP", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) plain_tcp: bool,

    /// Where grpc.health.v1 alone listens too, as `host:port`, without TLS: for probes and health checks that have no
    /// certificate. The service `` says whether the engine takes queries, `liveness` that it answers at all.
    #[arg(long, env = "QUERN_ENGINE_HEALTH", global = true, value_name = "ADDRESS")]
    pub(crate) health: Option<String>,

    /// Shut down when standard input ends: the sign that the supervising process is gone.
    #[arg(long)]
    pub(crate) supervised: bool,

    /// Memory of all queries together, such as `2GiB`; 60 % of the machine's or container's by default, less below 1 GiB.
    #[arg(long, env = "QUERN_MEMORY", value_parser = bytes)]
    pub(crate) memory: Option<u64>,

    /// How much of `--memory` decoded columns may take while queries leave it; a quarter of the machine's or container's
    /// memory by default, at most half of `--memory`. `0` keeps none.
    #[arg(long, env = "QUERN_HOT_BYTES", value_parser = bytes)]
    pub(crate) hot_bytes: Option<u64>,

    /// How much disk space text files may take that were decoded and whose columns did not stay in memory; `0` for none.
    #[arg(long, env = "QUERN_HOT_SPILL_BYTES", value_parser = bytes, default_value = "10GiB")]
    pub(crate) hot_spill_bytes: u64,

    /// Memory of one query; half of `--memory` by default, a quarter below 512 MiB.
    #[arg(long, env = "QUERN_QUERY_MEMORY", value_parser = bytes)]
    pub(crate) query_memory: Option<u64>,

    /// Folder for spilled data; the system's temporary folder by default.
    #[arg(long, env = "QUERN_SPILL_DIR")]
    pub(crate) spill_dir: Option<PathBuf>,

    /// How much all queries together may spill.
    #[arg(long, env = "QUERN_SPILL_BYTES", value_parser = bytes, default_value = "10GiB")]
    pub(crate) spill_bytes: u64,

    /// How many queries run at once; eight for each thread by default, sixteen at least, and one for each 24 MiB of `--memory` at most.
    #[arg(long, env = "QUERN_MAX_CONCURRENT_QUERIES")]
    pub(crate) max_concurrent_queries: Option<usize>,

    /// How many more may wait, for at most 5 s, before they are refused; four times as many as may run by default.
    #[arg(long, env = "QUERN_MAX_QUEUED_QUERIES")]
    pub(crate) max_queued_queries: Option<usize>,

    /// The deadline of a query whose caller names none.
    #[arg(long, env = "QUERN_TIMEOUT_DEFAULT", value_parser = duration, default_value = "30s")]
    pub(crate) timeout_default: Duration,

    /// The longest deadline a caller gets.
    #[arg(long, env = "QUERN_TIMEOUT_MAX", value_parser = duration, default_value = "5m")]
    pub(crate) timeout_max: Duration,

    /// Threads that plan, execute and encode; one for each core by default.
    #[arg(long, env = "QUERN_THREADS")]
    pub(crate) threads: Option<usize>,

    /// How long after SIGTERM new queries are still taken, while health says already that there shall be none: until who
    /// sends them has noticed. Another signal ends it.
    #[arg(long, env = "QUERN_DRAIN_DELAY", value_parser = delay, default_value = "0s")]
    pub(crate) drain_delay: Duration,

    /// How long running queries may finish after that.
    #[arg(long, env = "QUERN_GRACE_PERIOD", value_parser = duration, default_value = "25s")]
    pub(crate) grace_period: Duration,

    /// The secret that page tokens are sealed with, 16 characters at least. Engines behind one edge must share it. By
    /// default each start makes a new one, and tokens from before are refused.
    #[arg(long, env = "QUERN_PAGE_TOKEN_SECRET", hide_env_values = true, value_parser = secret, default_value_t = random_secret(), hide_default_value = true)]
    pub(crate) page_token_secret: String,

    /// Which log lines are written: `error`, `warn`, `info`, `debug`, or a filter by module.
    #[arg(long, env = "QUERN_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// What the binary does beside serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the engine that listens on `--health`, else `--listen`, whether it serves; ends with 0 when it does, else with 1.
    Healthcheck,
}

/// Queries have less memory to themselves below this.
const SMALL: usize = 512 << 20;
/// What there must be for each query that runs.
const MEMORY_OF_ONE: usize = 24 << 20;

/// The share of all memory that queries get. What they hold beside what they reserve, and the process itself, take the rest,
/// which is not less in a small container.
fn queries_share(all: u64) -> u64 {
    const BESIDE: u64 = 192 << 20;
    (all / 10 * 6).min(all.saturating_sub(BESIDE) / 4 * 3).max(all / 4)
}

impl Config {
    /// The files of TLS, if it is asked for.
    pub(crate) fn tls(&self) -> Result<Option<Files>> {
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca, &self.tls_client_name) {
            (None, None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(client_ca), Some(client_name)) => {
                if !self.listen.starts_with("tcp://") {
                    bail!("TLS is for `--listen tcp://host:port`, not for {}", self.listen);
                }
                let (cert, key, client_ca) = (cert.clone(), key.clone(), client_ca.clone());
                Ok(Some(Files { cert, key, client_ca, client_name: client_name.clone() }))
            }
            _ => bail!(
                "`--tls-cert`, `--tls-key`, `--tls-client-ca` and `--tls-client-name` go together: give all four or none"
            ),
        }
    }

    /// The address that a health check asks.
    pub(crate) fn asked(&self) -> String {
        self.health.as_ref().map_or_else(|| self.listen.clone(), |address| format!("tcp://{address}"))
    }

    /// The bounds, with what was left out filled in from the machine.
    pub(crate) fn limits(&self) -> Limits {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = self.threads.unwrap_or(cores).max(1);
        let memory = to_usize(self.memory.unwrap_or_else(|| queries_share(machine_memory())));
        let at_once = (8 * threads).max(16).min((memory / MEMORY_OF_ONE).max(4));
        let max_concurrent_queries = self.max_concurrent_queries.unwrap_or(at_once).max(1);
        Limits {
            memory,
            hot_bytes: self.hot_bytes.map_or_else(|| to_usize(machine_memory() / 4).min(memory / 2), to_usize),
            hot_spill_bytes: self.hot_spill_bytes,
            process_memory: to_usize(machine_memory()),
            query_memory: self.query_memory.map_or(if memory < SMALL { memory / 4 } else { memory / 2 }, to_usize),
            spill_dir: self.spill_dir.clone().unwrap_or_else(std::env::temp_dir),
            spill_bytes: self.spill_bytes,
            max_concurrent_queries,
            max_queued_queries: self.max_queued_queries.unwrap_or(4 * max_concurrent_queries),
            queue_patience: Duration::from_secs(5),
            timeout_default: self.timeout_default,
            timeout_max: self.timeout_max,
            threads,
        }
    }
}

fn secret(text: &str) -> Result<String, String> {
    const LEAST: usize = 16;
    if text.len() < LEAST { Err(format!("it must have {LEAST} characters at least")) } else { Ok(text.to_owned()) }
}

fn random_secret() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        unit => return Err(format!("unknown unit `{unit}`; write a size such as 512MiB or 2GiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "write a size such as 512MiB or 2GiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size is too large".to_owned())
}

/// A duration that may be none.
fn delay(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

/// Go's duration syntax, as the edge passes it on: `30s`, `1m30s`, `1.5h`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write 30s, 250ms or 1m30s");
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` must be more than 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("10"), Ok(10));
        assert!(bytes("10 parsecs").is_err());
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "5", "s", "0s", "1y"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(delay("0s"), Ok(Duration::ZERO));
        assert_eq!(delay("5s"), Ok(Duration::from_secs(5)));
        assert!(delay("-1s").is_err());
    }

    #[test]
    fn small_containers_leave_more_beside_queries() {
        const MIB: u64 = 1 << 20;
        assert_eq!(queries_share(10_240 * MIB), 6144 * MIB);
        assert_eq!(queries_share(512 * MIB), 240 * MIB);
        assert_eq!(queries_share(128 * MIB), 32 * MIB);
    }

    #[test]
    fn tls_takes_all_its_flags_and_tcp() {
        const ALL: [&str; 4] =
            ["--tls-cert=cert", "--tls-key=key", "--tls-client-ca=ca", "--tls-client-name=spiffe://example.org/edge"];
        let tls = |flags: &[&str]| {
            let config = Config::parse_from([&["quern-engine", "."], flags].concat());
            config.tls().map_err(|error| error.to_string())
        };
        assert!(matches!(tls(&[]), Ok(None)));
        assert!(matches!(tls(&ALL), Ok(Some(_))));
        let partial = tls(&ALL[..3]).expect_err("the name is missing");
        assert!(partial.contains("go together"), "{partial}");
        let unix = tls(&[&ALL[..], &["--listen=unix:///socket"]].concat()).expect_err("no TCP");
        assert!(unix.contains("tcp://"), "{unix}");
    }

    #[test]
    fn serves_folders_or_asks() {
        let parse = |args: &[&str]| Config::try_parse_from(args.iter().copied());
        assert!(parse(&["quern-engine"]).is_err());
        assert!(parse(&["quern-engine", "data"]).expect("a folder").command.is_none());
        let asks = parse(&["quern-engine", "healthcheck", "--listen", "tcp://127.0.0.1:1"]).expect("a check");
        assert!(matches!(asks.command, Some(Command::Healthcheck)));
        assert_eq!(asks.asked(), "tcp://127.0.0.1:1");
        let asks = parse(&["quern-engine", "healthcheck", "--health", "0.0.0.0:9092"]).expect("a check");
        assert_eq!(asks.asked(), "tcp://0.0.0.0:9092");
    }

    #[test]
    fn flags_are_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }
}
