//! Operation sequences into two endpoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_transport::sim::fuzz::endpoint(data));
