//! Streams over every wire, on this host and through networks that lose packets or are cut.

use homa_interop::conformance::{self, Ends, Failure};
use homa_interop::network::{Disturbance, Layout, Network};
use homa_interop::relay::UdpRelay;
use homa_interop::skip;
use homa_interop::streams::{self, StreamServer};
use homa_interop::wire::{Uri, Wire};

const LOSSY: Disturbance = Disturbance {
    lost_permille: 50,
    doubled_permille: 0,
    late_permille: 0,
};

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

/// Runs a check over both wires through a network, over IPv4 and IPv6.
async fn across(
    test: &str,
    layout: &Layout,
    check: impl AsyncFn(Ends, &Network) -> Result<(), Failure>,
) {
    let network = match Network::build(layout) {
        Ok(network) => network,
        Err(error) => return settle(test, "a network in a box", Err(error.into())),
    };
    for wire in [Wire::Udp, Wire::Homa] {
        for v6 in [false, true] {
            let ends = Ends::across(&network, wire, v6);
            let place = format!("{wire:?} through the network, IPv6: {v6}");
            settle(test, &place, check(ends, &network).await);
        }
    }
}

#[tokio::test]
async fn streams_of_all_kinds_over_every_wire_of_this_host() {
    let test = "streams_of_all_kinds_over_every_wire_of_this_host";
    for uri in [
        "homa+mem://streams",
        "homa+udp://127.0.0.1:0",
        "homa+udp://[::1]:0",
        "homa://127.0.0.1:0",
    ] {
        let ends = Ends::here(uri.parse().unwrap());
        settle(test, uri, conformance::streams(&ends).await);
    }
}

#[tokio::test]
async fn streams_pass_a_relay_that_loses_one_datagram_in_twenty() {
    let uri: Uri = "homa+udp://127.0.0.1:0".parse().unwrap();
    let ends = Ends::here(uri.clone());
    let server = StreamServer::open(&uri, &conformance::patient())
        .await
        .unwrap();
    let peer = server.uri().resolve().await.unwrap();
    let relay = UdpRelay::start(peer, LOSSY, LOSSY, 11).await.unwrap();
    let uri = Uri::new(Wire::Udp, relay.addr());
    let client = streams::client(&uri, &conformance::patient()).unwrap();
    conformance::streams_through(&ends, client).await.unwrap();
    assert!(relay.disturbed().lost > 100, "{:?}", relay.disturbed());
}

#[tokio::test]
async fn streams_cross_a_network_that_loses_packets() {
    let test = "streams_cross_a_network_that_loses_packets";
    let layout = Layout {
        disturbances: vec![LOSSY; 2],
        ..Layout::default()
    };
    assert_eq!(layout.mtu, 1500);
    across(test, &layout, async |ends, network| {
        conformance::streams(&ends).await?;
        let lost = network.port_counters(0)?.lost + network.port_counters(1)?.lost;
        assert!(lost > 0, "nothing was lost");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn both_ends_of_streams_notice_that_they_are_cut_off() {
    let test = "both_ends_of_streams_notice_that_they_are_cut_off";
    across(test, &Layout::default(), async |ends, network| {
        conformance::stream_death(&ends, network, 0).await?;
        conformance::stream_death(&ends, network, 1).await
    })
    .await;
}
