//! Operations on metadata.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_rpc::fuzz::metadata(data));
