//! On loopback, beside other raw sockets of this host. Needs CAP_NET_RAW, without which each test says that
//! it is skipped.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::error::Unreachable;
use crate::link::Link;
use crate::message::Message;
use crate::socket::Socket;
use crate::transport::{Incoming, Transport, call};
use crate::units::{Priority, RpcId};
use crate::wire::{self, Data, Header, Packet};

/// A link on a free port, or the reason why there can be none here.
fn link(ip: IpAddr) -> Option<RawLink> {
    match RawLink::bind(SocketAddr::new(ip, 0)) {
        Ok(link) => Some(link),
        Err(error @ (BindError::RawNotPermitted { .. } | BindError::ModuleLoaded)) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

fn data(from: &RawLink, to: SocketAddr, payload: Message) -> Transmit {
    let header = Header {
        source_port: from.local_addr().port(),
        destination_port: to.port(),
        sender_id: RpcId::new(2),
    };
    let data = Data {
        message_length: 1_000_000,
        incoming: 1_000_000,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 1_000,
    };
    Transmit {
        to,
        from: None,
        priority: Priority::HIGHEST,
        header: wire::emit(&header, &Packet::Data(data, &[])),
        payload,
    }
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (salt..salt + len)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect()
}

/// The next packets that arrive, as offset and bytes of DATA, and where they came from.
async fn receive(link: &RawLink, count: usize) -> Vec<(PacketFrom, u32, Vec<u8>)> {
    let mut arrived = Vec::new();
    while arrived.len() < count {
        let mut batch = RecvBatch::new();
        poll_fn(|cx| link.poll_recv(cx, &mut batch)).await.unwrap();
        for (meta, bytes) in batch.iter() {
            let (_, Packet::Data(data, bytes)) = wire::parse(bytes).unwrap() else {
                panic!("{bytes:x?}");
            };
            arrived.push(((meta.peer, meta.local), data.offset, bytes.to_vec()));
        }
    }
    arrived
}

type PacketFrom = (SocketAddr, IpAddr);

#[tokio::test]
async fn packets_of_any_number_of_slices_arrive_whole_and_in_order() {
    for ip in LOOPBACKS {
        let (Some(sender), Some(receiver)) = (link(ip), link(ip)) else {
            return;
        };
        let to = receiver.local_addr();
        let batch: Vec<Transmit> = [1, 2, 159, 160, 500, 3, 1]
            .map(|slices| (0..slices).map(|slice| pattern(7, slice).into()))
            .map(|slices| data(&sender, to, slices.collect()))
            .to_vec();
        assert_eq!(sender.send(&batch).unwrap(), batch.len());
        let arrived = receive(&receiver, batch.len()).await;
        for (sent, ((peer, local), offset, bytes)) in batch.iter().zip(arrived) {
            assert_eq!((peer, local), (sender.local_addr(), ip));
            assert_eq!(offset, 1_000);
            assert!(bytes == sent.payload.clone().into_bytes());
        }
        assert!(
            sender.system_calls().send < batch.len() as u64,
            "they go together"
        );
        assert!(
            receiver.system_calls().receive < batch.len() as u64,
            "and come together"
        );
    }
}

#[tokio::test]
async fn a_packet_cut_in_parts_keeps_offsets_and_bytes() {
    let [ip, _] = LOOPBACKS;
    let (Some(sender), Some(receiver)) = (link(ip), link(ip)) else {
        return;
    };
    let to = receiver.local_addr();
    sender.routes.pretend_narrow(to, 1_500);
    let payload = pattern(8_001, 0);
    let packet = data(&sender, to, payload.clone().into());
    assert_eq!(sender.send(std::slice::from_ref(&packet)).unwrap(), 1);
    // 8,001 bytes are 4,000 and 4,001; these are 2,000 and so on; these are 1,000.
    let arrived = receive(&receiver, 8).await;
    let mut at = 0;
    for (_, offset, bytes) in &arrived {
        assert_eq!(*offset as usize, 1_000 + at);
        assert!(bytes.len() + 56 <= 1_480);
        assert!(payload[at..at + bytes.len()] == *bytes);
        at += bytes.len();
    }
    assert_eq!(at, payload.len());
    assert_eq!(sender.packet_bytes_max(to), 1_480);

    sender.routes.pretend_narrow(to, 76);
    assert_eq!(sender.send(&[packet]).unwrap(), 1);
    let mut batch = RecvBatch::new();
    poll_fn(|cx| sender.poll_recv(cx, &mut batch))
        .await
        .unwrap();
    let report = batch.unreachable[0];
    assert_eq!(report.peer, to);
    assert_eq!(report.reason, Unreachable::PathTooNarrow);
}

#[tokio::test]
async fn packets_too_short_for_a_port_are_counted_and_dropped() {
    for ip in LOOPBACKS {
        let (Some(sender), Some(receiver)) = (link(ip), link(ip)) else {
            return;
        };
        let to = receiver.local_addr();
        let whole = data(&sender, to, pattern(1, 0).into());
        let family = sender.sockets[0].socket();
        for len in [0, 1, 3] {
            let bytes = &whole.header.as_slice()[..len];
            family.send_to(bytes, &name(to)).unwrap();
        }
        assert_eq!(sender.send(&[whole]).unwrap(), 1);
        let arrived = receive(&receiver, 1).await;
        assert_eq!(arrived.len(), 1, "the filter keeps the others off");
    }
}

#[tokio::test]
async fn with_a_packet_in_twenty_lost_all_calls_succeed_exactly_once() {
    for ip in LOOPBACKS {
        let (Some(server), Some(client)) = (link(ip), RawLink::client().ok()) else {
            return;
        };
        for link in [&server, &client] {
            for (socket, family) in link.sockets_by_family() {
                let start = family.starts_with();
                let filter = port_filter::only_with_loss(link.local_addr().port(), 5, start);
                socket.socket().attach_filter(&filter).unwrap();
            }
        }
        // Short packets, of which many can be lost.
        server.routes.pretend_narrow(client_at(ip, &client), 1_500);
        client.routes.pretend_narrow(server.local_addr(), 1_500);
        let (to, config) = (server.local_addr(), Config::default());
        let server = Socket::over_raw(server, Vec::new(), None, config.clone()).unwrap();
        let client = Arc::new(Socket::over_raw(client, Vec::new(), None, config).unwrap());
        let echo = |incoming: Incoming| {
            incoming.responder.respond(incoming.message.into()).unwrap();
        };
        server.serve(Arc::new(echo)).unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..200usize {
            let client = Arc::clone(&client);
            calls.spawn(async move {
                let len = [10, 1_000, 30_000, 100_000][number % 4];
                let request = pattern(len, number);
                let response = call(client, to, request.clone().into()).await.unwrap();
                assert!(response == request, "call {number}");
            });
        }
        calls.join_all().await;
        assert_eq!(server.stats().requests_received, 200);
        assert!(client.stats().data_resent + server.stats().data_resent > 0);
    }
}

/// The address at which `link`, bound to any address, is reached.
fn client_at(ip: IpAddr, link: &RawLink) -> SocketAddr {
    SocketAddr::new(ip, link.local_addr().port())
}

#[tokio::test]
async fn a_packet_that_the_device_never_takes_holds_up_the_others_once() {
    let [ip, _] = LOOPBACKS;
    let (Some(sender), Some(receiver)) = (link(ip), link(ip)) else {
        return;
    };
    // As after a packet that found the device full and was not tried again yet.
    sender.sockets[0].device_full.store(true, Ordering::Relaxed);
    tokio::time::timeout(
        Duration::from_secs(60),
        poll_fn(|cx| sender.poll_writable(cx)),
    )
    .await
    .unwrap()
    .unwrap();
    let next = data(&sender, receiver.local_addr(), pattern(1, 0).into());
    assert_eq!(sender.send(&[next]).unwrap(), 1);
    assert!(!sender.sockets[0].device_full.load(Ordering::Relaxed));
    assert_eq!(receive(&receiver, 1).await.len(), 1);
}

#[tokio::test]
async fn each_shard_of_a_port_has_the_peers_of_its_addresses() {
    let config = |shards| Config {
        shards,
        timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let server = match Socket::raw(SocketAddr::new(any, 0), config(3)) {
        Ok(server) => server,
        Err(error @ (BindError::RawNotPermitted { .. } | BindError::ModuleLoaded)) => {
            return eprintln!("SKIPPED: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let port = server.local_addr().port();
    let error = Socket::raw(SocketAddr::new(any, port), config(3)).unwrap_err();
    assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
    let echo = |incoming: Incoming| {
        incoming.responder.respond(incoming.message.into()).unwrap();
    };
    server.serve(Arc::new(echo)).unwrap();
    let v4 = (1..=6).map(|last| IpAddr::from([127, 0, 0, last]));
    for ip in v4.chain([IpAddr::from(Ipv6Addr::LOCALHOST)]) {
        let to = match ip {
            IpAddr::V4(_) => LOOPBACKS[0],
            IpAddr::V6(_) => LOOPBACKS[1],
        };
        let received = || {
            server
                .stats_by_shard()
                .into_iter()
                .map(|s| s.requests_received)
        };
        let mut expected: Vec<_> = received().collect();
        let owner = match ip {
            IpAddr::V4(ip) => u32::from(ip) % 3,
            IpAddr::V6(_) => 1,
        };
        // Two ports of one address, which has its own acks sent from both.
        for _ in 0..2 {
            let caller = Arc::new(Socket::raw(SocketAddr::new(ip, 0), config(2)).unwrap());
            for len in [1, 3_000, 200_000] {
                let request = pattern(len, len);
                let answer = call(
                    Arc::clone(&caller) as Arc<dyn Transport>,
                    SocketAddr::new(to, port),
                    request.clone().into(),
                );
                assert!(answer.await.unwrap() == request);
                expected[owner as usize] += 1;
            }
        }
        assert!(
            received().eq(expected.iter().copied()),
            "{ip}: {expected:?}"
        );
    }
    let client = Arc::new(Socket::raw_client(config(3)).unwrap());
    for to in LOOPBACKS {
        let client = Arc::clone(&client) as Arc<dyn Transport>;
        let answer = call(client, SocketAddr::new(to, port), b"?".as_slice().into()).await;
        assert_eq!(answer.unwrap(), b"?".as_slice());
    }
    while server.stats().rpcs_live > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
