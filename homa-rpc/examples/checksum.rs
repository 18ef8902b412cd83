//! What the checksums of frames cost: nanoseconds per call within the process, without and with them.
//!
//! ```sh
//! cargo run --release -p homa-rpc --example checksum
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it measures, and ends where it cannot"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use homa_rpc::{Channel, Server};
use support::{EchoClient, Msg, Wire, echo, run};

/// Payloads, in bytes.
const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 900_000];
/// Times that each is measured, without and with checksums in turn. The shortest time counts.
const ROUNDS: usize = 40;
/// Bytes of payload in one round.
const ROUND_BYTES: usize = 4_000_000;
/// Most calls in one round.
const CALLS_MAX: usize = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let running = run(Server::builder().add_service(echo()), Wire::Mem.pair());
    // Lets the server begin to serve.
    tokio::task::yield_now().await;
    let client = |checksums| {
        let channel = Channel::builder().checksums(checksums);
        let channel = channel.socket(running.client.clone());
        EchoClient::new(channel.build(&running.uri).unwrap())
    };
    let clients = [client(false), client(true)];
    println!("payload, bytes   without, ns/call   with, ns/call   difference");
    for size in SIZES {
        let message = Msg {
            data: vec![7; size].into(),
        };
        let calls = (ROUND_BYTES / size).clamp(10, CALLS_MAX);
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (client, best) in clients.iter().zip(&mut best) {
                let begun = Instant::now();
                for _ in 0..calls {
                    client.say(message.clone()).await.unwrap();
                }
                *best = begun.elapsed().min(*best);
            }
        }
        let [without, with] = best.map(|best| best.as_nanos() / calls as u128);
        println!(
            "{size:>14}   {without:>16}   {with:>13}   {:>10}",
            with.cast_signed() - without.cast_signed()
        );
    }
}
