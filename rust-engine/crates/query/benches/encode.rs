//! Processor time of encoding rows as JSON, beside Arrow's own JSON writers: see docs/benchmarks.md.
//!
//! What is compared takes turns within one run, after one round that does not count; the medians are printed.
//! Everything runs on this thread, on batches that lie in memory.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow_json::WriterBuilder;
use arrow_json::writer::{JsonArray, JsonFormat, LineDelimited};
use futures::StreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern_query::format::{EncodeOptions, Format, NumberStyle, Part, encode};
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};
use tpchgen::generators::{LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{LineItemArrow, OrderArrow};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many rows as the engine's batches have.
const ROWS: usize = 8_192;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let args = Args::parse()?;
    let runtime = Builder::new_current_thread().build()?;
    println!("{:20} {:24} {:>8} {:>8} {:>14}", "table", "writer", "ns/row", "MB/s", "to arrow-json");
    for (name, batches) in tables(&args)? {
        for strings in [DataType::Utf8View, DataType::Utf8] {
            let batches = batches.iter().map(|batch| with_strings(batch, &strings)).collect::<Result<Vec<_>, _>>()?;
            compare(&format!("{name}, {strings}"), &batches, args.rounds, &runtime)?;
        }
    }
    Ok(())
}

struct Args {
    /// The folder of vega-datasets, for its flights.
    vega: Option<PathBuf>,
    batches: usize,
    rounds: usize,
}

impl Args {
    fn parse() -> Result<Self, Failure> {
        let mut args = Self { vega: None, batches: 20, rounds: 15 };
        // `cargo bench` adds a flag of its own.
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--vega" => args.vega = Some(value.into()),
                "--batches" => args.batches = value.parse()?,
                "--rounds" => args.rounds = value.parse()?,
                _ => return Err(format!("{flag}: expected --vega DIR, --batches N or --rounds N").into()),
            }
        }
        Ok(args)
    }
}

type Table = (&'static str, Vec<RecordBatch>);

fn tables(args: &Args) -> Result<Vec<Table>, Failure> {
    let orders = OrderArrow::new(OrderGenerator::new(1.0, 1, 1)).with_batch_size(ROWS).take(args.batches);
    let lines = LineItemArrow::new(LineItemGenerator::new(1.0, 1, 1)).with_batch_size(ROWS).take(args.batches);
    let mut tables =
        vec![("orders", orders.collect::<Result<Vec<_>, _>>()?), ("lineitem", lines.collect::<Result<Vec<_>, _>>()?)];
    if let Some(vega) = &args.vega {
        let file = File::open(vega.join("flights-3m.parquet"))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(ROWS).build()?;
        tables.push(("flights", reader.take(args.batches).collect::<Result<Vec<_>, _>>()?));
    }
    Ok(tables)
}

/// The batch with all its strings laid out in one way.
fn with_strings(batch: &RecordBatch, strings: &DataType) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let fields = schema.fields().iter().map(|field| {
        let data_type = if field.data_type().is_string() { strings } else { field.data_type() };
        Field::new(field.name(), data_type.clone(), field.is_nullable())
    });
    let fields: Vec<_> = fields.collect();
    let columns = batch.columns().iter().zip(&fields).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A way of writing batches; returns how many bytes it wrote.
type Writer<'a> = Box<dyn Fn() -> Result<usize, Failure> + 'a>;

fn compare(name: &str, batches: &[RecordBatch], rounds: usize, runtime: &Runtime) -> Result<(), Failure> {
    let body = body(batches, Format::Json, runtime)?;
    let writers: [(&str, Writer<'_>); 5] = [
        ("json", Box::new(|| quern(batches, Format::Json, runtime))),
        ("ndjson", Box::new(|| quern(batches, Format::Ndjson, runtime))),
        ("the digest alone", Box::new(|| Ok(digest(&body)))),
        ("arrow-json, array", Box::new(|| arrow::<JsonArray>(batches))),
        ("arrow-json, lines", Box::new(|| arrow::<LineDelimited>(batches))),
    ];
    let mut times = [const { Vec::new() }; 5];
    let mut bytes = [0; 5];
    for round in 0..=rounds {
        for ((_, write), (times, bytes)) in writers.iter().zip(times.iter_mut().zip(&mut bytes)) {
            let begin = processor_time()?;
            *bytes = write()?;
            let took = processor_time()? - begin;
            if round > 0 {
                times.push(took);
            }
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let medians = times.map(median);
    let line = |what: &str, time: f64, bytes: usize, peer: f64| {
        let (row, speed) = (time / rows as f64, bytes as f64 * 1e3 / time);
        println!("{name:20} {what:24} {row:8.1} {speed:8.0} {:12.2} x", peer / time);
    };
    let peers = [medians[3], medians[4], medians[3], medians[3], medians[4]];
    for (((what, _), time), (bytes, peer)) in writers.iter().zip(medians).zip(bytes.into_iter().zip(peers)) {
        line(what, time, bytes, peer);
    }
    line("json less the digest", medians[0] - medians[2], bytes[0], medians[3]);
    Ok(())
}

/// A whole result through the engine's encoder, as chunks of which nothing is kept.
fn quern(batches: &[RecordBatch], format: Format, runtime: &Runtime) -> Result<usize, Failure> {
    chunks(batches, format, runtime, |_| {})
}

fn body(batches: &[RecordBatch], format: Format, runtime: &Runtime) -> Result<Vec<Vec<u8>>, Failure> {
    let mut body = Vec::new();
    chunks(batches, format, runtime, |chunk| body.push(chunk.to_vec()))?;
    Ok(body)
}

fn chunks(
    batches: &[RecordBatch],
    format: Format,
    runtime: &Runtime,
    mut take: impl FnMut(&[u8]),
) -> Result<usize, Failure> {
    let options = EncodeOptions {
        format,
        numbers: NumberStyle::Exact,
        parallelism: 1,
        most: usize::MAX,
        snapshots: Vec::new(),
        envelope: quern_query::format::Envelope::default(),
        runtime: Some(runtime.handle().clone()),
    };
    let schema = batches.first().ok_or("no rows")?.schema();
    let input: Vec<Result<_, ArrowError>> = batches.iter().cloned().map(Ok).collect();
    let mut parts = encode(futures::stream::iter(input), schema, options)?;
    runtime.block_on(async {
        let mut bytes = 0;
        while let Some(part) = parts.next().await {
            if let Part::Chunk(chunk) = part? {
                take(black_box(&chunk));
                bytes += chunk.len();
            }
        }
        Ok(bytes)
    })
}

fn digest(body: &[Vec<u8>]) -> usize {
    let mut digest = Sha256::new();
    body.iter().for_each(|chunk| digest.update(chunk));
    black_box(digest.finalize());
    body.iter().map(Vec::len).sum()
}

/// The same rows through Arrow's writer, batch by batch into a buffer that is used again.
fn arrow<F: JsonFormat>(batches: &[RecordBatch]) -> Result<usize, Failure> {
    let mut bytes = 0;
    let mut buffer = Vec::new();
    for batch in batches {
        buffer.clear();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, F>(&mut buffer);
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        bytes += black_box(&buffer).len();
    }
    Ok(bytes)
}

/// Nanoseconds that this thread has computed.
fn processor_time() -> Result<u64, Failure> {
    // The kernel brings its count up to date when the thread steps back.
    std::thread::yield_now();
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(counts.split(' ').next().unwrap_or_default().parse()?)
}

fn median(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default() as f64
}
