//! Generates the messages and services of `proto/` with a pure Rust compiler, so that no `protoc` is needed.

use prost::Message as _;

const FILES: [&str; 7] = [
    "concierge.proto",
    "containers.proto",
    "fault.proto",
    "maitred.proto",
    "progress.proto",
    "ready.proto",
    "vsh.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../proto");
    let descriptors = protox::compile(FILES, ["../proto"])?;
    let descriptors =
        prost_types::FileDescriptorSet::decode(descriptors.encode_to_vec().as_slice())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
