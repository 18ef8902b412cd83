//! The links as their users see them: packets in, packets and reports out.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use homa_transport::endpoint::Transmit;
use homa_transport::link::mem::MemLink;
use homa_transport::link::udp::{UdpLink, UdpOptions};
use homa_transport::link::{Link, RecvBatch};
use homa_transport::units::{Priority, RpcId};
use homa_transport::wire::{Busy, DATA_HEADER_BYTES, Data, Header, HeaderBytes, Packet, emit};
use homa_transport::{BindError, Message, Unreachable};

/// Length of the shortest header, in bytes.
const HEADER: usize = 28;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn try_bind(addr: SocketAddr) -> Result<UdpLink, BindError> {
    UdpLink::bind(addr, &UdpOptions::default())
}

fn bind(text: &str) -> UdpLink {
    try_bind(addr(text)).unwrap()
}

fn header() -> HeaderBytes {
    let header = Header {
        source_port: 1,
        destination_port: 2,
        sender_id: RpcId::new(4),
    };
    emit(&header, &Packet::Busy(Busy::Unexplained))
}

fn packet(to: SocketAddr, payload: impl Into<Message>) -> Transmit {
    Transmit {
        to,
        from: None,
        priority: Priority::HIGHEST,
        header: header(),
        payload: payload.into(),
    }
}

#[derive(Debug)]
struct Received {
    peer: SocketAddr,
    local: IpAddr,
    bytes: Vec<u8>,
}

impl Received {
    fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }
}

#[derive(Debug, Default)]
struct Inflow {
    packets: Vec<Received>,
    reports: Vec<(SocketAddr, Unreachable)>,
}

impl Inflow {
    fn add(&mut self, batch: &RecvBatch) {
        assert!(!batch.is_empty(), "ready without an entry");
        assert!(batch.packets.len() <= RecvBatch::PACKETS_MAX);
        let reports = batch.unreachable.iter();
        self.reports
            .extend(reports.map(|report| (report.peer, report.reason)));
        for (meta, bytes) in batch.iter() {
            assert_eq!(meta.range.len(), bytes.len());
            self.packets.push(Received {
                peer: meta.peer,
                local: meta.local,
                bytes: bytes.to_vec(),
            });
        }
    }
}

/// What comes until there are at least so many packets and reports.
async fn receive(link: &dyn Link, packets: usize, reports: usize) -> Inflow {
    let mut inflow = Inflow::default();
    let mut batch = RecvBatch::new();
    while inflow.packets.len() < packets || inflow.reports.len() < reports {
        batch.clear();
        poll_fn(|cx| link.poll_recv(cx, &mut batch)).await.unwrap();
        inflow.add(&batch);
    }
    inflow
}

async fn receive_one(link: &dyn Link) -> Received {
    let mut inflow = receive(link, 1, 0).await;
    assert_eq!((inflow.packets.len(), inflow.reports.len()), (1, 0));
    inflow.packets.pop().unwrap()
}

async fn send_all(link: &dyn Link, mut rest: &[Transmit]) {
    loop {
        rest = &rest[link.send(rest).unwrap()..];
        if rest.is_empty() {
            return;
        }
        poll_fn(|cx| link.poll_writable(cx)).await.unwrap();
    }
}

/// A port that refuses packets, and that no other test is given meanwhile: its socket listens to
/// one peer alone.
struct ClosedPort(UdpSocket);

impl ClosedPort {
    fn new(ip: &str) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect((ip, 9)).unwrap();
        Self(socket)
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request from `client` to `to`, and the answer to where it came from, from where it went to.
async fn exchange(client: &dyn Link, server: &dyn Link, to: SocketAddr) {
    send_all(client, &[packet(to, &b"request"[..])]).await;
    let request = receive_one(server).await;
    assert_eq!(&request.bytes[..HEADER], header().as_slice());
    assert_eq!(request.payload(), b"request");
    assert_eq!(request.local, to.ip());

    let response = Transmit {
        from: Some(request.local),
        ..packet(request.peer, &b"response"[..])
    };
    send_all(server, &[response]).await;
    let response = receive_one(client).await;
    assert_eq!(response.payload(), b"response");
    assert_eq!(response.peer, to, "must come from where the request went");
    assert_eq!(response.local, request.peer.ip());
}

#[tokio::test]
async fn udp_exchanges_packets_over_ipv4_and_ipv6() {
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let (client, server) = (bind(ip), bind(ip));
        exchange(&client, &server, server.local_addr()).await;
    }
}

/// A message in one packet.
fn message(to: SocketAddr, bytes: &[u8]) -> Transmit {
    let ids = Header {
        source_port: 1,
        destination_port: 2,
        sender_id: RpcId::new(4),
    };
    let data = Data {
        message_length: u32::try_from(bytes.len()).unwrap(),
        incoming: 0,
        ack: None,
        cutoff_version: 0,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    Transmit {
        header: emit(&ids, &Packet::Data(data, bytes)),
        ..packet(to, bytes.to_vec())
    }
}

#[tokio::test]
async fn messages_of_different_lengths_leave_at_once_padded_to_the_longest() {
    let (client, server) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let lengths = [40usize, 100, 7, 100, 60];
    let batch: Vec<_> = lengths
        .iter()
        .map(|len| message(server.local_addr(), &vec![9; *len]))
        .collect();
    send_all(&client, &batch).await;
    assert_eq!(client.system_calls().send, 1);
    let inflow = receive(&server, lengths.len(), 0).await;
    for (index, (received, len)) in inflow.packets.iter().zip(lengths).enumerate() {
        let data = &received.bytes[DATA_HEADER_BYTES..];
        let last = index + 1 == lengths.len();
        assert_eq!(data.len(), if last { len } else { 100 });
        assert!(data[..len].iter().all(|byte| *byte == 9));
        assert!(data[len..].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test]
async fn looking_for_packets_neither_waits_nor_loses_any() {
    let (client, server) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let mut batch = RecvBatch::new();
    assert!(server.can_busy_poll());
    server.try_recv(&mut batch).unwrap();
    assert!(batch.is_empty());
    send_all(&client, &[packet(server.local_addr(), &b"one"[..])]).await;
    while batch.is_empty() {
        server.try_recv(&mut batch).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(batch.packets.len(), 1);
    send_all(&client, &[packet(server.local_addr(), &b"two"[..])]).await;
    assert_eq!(receive_one(&server).await.payload(), b"two");
}

#[tokio::test]
async fn the_ipv6_wildcard_serves_both_families_and_shows_ipv4_peers_as_such() {
    let server = bind("[::]:0");
    let port = server.local_addr().port();
    for (client, ip) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.2"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.3"),
        ("[::]:0", "::1"),
    ] {
        let to = SocketAddr::new(ip.parse().unwrap(), port);
        exchange(&bind(client), &server, to).await;
    }
}

#[tokio::test]
async fn the_ipv4_wildcard_answers_from_the_address_that_was_asked() {
    let (client, server) = (bind("127.0.0.1:0"), bind("0.0.0.0:0"));
    let to = SocketAddr::new("127.0.0.2".parse().unwrap(), server.local_addr().port());
    exchange(&client, &server, to).await;
}

#[tokio::test]
async fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let (client, server) = (bind("127.0.0.1:0"), bind("[::ffff:127.0.0.1]:0"));
    assert!(server.local_addr().is_ipv4());
    let mapped = format!("[::ffff:127.0.0.1]:{}", server.local_addr().port());
    send_all(&client, &[packet(addr(&mapped), &b"x"[..])]).await;
    assert_eq!(receive_one(&server).await.peer, client.local_addr());
}

#[tokio::test]
async fn a_closed_port_is_reported_for_its_peer_alone_and_the_other_packets_arrive() {
    for ip in ["127.0.0.1", "::1"] {
        let any_port = SocketAddr::new(ip.parse().unwrap(), 0);
        let (sender, receiver) = (try_bind(any_port).unwrap(), try_bind(any_port).unwrap());
        let closed = [ClosedPort::new(ip), ClosedPort::new(ip)];
        let [dead, also_dead] = closed.each_ref().map(ClosedPort::addr);
        let alive = receiver.local_addr();
        for round in 0..50u8 {
            let batch = [dead, alive, also_dead, alive, alive]
                .map(|to| packet(to, Message::from(vec![round])));
            send_all(&sender, &batch).await;
        }
        let inflow = receive(&receiver, 150, 0).await;
        let rounds: Vec<u8> = inflow.packets.iter().map(|got| got.payload()[0]).collect();
        let expected: Vec<u8> = (0..50).flat_map(|round| [round; 3]).collect();
        assert_eq!(rounds, expected);

        let mut reports = receive(&sender, 0, 2).await.reports;
        reports.sort_by_key(|(peer, _)| *peer);
        reports.dedup();
        let mut expected = [(dead, Unreachable::Port), (also_dead, Unreachable::Port)];
        expected.sort_by_key(|(peer, _)| *peer);
        assert_eq!(reports, expected);
    }
}

#[tokio::test]
async fn a_closed_ipv4_port_is_reported_by_a_dual_stack_socket() {
    let sender = bind("[::]:0");
    let closed = ClosedPort::new("127.0.0.1");
    let dead = closed.addr();
    send_all(&sender, &[packet(dead, &b"x"[..])]).await;
    let reports = receive(&sender, 0, 1).await.reports;
    assert_eq!(reports, [(dead, Unreachable::Port)]);
}

#[tokio::test]
async fn an_error_wakes_the_receiver_once_and_leaves_it_asleep() {
    let sender = Arc::new(bind("127.0.0.1:0"));
    let waiting = tokio::spawn({
        let sender = Arc::clone(&sender);
        async move { receive(&*sender, 0, 1).await.reports }
    });
    tokio::task::yield_now().await;
    let closed = ClosedPort::new("127.0.0.1");
    let dead = closed.addr();
    send_all(&*sender, &[packet(dead, &b"x"[..])]).await;
    assert_eq!(waiting.await.unwrap(), [(dead, Unreachable::Port)]);

    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut batch = RecvBatch::new();
    let poll = sender.poll_recv(&mut Context::from_waker(&waker), &mut batch);
    assert!(poll.is_pending(), "{batch:?}");
    // The runtime looks at its sockets many times before two others are through with this.
    let (client, server) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    for _ in 0..100 {
        exchange(&client, &server, server.local_addr()).await;
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);

    send_all(&client, &[packet(sender.local_addr(), &b"wake up"[..])]).await;
    while wakes.0.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(receive_one(&*sender).await.payload(), b"wake up");
}

#[tokio::test]
async fn a_destination_of_the_other_family_is_reported_and_the_rest_is_sent() {
    let (v4, v6) = (bind("127.0.0.1:0"), bind("[::1]:0"));
    for (sender, other) in [(&v4, &v6), (&v6, &v4)] {
        let peer = try_bind(SocketAddr::new(sender.local_addr().ip(), 0)).unwrap();
        let batch = [
            packet(other.local_addr(), &b"nowhere"[..]),
            packet(peer.local_addr(), &b"here"[..]),
        ];
        assert_eq!(sender.send(&batch).unwrap(), 2);
        assert_eq!(receive_one(&peer).await.payload(), b"here");
        let reports = receive(sender, 0, 1).await.reports;
        assert_eq!(reports, [(other.local_addr(), Unreachable::Network)]);
    }
}

#[tokio::test]
async fn what_the_system_refuses_to_send_is_reported_and_the_rest_is_sent() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let no_port = addr("127.0.0.1:0");
    let foreign_source = Transmit {
        from: Some("192.0.2.99".parse().unwrap()),
        ..packet(addr("127.0.0.1:9"), &b"x"[..])
    };
    let batch = [
        packet(no_port, &b"x"[..]),
        foreign_source.clone(),
        packet(receiver.local_addr(), &b"here"[..]),
    ];
    assert_eq!(sender.send(&batch).unwrap(), batch.len());
    assert_eq!(receive_one(&receiver).await.payload(), b"here");
    let reports = receive(&sender, 0, 2).await.reports;
    // Why a foreign source address is refused differs between versions of Linux.
    let peers: Vec<SocketAddr> = reports.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [no_port, foreign_source.to]);
}

#[tokio::test]
async fn a_report_of_another_thread_wakes_the_receiver() {
    let sender = Arc::new(bind("127.0.0.1:0"));
    let nowhere = addr("[::1]:4000");
    let waiting = tokio::spawn({
        let sender = Arc::clone(&sender);
        async move { receive(&*sender, 0, 1).await.reports }
    });
    tokio::task::yield_now().await;
    let sent = std::thread::spawn(move || sender.send(&[packet(nowhere, &b"x"[..])]).unwrap());
    assert_eq!(sent.join().unwrap(), 1);
    assert_eq!(waiting.await.unwrap(), [(nowhere, Unreachable::Network)]);
}

#[tokio::test]
async fn a_second_socket_on_the_port_fails_and_the_error_names_it() {
    let first = bind("127.0.0.1:0");
    let taken = first.local_addr();
    for ip in ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
        let again = SocketAddr::new(ip.parse().unwrap(), taken.port());
        let error = try_bind(again).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&taken.port().to_string()), "{text}");
    }
    let neighbour = SocketAddr::new("127.0.0.2".parse().unwrap(), taken.port());
    let neighbour = try_bind(neighbour).unwrap();
    exchange(&first, &neighbour, neighbour.local_addr()).await;
    drop(first);
    try_bind(taken).unwrap();
}

#[tokio::test]
async fn an_address_of_another_host_cannot_be_bound() {
    let error = try_bind(addr("192.0.2.99:0")).unwrap_err();
    assert!(
        matches!(&error, BindError::Io { source, .. }
            if source.kind() == io::ErrorKind::AddrNotAvailable),
        "{error:?}"
    );
}

#[test]
fn udp_outside_a_runtime_is_an_error() {
    let error = try_bind(addr("127.0.0.1:0")).unwrap_err();
    assert!(matches!(error, BindError::NoRuntime), "{error:?}");
}

#[tokio::test]
async fn more_packets_than_a_batch_holds_arrive_in_several() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = receiver.local_addr();
    let batch: Vec<Transmit> = (0..600u32)
        .map(|index| packet(to, index.to_be_bytes().to_vec()))
        .collect();
    send_all(&sender, &batch).await;
    let inflow = receive(&receiver, 600, 0).await;
    for (index, got) in (0..).zip(&inflow.packets) {
        assert_eq!(got.payload(), u32::to_be_bytes(index));
    }
}

#[tokio::test]
async fn datagrams_of_every_length_arrive_whole() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    // 65,507 bytes is the longest datagram of IPv4; 20 of them are more than a batch.
    let lengths = [0, 1, 1444, 8944, 60_000].into_iter();
    let lengths: Vec<usize> = lengths.chain([65_507 - HEADER; 20]).collect();
    let mut batch = Vec::new();
    for (len, fill) in lengths.iter().zip(0..) {
        batch.push(packet(receiver.local_addr(), vec![fill; *len]));
    }
    send_all(&sender, &batch).await;
    let inflow = receive(&receiver, batch.len(), 0).await;
    for (got, sent) in inflow.packets.iter().zip(&batch) {
        assert!(got.bytes == sent.to_vec(), "{} bytes", sent.len());
    }
}

#[tokio::test]
async fn a_packet_longer_than_any_datagram_is_reported() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = receiver.local_addr();
    let too_long = packet(to, vec![0; 65_508 - HEADER]);
    let batch = [too_long, packet(to, &b"next"[..])];
    assert_eq!(sender.send(&batch).unwrap(), 2);
    assert_eq!(receive_one(&receiver).await.payload(), b"next");
    let reports = receive(&sender, 0, 1).await.reports;
    assert_eq!(reports, [(to, Unreachable::Denied)]);
}

#[tokio::test]
async fn a_packet_of_many_slices_is_sent_as_one() {
    let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    for count in [1, 2, 15, 16, 17, 2000] {
        let message: Message = (0..count).map(|_| Bytes::from_static(b"ab")).collect();
        send_all(&sender, &[packet(receiver.local_addr(), message)]).await;
        assert_eq!(receive_one(&receiver).await.payload(), b"ab".repeat(count));
    }
}

#[tokio::test]
async fn an_empty_datagram_is_a_packet_without_bytes() {
    let receiver = bind("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 3, 0] {
        let datagram = vec![7; len];
        socket.send_to(&datagram, receiver.local_addr()).unwrap();
    }
    let inflow = receive(&receiver, 3, 0).await;
    let lengths: Vec<usize> = inflow.packets.iter().map(|got| got.bytes.len()).collect();
    assert_eq!(lengths, [0, 3, 0]);
    assert_eq!(inflow.packets[0].peer, socket.local_addr().unwrap());
}

#[tokio::test]
async fn packets_beyond_the_receive_buffer_are_counted() {
    let options = UdpOptions {
        receive_buffer_bytes: 20_000,
        ..UdpOptions::default()
    };
    let receiver = UdpLink::bind(addr("127.0.0.1:0"), &options).unwrap();
    assert_eq!(receiver.receive_buffer_bytes(), 20_000);
    let sender = bind("127.0.0.1:0");
    // One by one: a train that is dropped counts once.
    for _ in 0..200 {
        let single = [packet(receiver.local_addr(), vec![0; 1000])];
        send_all(&sender, &single).await;
    }
    let mut received = 0;
    while received + receiver.receive_drops() < 200 {
        received += receive(&receiver, 1, 0).await.packets.len() as u64;
    }
    assert!(receiver.receive_drops() > 0);
    assert_eq!(received + receiver.receive_drops(), 200);
}

#[tokio::test]
async fn an_idle_udp_link_can_be_written_to() {
    let link = bind("127.0.0.1:0");
    poll_fn(|cx| link.poll_writable(cx)).await.unwrap();
}

#[tokio::test]
async fn mem_exchanges_packets_by_name() {
    let name = "mem_exchanges_packets_by_name";
    assert_eq!(MemLink::resolve(name), None);
    let server = MemLink::listen(name).unwrap();
    let client = MemLink::client();
    let to = MemLink::resolve(name).unwrap();
    assert_eq!(to, server.local_addr());
    assert_ne!(to, client.local_addr());
    exchange(&client, &server, to).await;
    exchange(&client, &client, client.local_addr()).await;
}

#[test]
fn a_mem_name_has_one_listener_until_it_is_dropped() {
    let name = "a_mem_name_has_one_listener";
    let first = MemLink::listen(name).unwrap();
    let error = MemLink::listen(name).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert_eq!(MemLink::resolve(name), Some(first.local_addr()));
    let old = first.local_addr();
    drop(first);
    assert_eq!(MemLink::resolve(name), None);
    let second = MemLink::listen(name).unwrap();
    assert_ne!(second.local_addr(), old, "addresses are not used twice");
}

#[tokio::test]
async fn a_dropped_mem_peer_and_a_strange_address_are_reported() {
    let client = MemLink::client();
    let server = MemLink::client();
    let gone = server.local_addr();
    drop(server);
    let alive = MemLink::client();
    let strange = addr("127.0.0.1:4000");
    let batch = [gone, alive.local_addr(), strange].map(|to| packet(to, &b"x"[..]));
    assert_eq!(client.send(&batch).unwrap(), 3);
    assert_eq!(receive_one(&alive).await.peer, client.local_addr());
    let reports = receive(&client, 0, 2).await.reports;
    let expected = [gone, strange].map(|peer| (peer, Unreachable::Port));
    assert_eq!(reports, expected);
}

#[tokio::test]
async fn a_mem_link_that_nobody_reads_stays_bounded_and_counts() {
    let (client, server) = (MemLink::client(), MemLink::client());
    let one = packet(server.local_addr(), vec![0; 8972 - HEADER]);
    assert_eq!(client.packet_bytes_max(server.local_addr()), one.len());
    let batch = vec![one; 1000];
    assert_eq!(client.send(&batch).unwrap(), 1000);
    let drops = server.receive_drops();
    assert!((1..1000).contains(&drops), "{drops}");
    let kept = 1000 - usize::try_from(drops).unwrap();
    assert_eq!(receive(&server, kept, 0).await.packets.len(), kept);
    // Once read, there is room again.
    send_all(&client, &batch[..1]).await;
    receive_one(&server).await;

    let too_long = packet(server.local_addr(), vec![0; 8973 - HEADER]);
    assert_eq!(client.send(&[too_long]).unwrap(), 1);
    assert_eq!(server.receive_drops(), drops + 1);
}

#[test]
fn mem_needs_no_runtime_and_wakes_across_threads() {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    const ROUNDS: u32 = 2_000;
    let (client, server) = (MemLink::client(), MemLink::client());
    let (client_addr, server_addr) = (client.local_addr(), server.local_addr());
    let receive_parked = |link: &MemLink| {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut batch = RecvBatch::new();
        let mut cx = Context::from_waker(&waker);
        while link.poll_recv(&mut cx, &mut batch).is_pending() {
            std::thread::park();
        }
        assert_eq!(batch.packets.len(), 1);
    };
    // Each end sleeps until the other has sent: a lost wake-up would be the end.
    let echo = std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            receive_parked(&server);
            server.send(&[packet(client_addr, &b"x"[..])]).unwrap();
        }
        server
    });
    for _ in 0..ROUNDS {
        client.send(&[packet(server_addr, &b"x"[..])]).unwrap();
        receive_parked(&client);
    }
    assert_eq!(echo.join().unwrap().receive_drops(), 0);
}

#[tokio::test]
async fn equal_packets_go_in_few_system_calls_and_arrive_one_by_one() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (sender, receiver) = (bind(address), bind(address));
        let mut batch: Vec<_> = (0..60_u8)
            .map(|i| packet(receiver.local_addr(), vec![i; 1_000]))
            .collect();
        batch.push(packet(receiver.local_addr(), vec![60; 10]));
        batch.push(packet(receiver.local_addr(), vec![61; 20]));
        send_all(&sender, &batch).await;
        assert!(
            sender.system_calls().send <= 3,
            "{:?}",
            sender.system_calls()
        );
        let received = receive(&receiver, batch.len(), 0).await;
        for (sent, packet) in batch.iter().zip(&received.packets) {
            assert_eq!(packet.bytes, sent.to_vec());
            assert_eq!(packet.peer, sender.local_addr());
            assert_eq!(packet.local, receiver.local_addr().ip());
        }
        let calls = receiver.system_calls().receive;
        assert!(
            calls < 20,
            "{calls} system calls for {} packets",
            batch.len()
        );
    }
}
