//! A system that refuses to send for a while, and addresses that belong to an interface: between network
//! namespaces, over UDP and raw sockets. Needs root; without it each test says that it is skipped.
#![allow(clippy::unwrap_used, reason = "a test binary")]

#[allow(dead_code, reason = "other tests use more of it")]
mod netns;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use homa_transport::transport::{Incoming, call};
use homa_transport::{BindError, Config, Delivery, RpcError, Socket, Transport, Unreachable};
use tokio::sync::mpsc;

use self::netns::Host;

type Open = fn(SocketAddr, Config) -> Result<Socket, BindError>;
type OpenClient = fn(Config) -> Result<Socket, BindError>;

const WIRES: [(&str, Open, OpenClient); 2] = [
    ("udp", Socket::udp, Socket::udp_client),
    ("raw", Socket::raw, Socket::raw_client),
];

/// Nobody gives up while `ip` does its work, or the machine's.
fn patient() -> Config {
    Config {
        timeout: Duration::from_secs(60),
        delivered_memory: Duration::from_secs(60),
        ..Config::default()
    }
}

async fn ask(socket: Socket, addr: SocketAddr) -> Result<bytes::Bytes, RpcError> {
    call(Arc::new(socket), addr, b"question"[..].into()).await
}

/// Waits until the socket, which has a call to answer, has tried to send some more packets.
async fn tries_to_send(socket: Socket) {
    let before = socket.stats().send_system_calls;
    while socket.stats().send_system_calls < before + 5 {
        assert_eq!(socket.stats().rpcs_live, 1, "the call is given up");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_server_that_may_not_send_for_a_while_keeps_the_calls_of_its_clients() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    for (refusal, own, client_ip) in [
        ("prohibit", "10.0.0.2:4000", "10.0.0.1/32"),
        ("unreachable", "10.0.0.2:4000", "10.0.0.1/32"),
        ("prohibit", "[fd00::2]:4000", "fd00::1/128"),
    ] {
        for (wire, open, open_client) in WIRES {
            let addr: SocketAddr = own.parse().unwrap();
            let (taken, mut requests) = mpsc::channel::<Incoming>(4);
            let server = there.block_on(async move {
                let server = open(addr, patient()).unwrap();
                let sink = move |incoming| drop(taken.try_send(incoming));
                server.serve(Arc::new(sink)).unwrap();
                server
            });
            let client = here.block_on(async move { open_client(patient()).unwrap() });
            let asked = here.spawn(ask(client, addr));
            let request = there.block_on(async move { requests.recv().await.unwrap() });
            // The client asks how its call is, and the server's system does not let it answer.
            there.ip(&format!("route add {refusal} {client_ip}"));
            there.block_on(tries_to_send(server.clone()));
            there.ip(&format!("route del {refusal} {client_ip}"));
            there.block_on(async move { request.responder.respond(b"answer"[..].into()).unwrap() });
            let outcome = here.block_on(async move { asked.await.unwrap() });
            assert_eq!(outcome.unwrap(), &b"answer"[..], "{wire}, {refusal}");
            server.close();
        }
    }
}

#[test]
fn a_client_that_may_not_send_hears_of_it_at_once() {
    needs_root!();
    let [here, _there] = Host::pair(1500);
    here.ip("route add prohibit 10.0.0.2/32");
    for (wire, _, open_client) in WIRES {
        let client = here.block_on(async move { open_client(patient()).unwrap() });
        let addr: SocketAddr = "10.0.0.2:4000".parse().unwrap();
        let error = here.block_on(ask(client, addr)).unwrap_err();
        let expected = RpcError::Unreachable {
            peer: addr,
            reason: Unreachable::Denied,
            delivery: Delivery::NotSent,
        };
        assert_eq!(error, expected, "{wire}");
    }
}

#[test]
fn link_local_addresses_work_with_their_zone_and_are_refused_without() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    // Made of the link address of `Host::pair`.
    let with_zone = |host: &Host| {
        // It comes some time after the interface is up, and counts some time after that.
        host.wait_until("-6 -o addr show dev eth scope link", |shown| {
            shown.contains("fe80::") && !shown.contains("tentative")
        });
        host.block_on(async {
            let mut found = ("fe80::ff:fe00:2%eth", 4000).to_socket_addrs().unwrap();
            found.next().unwrap()
        })
    };
    let (mut addr, zoned) = (with_zone(&here), with_zone(&there));
    for (wire, open, open_client) in WIRES {
        for mut own in [zoned, "[::]:0".parse().unwrap()] {
            // Another port each time: a program that another test starts holds copies of our sockets for
            // a moment.
            addr.set_port(addr.port() + 1);
            own.set_port(addr.port());
            let server = there.block_on(async move {
                let server = open(own, patient()).unwrap();
                let echo = |incoming: Incoming| {
                    incoming.responder.respond(incoming.message.into()).unwrap();
                };
                server.serve(Arc::new(echo)).unwrap();
                server
            });
            let client = here.block_on(async move { open_client(patient()).unwrap() });
            let answer = here.block_on(ask(client.clone(), addr)).unwrap();
            assert_eq!(answer, &b"question"[..], "{wire}, server on {own}");

            let mut without = addr;
            if let SocketAddr::V6(v6) = &mut without {
                v6.set_scope_id(0);
            }
            let sent = client.stats().packets_sent;
            let error = here.block_on(ask(client.clone(), without)).unwrap_err();
            assert!(matches!(error, RpcError::BadAddress { .. }), "{error}");
            assert!(error.to_string().contains("interface"), "{error}");
            assert_eq!(client.stats().packets_sent, sent, "nothing is sent");
            server.close();
            let error = there.block_on(async move { open(without, patient()).unwrap_err() });
            assert!(matches!(error, BindError::NoZone { .. }), "{wire}: {error}");
        }
    }
}
