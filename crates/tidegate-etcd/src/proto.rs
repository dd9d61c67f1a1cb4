//! The messages and clients of etcd's protocol, generated from `proto/etcd.proto`.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the protocol file is the place to read and to change"
)]

include!("proto/etcd.rs");

#[cfg(test)]
mod tests {
    #[test]
    fn the_generated_code_is_that_of_the_protocol_file() {
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = include_bytes!("../proto/etcd.proto").iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        let generated = include_str!("proto/etcd.rs").lines().next();
        assert_eq!(
            generated,
            Some(format!("// source-hash: {hash:016x}").as_str()),
            "run: cargo run --manifest-path crates/tidegate-etcd/proto/generate/Cargo.toml"
        );
    }

    #[test]
    fn nobody_can_print_a_password_by_printing_a_message() {
        let generated = include_str!("proto/etcd.rs");
        for message in ["AuthenticateRequest", "AuthenticateResponse", "AuthUserAddRequest"] {
            assert!(generated.contains(&format!("#[prost(skip_debug)]\npub struct {message} ")), "{message}");
        }
    }
}
