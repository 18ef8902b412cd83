//! Bytes as what happens to a call of several frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_rpc::fuzz::stream(data));
