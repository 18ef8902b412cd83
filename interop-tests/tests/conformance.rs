//! The conformance checks over every wire, on this host and through a network in a box.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use homa_interop::conformance::{self, Ends, Failure, Load};
use homa_interop::echo::EchoClient;
use homa_interop::network::{Disturbance, Layout, Network};
use homa_interop::relay::UdpRelay;
use homa_interop::skip;
use homa_interop::wire::{Uri, Wire};

/// Where a server listens on this host. Every check runs over each.
const HERE: [&str; 4] = [
    "homa+mem://",
    "homa+udp://127.0.0.1:0",
    "homa+udp://[::1]:0",
    "homa://127.0.0.1:0",
];

/// The wires that cross a network.
const ACROSS: [Wire; 2] = [Wire::Udp, Wire::Homa];

/// Fails with the failure of a check, or says that it is skipped.
fn settle(test: &str, place: &str, result: Result<(), Failure>) {
    match result {
        Ok(()) => {}
        Err(failure) if failure.is_unavailable() => {
            skip::report(&format!("{test} over {place}"), failure);
        }
        Err(failure) => panic!("{test} over {place}: {failure}"),
    }
}

/// Runs a check over every wire on this host.
async fn here(test: &str, check: impl AsyncFn(Ends) -> Result<(), Failure>) {
    for uri in HERE {
        // In-process names are those of the tests, lest two of them meet.
        let full = match uri {
            "homa+mem://" => format!("{uri}{test}"),
            _ => uri.to_owned(),
        };
        let ends = Ends::here(full.parse().unwrap());
        settle(test, uri, check(ends).await);
    }
}

/// Runs a check over every wire through a network, over IPv4 and IPv6.
async fn across(
    test: &str,
    layout: &Layout,
    check: impl AsyncFn(Ends, &Network) -> Result<(), Failure>,
) {
    let network = match Network::build(layout) {
        Ok(network) => network,
        Err(error) => return settle(test, "a network in a box", Err(error.into())),
    };
    for wire in ACROSS {
        for v6 in [false, true] {
            let ends = Ends::across(&network, wire, v6);
            let place = format!("{wire:?} through the network, IPv6: {v6}");
            settle(test, &place, check(ends, &network).await);
        }
    }
}

async fn all_sizes(ends: &Ends) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    let calls = ends.at_client(async move { conformance::sizes(&client, usize::MAX).await });
    let calls = calls.await?;
    assert!(calls >= conformance::SIZES.len(), "{calls}");
    Ok(())
}

#[tokio::test]
async fn messages_of_all_sizes_come_back_as_they_were() {
    let test = "messages_of_all_sizes_come_back_as_they_were";
    here(test, async |ends| all_sizes(&ends).await).await;
}

#[tokio::test]
async fn a_thousand_calls_at_once_are_executed_once_each() {
    let test = "a_thousand_calls_at_once_are_executed_once_each";
    here(test, async |ends| {
        conformance::once(&ends, Load::default()).await
    })
    .await;
}

#[tokio::test]
async fn calls_to_a_server_that_closes_fail_as_perhaps_executed() {
    let test = "calls_to_a_server_that_closes_fail_as_perhaps_executed";
    here(test, async |ends| conformance::peer_death(&ends).await).await;
}

#[tokio::test]
async fn a_restarted_server_answers_on_the_same_port() {
    let test = "a_restarted_server_answers_on_the_same_port";
    here(test, async |ends| conformance::restart(&ends).await).await;
}

const LOSSY: Disturbance = Disturbance {
    lost_permille: 50,
    doubled_permille: 0,
    late_permille: 0,
};

/// A bad network. Answers must not be late in it: two late RPC_UNKNOWN packets look like a restart of the
/// server, and the call then fails as one that may have been executed.
const BAD: [Disturbance; 2] = [
    Disturbance {
        lost_permille: 50,
        doubled_permille: 100,
        late_permille: 50,
    },
    Disturbance {
        lost_permille: 50,
        doubled_permille: 100,
        late_permille: 0,
    },
];

/// Calls through a relay that does `there` and `back` to datagrams, each executed at most once. Returns one
/// that failed.
async fn through_relay(there: Disturbance, back: Disturbance) -> Option<Failure> {
    let ends = Ends::here("homa+udp://127.0.0.1:0".parse().unwrap());
    let server = ends.serve().await.unwrap();
    let peer = server.transport().local_addr();
    let relay = UdpRelay::start(peer, there, back, 7).await.unwrap();
    let uri = Uri::new(Wire::Udp, relay.addr());
    let client = EchoClient::open(&uri, &conformance::patient())
        .await
        .unwrap();
    let failed = conformance::at_most_once(&ends, &server, &client, Load::default());
    let failed = failed.await.unwrap();
    let disturbed = relay.disturbed();
    assert!(
        disturbed.lost > 0 && disturbed.doubled > 0 && disturbed.late > 0,
        "{disturbed:?}"
    );
    failed
}

#[tokio::test]
async fn calls_through_a_relay_that_loses_doubles_and_delays_requests_are_executed_once_each() {
    let [there, back] = BAD;
    let failed = through_relay(there, back).await;
    assert!(failed.is_none(), "{failed:?}");
}

#[tokio::test]
async fn calls_through_a_relay_that_delays_answers_too_are_executed_at_most_once_each() {
    let [bad, _] = BAD;
    // Those that fail are right to say that they may have been executed.
    let failed = through_relay(bad, bad).await;
    println!("one that failed: {failed:?}");
}

#[tokio::test]
async fn messages_of_all_sizes_cross_a_network_that_loses_packets() {
    let test = "messages_of_all_sizes_cross_a_network_that_loses_packets";
    for mtu in [1500, 9000] {
        let layout = Layout {
            mtu,
            disturbances: vec![LOSSY; 2],
            ..Layout::default()
        };
        across(test, &layout, async |ends, network| {
            all_sizes(&ends).await?;
            let lost = network.port_counters(0)?.lost + network.port_counters(1)?.lost;
            assert!(lost > 0, "nothing was lost");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_calls_cross_a_network_that_loses_doubles_and_delays_packets() {
    let test = "a_thousand_calls_cross_a_network_that_loses_doubles_and_delays_packets";
    for mtu in [1500, 9000] {
        let layout = Layout {
            mtu,
            disturbances: BAD.to_vec(),
            ..Layout::default()
        };
        across(test, &layout, async |ends, _| {
            conformance::once(&ends, Load::default()).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_host_that_is_cut_off_is_given_up_and_found_again() {
    let test = "a_host_that_is_cut_off_is_given_up_and_found_again";
    across(test, &Layout::default(), async |ends, network| {
        conformance::silence(&ends, network, 0).await
    })
    .await;
}

#[tokio::test]
async fn servers_that_close_or_come_back_are_seen_across_a_network() {
    let test = "servers_that_close_or_come_back_are_seen_across_a_network";
    across(test, &Layout::default(), async |ends, _| {
        conformance::peer_death(&ends).await?;
        conformance::restart(&ends).await
    })
    .await;
}

#[tokio::test]
async fn packets_cross_the_switch_at_the_level_of_their_messages_length() {
    let test = "packets_cross_the_switch_at_the_level_of_their_messages_length";
    across(test, &Layout::default(), async |ends, network| {
        conformance::priorities(&ends, network, 0, 1).await
    })
    .await;
}
