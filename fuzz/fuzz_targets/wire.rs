//! Bytes into the parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_transport::sim::fuzz::wire(data));
