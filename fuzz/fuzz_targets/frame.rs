//! Bytes into the decoder of RPC frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homa_rpc::fuzz::frame(data));
