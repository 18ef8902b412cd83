//! On loopback.

use std::future::poll_fn;
use std::task::Poll;

use socket2::{Domain, Type};

use super::*;
use crate::link::Link;
use crate::message::Message;
use crate::units::{Priority, RpcId};
use crate::wire::{Busy, Header, Packet, emit};

fn bind(addr: &str) -> UdpLink {
    UdpLink::bind(addr.parse().unwrap(), &UdpOptions::default()).unwrap()
}

fn packet(to: SocketAddr, priority: Priority, payload: Vec<u8>) -> Transmit {
    let header = Header {
        source_port: 1,
        destination_port: 2,
        sender_id: RpcId::new(4),
    };
    Transmit {
        to,
        from: None,
        priority,
        header: emit(&header, &Packet::Busy(Busy::Unexplained)),
        payload: Message::from(payload),
    }
}

async fn receive(link: &UdpLink) -> RecvBatch {
    let mut batch = RecvBatch::new();
    poll_fn(|cx| link.poll_recv(cx, &mut batch)).await.unwrap();
    batch
}

/// The traffic class of the next datagram, as its receiver sees it.
fn traffic_class(receiver: &Socket) -> u8 {
    let (mut buffer, mut control) = ([0; 100], [0; cmsg::RECEIVE_BYTES]);
    let received = loop {
        match sys::receive(receiver, &mut buffer, &mut control, 0) {
            Ok(received) => break received,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    };
    cmsg::messages(&control[..received.control_len])
        .find(|message| {
            matches!(
                (message.level, message.kind),
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            )
        })
        .unwrap()
        .data[0]
}

#[tokio::test]
async fn the_receiver_sees_the_priority_of_each_packet() {
    for (sender, ip) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.1:0"),
        ("[::]:0", "[::1]:0"),
    ] {
        let sender = bind(sender);
        let at: SocketAddr = ip.parse().unwrap();
        let receiver = Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap();
        let (level, name) = match at {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        };
        sys::set_option(&receiver, level, name, 1).unwrap();
        receiver.bind(&at.into()).unwrap();
        let to = local_address(&receiver).unwrap();
        for level in [7, 0, 3] {
            let priority = Priority::new(level).unwrap();
            assert_eq!(sender.send(&[packet(to, priority, Vec::new())]).unwrap(), 1);
            assert_eq!(traffic_class(&receiver), level << 5, "{to}");
        }
    }
}

#[tokio::test]
async fn a_way_narrower_than_assumed_shrinks_later_packets_and_loses_none() {
    let (sender, receiver) = (bind("[::1]:0"), bind("[::1]:0"));
    let to = receiver.local_addr();
    assert_eq!(sender.packet_bytes_max(to), 8952);
    // The socket's own limit has the effect of a narrow path.
    sys::set_option(
        sender.socket.socket(),
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU,
        1400,
    )
    .unwrap();

    let long = packet(to, Priority::HIGHEST, vec![1; 8000]);
    let short = packet(to, Priority::HIGHEST, vec![2; 1000]);
    let batch = [long.clone(), short.clone(), long.clone()];
    assert_eq!(sender.send(&batch).unwrap(), 3);
    let mut arrived = Vec::new();
    while arrived.len() < 3 {
        let batch = receive(&receiver).await;
        arrived.extend(batch.iter().map(|(_, bytes)| bytes.to_vec()));
    }
    arrived.sort_unstable();
    let mut expected = batch.map(|packet| packet.to_vec());
    expected.sort_unstable();
    assert!(arrived == expected);
    assert_eq!(sender.packet_bytes_max(to), 1400 - 48);

    let reported = poll_fn(|cx| Poll::Ready(sender.poll_recv(cx, &mut RecvBatch::new()))).await;
    assert!(reported.is_pending(), "the peer is not unreachable");
}

#[tokio::test]
async fn the_receive_buffer_is_what_the_system_grants() {
    let options = UdpOptions {
        receive_buffer_bytes: usize::MAX,
        send_buffer_bytes: 0,
    };
    let link = UdpLink::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let granted = link.receive_buffer_bytes();
    assert!((2048..=1 << 30).contains(&granted), "{granted}");
}

#[tokio::test]
async fn packets_to_many_peers_share_system_calls() {
    let sender = bind("127.0.0.1:0");
    let receivers = [(); 64].map(|()| bind("127.0.0.1:0"));
    // To each a message of one packet, and to every fourth one of several.
    let mut batch = Vec::new();
    for (number, receiver) in receivers.iter().enumerate() {
        let copies = if number % 4 == 0 { 3 } else { 1 };
        for copy in 0..copies {
            let payload = vec![u8::try_from(number).unwrap(); 100 + copy];
            batch.push(packet(receiver.local_addr(), Priority::HIGHEST, payload));
        }
    }
    assert_eq!(sender.send(&batch).unwrap(), batch.len());
    let calls = sender.system_calls().send;
    assert!(
        calls <= 4,
        "{calls} system calls for {} packets",
        batch.len()
    );
    for (number, receiver) in receivers.iter().enumerate() {
        let expected = batch
            .iter()
            .filter(|packet| packet.to == receiver.local_addr());
        let expected: Vec<_> = expected.map(Transmit::to_vec).collect();
        let mut arrived = Vec::new();
        while arrived.len() < expected.len() {
            let batch = receive(receiver).await;
            arrived.extend(batch.iter().map(|(_, bytes)| bytes.to_vec()));
        }
        assert!(arrived == expected, "receiver {number}");
    }
}

#[tokio::test]
async fn one_peer_that_cannot_be_reached_stops_no_other() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = |to| packet(to, Priority::HIGHEST, vec![1; 10]);
    // The system refuses to send to the second; the third is of a family that the socket does not have.
    let batch = [
        to(receiver.local_addr()),
        to("255.255.255.255:4000".parse().unwrap()),
        to("[::1]:4000".parse().unwrap()),
        to(receiver.local_addr()),
    ];
    assert_eq!(sender.send(&batch).unwrap(), batch.len());
    let mut arrived = 0;
    while arrived < 2 {
        arrived += receive(&receiver).await.packets.len();
    }
    assert_eq!(arrived, 2);
    let reported = receive(&sender).await.unreachable;
    assert!(
        reported.iter().any(|report| report.peer == batch[2].to),
        "{reported:?}"
    );
}

#[tokio::test]
async fn a_packet_that_the_device_never_takes_holds_up_the_others_once() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    // As after a packet that found the device full and was not tried again yet.
    sender.socket.device_full.store(true, Ordering::Relaxed);
    poll_fn(|cx| sender.poll_writable(cx)).await.unwrap();
    let next = packet(receiver.local_addr(), Priority::HIGHEST, Vec::new());
    assert_eq!(sender.send(&[next]).unwrap(), 1);
    assert!(!sender.socket.device_full.load(Ordering::Relaxed));
    assert_eq!(receive(&receiver).await.packets.len(), 1);
}
