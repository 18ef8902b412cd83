//! Short calls overtake long messages in the network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use homa_interop::head_of_line::{HOSTS, Measured, measure};
use homa_interop::network::{Layout, Network, NetworkError, Queues};
use homa_interop::skip;
use homa_interop::wire::Wire;
use homa_transport::Config;

const WIRES: [Wire; 2] = [Wire::Udp, Wire::Homa];

/// Measures with and without priorities in the network; `None` where that cannot be done.
async fn with_and_without(
    test: &str,
    wire: Wire,
    config: &Config,
    mbit: u32,
    calls: usize,
) -> Option<[Measured; 2]> {
    let mut results = Vec::new();
    // Without priorities each call takes a hundred times as long.
    for (queues, calls) in [
        (Queues::Priority, calls),
        (Queues::Fifo, calls.div_ceil(10)),
    ] {
        let layout = Layout {
            hosts: HOSTS,
            mbit,
            queues,
            ..Layout::default()
        };
        let network = match Network::build(&layout) {
            Ok(network) => network,
            Err(NetworkError::Unavailable(reason)) => {
                skip::report(test, reason);
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        match measure(&network, wire, config, calls).await {
            Ok(measured) => {
                println!(
                    "{wire:?}, {mbit} Mbit/s, {queues:?}: idle P50 {:?} P99 {:?}, \
                     loaded P50 {:?} P99 {:?} ({:.1} times), link used {:.0} %, packets by level \
                     {:?}, long DATA packets {} and {} again",
                    measured.idle.p50,
                    measured.idle.p99,
                    measured.loaded.p50,
                    measured.loaded.p99,
                    measured.p99_ratio(),
                    measured.used_percent(mbit),
                    measured.port.packets,
                    measured.long_sent,
                    measured.long_resent,
                );
                results.push(measured);
            }
            Err(failure) if failure.is_unavailable() => {
                skip::report(&format!("{test} over {wire:?}"), failure);
                return None;
            }
            Err(failure) => panic!("{wire:?}: {failure}"),
        }
    }
    Some(results.try_into().unwrap())
}

/// What suits a link on which the bytes that are allowed to be under way take longer than the usual time
/// until RESEND: without it all is sent again and again, and at the highest level.
fn patient() -> Config {
    Config {
        resend_interval: Duration::from_millis(500),
        timeout: Duration::from_secs(20),
        ..Config::default()
    }
}

/// The link is slow, so that it fills even on a slow machine.
#[tokio::test]
async fn short_calls_overtake_long_messages_at_a_switch_with_priorities() {
    let test = "short_calls_overtake_long_messages_at_a_switch_with_priorities";
    for wire in WIRES {
        let measured = with_and_without(test, wire, &patient(), 40, 200).await;
        let Some([priority, fifo]) = measured else {
            continue;
        };
        // Half of the short calls wait behind the queue that the other switch lets them pass.
        assert!(priority.loaded.p50 < fifo.loaded.p50);
        // Requests of 100 bytes and control packets; first and granted bytes of the long ones, at
        // different levels by their rank.
        let used = |level: &usize| priority.port.packets[*level] > 0;
        assert!(used(&7), "{:?}", priority.port);
        assert!((0..7).filter(used).count() >= 3, "{:?}", priority.port);
    }
}

/// At 200 Mbit/s, where the time of a call counts: for a release build on an otherwise idle machine.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_short_calls_behind_long_messages() {
    // What 4 ms let through at that speed, half of it granted.
    let fitted = Config {
        unscheduled_bytes: 6_000,
        max_incoming_bytes: 50_000,
        ..Config::default()
    };
    let configs = [
        ("defaults", Config::default()),
        ("late RESENDs", patient()),
        ("small windows", fitted),
    ];
    for wire in WIRES {
        for (name, config) in &configs {
            println!("{name}:");
            with_and_without("measurement", wire, config, 200, 1_000).await;
        }
    }
}
