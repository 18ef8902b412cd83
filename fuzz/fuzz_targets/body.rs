//! Bytes as a foreign body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_rpc::fuzz::body(data));
