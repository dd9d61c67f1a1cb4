//! Writes the generated client of etcd's protocol into the sources of tidegate-etcd.

use std::{error::Error, fs, path::Path};

/// What nobody may print: these messages carry passwords and tokens.
const SECRET: [&str; 4] = [
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let proto = room.join("proto/etcd.proto");
    let out = std::env::temp_dir().join(format!("generate-etcd-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let descriptors = protox::compile([&proto], [room.join("proto")])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .skip_debug(SECRET)
        .out_dir(&out)
        .compile_fds(descriptors)?;
    let generated = fs::read_to_string(out.join("etcdserverpb.rs"))?;
    fs::remove_dir_all(&out)?;
    let text = format!("// source-hash: {:016x}\n{generated}", fnv(&fs::read(&proto)?));
    fs::write(room.join("src/proto/etcd.rs"), text)?;
    Ok(())
}

/// FNV-1a, so that a test can tell that the generated code is that of the protocol file.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
