//! Generates messages, client and service of `proto/`, in pure Rust: whoever builds Logseal needs no `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("../../proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = protox::compile(["logseal/v1/operations.proto"], [folder])?;
    let mut described = files.clone();
    for file in &mut described.file {
        // Reflection has no use for comments and positions.
        file.source_code_info = None;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("operations.descriptors"), described.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
