//! Sockets over raw IP: between network namespaces that the tests make themselves, and over loopback.
//! Needs root; without it each test says that it is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test binary"
)]

mod netns;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use homa_transport::transport::{Incoming, call};
use homa_transport::{
    Backend, BindError, Config, Delivery, Message, RpcError, Socket, Transport, Unreachable,
};

use self::netns::Host;

const PORT: u16 = 4_000;

fn server(host: &Host, addr: &str) -> Socket {
    let addr: SocketAddr = addr.parse().unwrap();
    host.block_on(async move { Socket::raw(addr, Config::default()).unwrap() })
}

fn client(host: &Host) -> Socket {
    host.block_on(async { Socket::raw_client(Config::default()).unwrap() })
}

/// Answers every request with its own bytes, reversed.
fn serve_reversed(socket: &Socket) {
    let reverse = |incoming: Incoming| {
        let mut bytes = incoming.message.to_vec();
        bytes.reverse();
        incoming.responder.respond(bytes.into()).unwrap();
    };
    socket.serve(Arc::new(reverse)).unwrap();
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 7 + (i >> 8) * 13 + salt) % 251).unwrap())
        .collect()
}

fn reversed(bytes: &[u8]) -> Bytes {
    bytes.iter().rev().copied().collect()
}

async fn ask(
    socket: &Socket,
    addr: SocketAddr,
    request: impl Into<Message>,
) -> Result<Bytes, RpcError> {
    call(Arc::new(socket.clone()), addr, request.into()).await
}

/// Makes a call of `len` bytes and checks the answer.
async fn echo(socket: Socket, addr: SocketAddr, len: usize) {
    let request = pattern(len, len);
    let response = ask(&socket, addr, request.clone()).await.unwrap();
    assert!(response == reversed(&request), "{addr}, {len} bytes");
}

#[test]
fn loopback_carries_every_size() {
    needs_root!();
    let host = Host::new();
    for (listen, to) in [
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("[::1]:4001", "[::1]:4001"),
        ("[::]:4002", "127.0.0.1:4002"),
    ] {
        let server = server(&host, listen);
        serve_reversed(&server);
        let client = client(&host);
        let to: SocketAddr = to.parse().unwrap();
        for len in [1, 100, 40_000, 40_001, 65_400, 65_500, 999_999, 1_000_000] {
            host.block_on(echo(client.clone(), to, len));
        }
        assert_eq!(client.stats().backend, Some(Backend::Raw));
        assert_eq!(client.stats().wrong_port, 0);
    }
}
