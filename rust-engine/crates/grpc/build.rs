//! Compiles the internal contract with protox: no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../../proto");
    let files = [
        "quern/engine/v1/catalog_service.proto",
        "quern/engine/v1/metrics_service.proto",
        "quern/engine/v1/query_service.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost_encode(&descriptors))?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".quern.engine.v1.ExecuteResponse.chunk")
        .bytes(".quern.engine.v1.Peeked.body")
        .compile_fds(descriptors)?;
    Ok(())
}

fn prost_encode(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
