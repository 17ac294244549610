//! Compression, encodings and the pace of pushes.

use std::io::Write;
use std::sync::Arc;

use super::{CSV, Compression, TextFormat, decode_pieces, infer_pieces, show};
use crate::widen;

const TEXT: &str = "{\"a\":1,\"b\":\"é\"}\n{\"a\":2}\n{\"a\":3}\n";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn zstandard(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 1).expect("memory")
}

#[test]
fn compressed_files_read_alike_in_any_pieces() {
    let halves = |pack: fn(&[u8]) -> Vec<u8>| {
        let (first, second) = TEXT.as_bytes().split_at(20);
        [pack(first), pack(second)].concat()
    };
    let files = [
        (Compression::None, TEXT.as_bytes().to_vec()),
        (Compression::Gzip, gzip(TEXT.as_bytes())),
        (Compression::Gzip, halves(gzip)),
        (Compression::Zstd, zstandard(TEXT.as_bytes())),
        (Compression::Zstd, halves(zstandard)),
    ];
    for (compression, bytes) in files {
        for size in [1, 3, 1_000] {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let inferred = infer_pieces(TextFormat::Json, compression, &pieces).expect("valid");
            assert_eq!(inferred.rows, 3);
            let schema = Arc::new(widen::finalize(&inferred.schema));
            let batches = decode_pieces(&inferred.layout, compression, schema, &pieces, 2).expect("valid");
            let rows: Vec<String> = batches.iter().map(show).collect();
            assert_eq!(rows, ["1|é\n2|~", "3|~"], "{compression:?} in {size}");
        }
    }
}

#[test]
fn broken_streams_are_errors() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 6].to_vec();
    let table = [
        (Compression::Gzip, cut(gzip(TEXT.as_bytes())), "truncated"),
        (Compression::Zstd, cut(zstandard(TEXT.as_bytes())), "truncated"),
        (Compression::Gzip, TEXT.as_bytes().to_vec(), "corrupt"),
        (Compression::Zstd, TEXT.as_bytes().to_vec(), "corrupt"),
        (Compression::None, b"{\"a\":1}\n{\"a\":\"\xff\"}".to_vec(), "UTF-8"),
        (Compression::None, b"{\"a\":1}\n{\"a\":\"\xc3".to_vec(), "UTF-8"),
        (Compression::None, b"\xff\xfe{\0".to_vec(), "UTF-16"),
    ];
    for (compression, bytes, message) in table {
        let error = infer_pieces(TextFormat::Json, compression, &[&bytes]).expect_err(message);
        assert!(error.message.contains(message), "{error}");
    }
    let bad = b"{\"a\":1}\n{\"a\":\"\xff\"}";
    assert_eq!(infer_pieces(TextFormat::Json, Compression::None, &[bad]).expect_err("bad").row, Some(2));
    assert_eq!(infer_pieces(CSV, Compression::None, &[b"a\n1\n\xff\n"]).expect_err("bad").row, Some(2));
}

#[test]
fn a_bomb_comes_out_in_batches() {
    let row = format!("{}\n", "1".repeat(18));
    let text = row.repeat(2_000_000);
    let bomb = zstandard(text.as_bytes());
    assert!(bomb.len() < 100_000);
    let inferred = infer_pieces(TextFormat::Json, Compression::Zstd, &[&bomb]).expect("valid");
    assert_eq!(inferred.rows, 2_000_000);
    let schema = Arc::new(widen::finalize(&inferred.schema));
    let batches = decode_pieces(&inferred.layout, Compression::Zstd, schema, &[&bomb], 8_192).expect("valid");
    assert!(batches.iter().all(|batch| batch.num_rows() <= 8_192));
}

#[test]
fn a_row_longer_than_the_bound_is_refused() {
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(super::super::MAX_RECORD_BYTES + 1));
    let pieces: Vec<&[u8]> = long.as_bytes().chunks(1 << 20).collect();
    let error = infer_pieces(TextFormat::Json, Compression::None, &pieces).expect_err("too long");
    assert!(error.message.contains("64 MiB"), "{error}");
    let error = infer_pieces(CSV, Compression::None, &pieces);
    assert!(error.is_err());
}
