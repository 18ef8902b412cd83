//! The network in a box does what it says, with homa+udp on it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use homa_interop::echo::{EchoClient, EchoServer, request};
use homa_interop::network::{Layout, Network, NetworkError};
use homa_interop::skip;
use homa_interop::wire::{Uri, Wire};
use homa_transport::Config;

/// The network, or `None` where there cannot be one.
fn build(test: &str, layout: &Layout) -> Option<Network> {
    match Network::build(layout) {
        Ok(network) => Some(network),
        Err(NetworkError::Unavailable(reason)) => {
            skip::report(test, reason);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_echo_crosses_the_switch_over_both_families() {
    let test = "an_echo_crosses_the_switch_over_both_families";
    let Some(network) = build(test, &Layout::default()) else {
        return;
    };
    for ip in [network.host(0).v4(), network.host(0).v6()] {
        let uri = Uri::new(Wire::Udp, (ip, 0).into());
        let server = network
            .host(0)
            .spawn(async move { EchoServer::open(&uri, &Config::default()).await });
        let server = server.await.unwrap().unwrap();
        let uri = server.uri().clone();
        let before = network.port_counters(0).unwrap();
        let echoed = network.host(1).spawn(async move {
            let client = EchoClient::open(&uri, &Config::default()).await.unwrap();
            client.call(request(1, 100_000)).await
        });
        assert!(echoed.await.unwrap().unwrap() == request(1, 100_000));
        let crossed = network.port_counters(0).unwrap().since(&before);
        assert!(crossed.bytes.iter().sum::<u64>() > 100_000, "{crossed:?}");
        eprintln!("{crossed:?}");
    }
}
