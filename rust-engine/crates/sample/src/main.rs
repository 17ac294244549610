//! `quern-sample`: writes the sample data that `make run` serves and the tests read.
//!
//! It makes everything by itself, without network, and the same bytes' worth of rows on every run: the eight
//! TPC-H tables as Parquet, `stations.json` (nested, with nulls) and `weather.csv` (dates, zip codes, gaps).

mod explore;
mod file;
mod tpch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

/// Writes sample data: the TPC-H tables as Parquet, a JSON file and a CSV file.
#[derive(Debug, Parser)]
#[command(name = "quern-sample", version)]
struct Args {
    /// The folder to write to; it is made where it is missing.
    out: PathBuf,
    /// The TPC-H scale factor: 1 is 6 million lineitem rows.
    #[arg(long, default_value_t = 0.01, value_parser = parse_scale)]
    scale: f64,
    /// Only these TPC-H tables, separated by commas.
    #[arg(long, value_delimiter = ',')]
    tables: Vec<tpch::Table>,
    /// Leave out stations.json and weather.csv.
    #[arg(long)]
    only_tpch: bool,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err("expected a number above 0 and up to 1000, such as 0.01".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quern-sample: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("can't make the folder {}", args.out.display()))?;
    let tables = if args.tables.is_empty() { tpch::Table::ALL.to_vec() } else { args.tables.clone() };
    for table in tables {
        tpch::write(table, args.scale, &args.out)?;
    }
    if !args.only_tpch {
        explore::write(&args.out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_outside_the_range_are_refused() {
        for text in ["0", "-1", "1001", "NaN", "x"] {
            assert!(parse_scale(text).is_err(), "{text}");
        }
        assert_eq!(parse_scale("0.01"), Ok(0.01));
    }
}
