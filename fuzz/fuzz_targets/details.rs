//! Bytes into the details of a status.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_rpc::fuzz::details(data));
