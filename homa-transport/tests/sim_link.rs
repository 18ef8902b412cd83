//! Sockets on the simulated network, in tokio's paused time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::link::{Link, RecvBatch};
use homa_transport::sim::{NetworkCounts, PacketFaults, SimNetwork, Topology};
use homa_transport::transport::call;
use homa_transport::{BindError, Config, RpcError, Socket, Stats, Transport, Unreachable, Wire};
use tokio::time::Instant;

const MEGABYTE: usize = 1_000_000;

fn losing(loss: u32) -> PacketFaults {
    PacketFaults {
        loss,
        ..PacketFaults::default()
    }
}

fn network(hosts: usize, faults: PacketFaults, seed: u64) -> SimNetwork {
    SimNetwork::new(Topology::single_switch(hosts, 1_000), faults, seed).unwrap()
}

fn open(network: &SimNetwork, host: usize, port: u16) -> Arc<dyn Transport> {
    open_with(network, host, port, Config::default())
}

fn open_with(network: &SimNetwork, host: usize, port: u16, config: Config) -> Arc<dyn Transport> {
    let link = network.host(host, port).unwrap();
    Arc::new(Socket::over(Arc::new(link), Wire::Encapsulated, config).unwrap())
}

fn open_echo(network: &SimNetwork, host: usize, port: u16) -> Arc<dyn Transport> {
    let socket = open(network, host, port);
    serve_echo(&socket);
    socket
}

fn serve_echo(socket: &Arc<dyn Transport>) {
    let sink = |incoming: homa_transport::Incoming| {
        let answer = incoming.message.into();
        // The client may have given up meanwhile.
        let _ = incoming.responder.respond(answer);
    };
    socket.serve(Arc::new(sink)).unwrap();
}

fn text(len: usize) -> Bytes {
    (0..len)
        .map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap())
        .collect()
}

/// Calls of all sizes at a time; returns all that could differ between two runs.
async fn echo_of_all_sizes(
    faults: PacketFaults,
    seed: u64,
) -> (NetworkCounts, Stats, Stats, Vec<Duration>) {
    let network = network(2, faults, seed);
    let (client, server) = (open(&network, 0, 0), open_echo(&network, 1, 4_000));
    let begun = Instant::now();
    let sizes = [
        1, 2, 1_000, 1_400, 1_500, 10_000, 60_000, 200_000, MEGABYTE, MEGABYTE,
    ];
    let calls = sizes.map(|len| {
        let (client, to) = (Arc::clone(&client), server.local_addr());
        tokio::spawn(async move {
            let response = call(client, to, text(len).into()).await.unwrap();
            assert_eq!(response, text(len), "{len} bytes");
            begun.elapsed()
        })
    });
    let mut times = Vec::new();
    for call in calls {
        times.push(call.await.unwrap());
    }
    (network.counts(), client.stats(), server.stats(), times)
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_sizes_arrive_exactly_though_a_fifth_of_the_packets_is_lost() {
    let (counts, client, server, _) = echo_of_all_sizes(losing(200_000), 1).await;
    assert_eq!(client.responses_received, 10);
    assert_eq!(server.requests_received, 10, "none is delivered twice");
    assert!(counts.lost * 6 > counts.sent, "{counts:?}");
    assert!(counts.lost * 4 < counts.sent, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_survive_every_fault_at_once() {
    let faults = PacketFaults {
        duplication: 100_000,
        reordering: 200_000,
        corruption: 50_000,
        hold_up_max: Duration::from_millis(20),
        ..losing(100_000)
    };
    let (counts, client, server, _) = echo_of_all_sizes(faults, 2).await;
    assert_eq!(client.responses_received, 10);
    assert_eq!(server.requests_received, 10, "none is delivered twice");
    let happened = [
        counts.lost,
        counts.duplicated,
        counts.reordered,
        counts.corrupted,
    ];
    assert!(happened.iter().all(|times| *times > 100), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_not_filled_with_copies_of_what_is_only_late() {
    let topology = Topology::single_switch(5, 100);
    let network = SimNetwork::new(topology, PacketFaults::default(), 6).unwrap();
    let server = open_echo(&network, 0, 4_000);
    let mut calls = Vec::new();
    let mut clients = Vec::new();
    for host in 1..5 {
        let client = open(&network, host, 0);
        for _ in 0..2 {
            let (client, to) = (Arc::clone(&client), server.local_addr());
            calls.push(tokio::spawn(async move {
                for _ in 0..4 {
                    let response = call(Arc::clone(&client), to, text(MEGABYTE).into()).await;
                    assert_eq!(response.unwrap(), text(MEGABYTE));
                }
            }));
        }
        clients.push(client);
    }
    for call in calls {
        call.await.unwrap();
    }
    for s in clients.iter().chain([&server]) {
        let s = s.stats();
        eprintln!(
            "resends {} busy {} again {} data {} dup {}",
            s.resends_sent, s.busy_sent, s.data_resent, s.data_sent, s.data_duplicate
        );
    }
    let stats = clients.iter().chain([&server]).map(|socket| socket.stats());
    let (sent, again) = stats.fold((0, 0), |(sent, again), stats| {
        (sent + stats.data_sent, again + stats.data_resent)
    });
    assert!(
        again * 10 < sent,
        "{again} of {sent} packets were sent again"
    );
}

#[test]
fn equal_seeds_give_equal_times_and_counts_and_other_seeds_do_not() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let faults = PacketFaults {
            duplication: 20_000,
            reordering: 50_000,
            hold_up_max: Duration::from_millis(10),
            ..losing(50_000)
        };
        runtime.block_on(echo_of_all_sizes(faults, seed))
    };
    let first = run(3);
    assert_eq!(run(3), first);
    assert_ne!(run(4), first);
}

#[tokio::test(start_paused = true)]
async fn a_round_trip_takes_two_milliseconds_and_a_long_message_its_time_on_the_link() {
    let network = network(2, PacketFaults::default(), 5);
    let (client, server) = (open(&network, 0, 0), open_echo(&network, 1, 4_000));
    let to = server.local_addr();
    let begun = Instant::now();
    call(Arc::clone(&client), to, text(1).into()).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(2));
    let begun = Instant::now();
    call(client, to, text(MEGABYTE).into()).await.unwrap();
    // 8 Mbit each way at 1 Gbit/s, headers, and some round trips for grants.
    let times = Duration::from_millis(17)..Duration::from_millis(40);
    assert!(times.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(network.counts().overflowed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_host_is_silent_and_answers_again_when_it_is_healed() {
    let network = network(3, PacketFaults::default(), 6);
    let client = open(&network, 0, 0);
    let (cut, other) = (open_echo(&network, 1, 4_000), open_echo(&network, 2, 4_000));
    network.cut(1, &[1]);
    let begun = Instant::now();
    let lost = call(Arc::clone(&client), cut.local_addr(), text(10).into()).await;
    assert!(matches!(lost, Err(RpcError::TimedOut { .. })), "{lost:?}");
    assert!(begun.elapsed() >= Config::default().timeout);
    let answered = call(Arc::clone(&client), other.local_addr(), text(10).into()).await;
    assert_eq!(answered.unwrap(), text(10));
    // Healed while a call waits: that call is answered.
    let waiting = call(client, cut.local_addr(), text(20).into());
    let healing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        network.heal(1);
    };
    let (answered, ()) = tokio::join!(waiting, healing);
    assert_eq!(answered.unwrap(), text(20));
}

#[tokio::test(start_paused = true)]
async fn closed_ports_and_unknown_hosts_are_reported_and_a_reopened_port_works() {
    let network = network(2, PacketFaults::default(), 7);
    let client = open(&network, 0, 0);
    let server = open_echo(&network, 1, 4_000);
    let to = server.local_addr();
    server.close();
    drop(server);
    // The driver of the closed socket ends and lets go of the link.
    let begun = Instant::now();
    tokio::task::yield_now().await;
    let refused = call(Arc::clone(&client), to, text(10).into()).await;
    let Err(RpcError::Unreachable { peer, reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((peer, reason), (to, Unreachable::Port));
    assert!(begun.elapsed() < Config::default().resend_interval);
    let nobody = "192.0.2.1:4000".parse().unwrap();
    let refused = call(Arc::clone(&client), nobody, text(10).into()).await;
    let Err(RpcError::Unreachable { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason, Unreachable::Host);
    let again = open_echo(&network, 1, 4_000);
    let answered = call(client, again.local_addr(), text(10).into()).await;
    assert_eq!(answered.unwrap(), text(10));
}

#[tokio::test(start_paused = true)]
async fn short_messages_overtake_long_ones_of_other_hosts_in_the_queues_of_the_switch() {
    let topology = Topology::single_switch(6, 100);
    let network = SimNetwork::new(topology, PacketFaults::default(), 11).unwrap();
    // What is granted takes 32 ms on such a link: less than that is no silence.
    let config = Config {
        resend_interval: Duration::from_millis(100),
        ..Config::default()
    };
    let open = |host| open_with(&network, host, 4_000, config.clone());
    let server = open(5);
    serve_echo(&server);
    let to = server.local_addr();
    let long: Vec<_> = (0..4)
        .map(|host| {
            let client = open(host);
            tokio::spawn(async move {
                let response = call(client, to, text(MEGABYTE).into()).await;
                assert_eq!(response.unwrap(), text(MEGABYTE));
            })
        })
        .collect();
    let client = open(4);
    let mut slowest = Duration::ZERO;
    // While the requests come, four into one link, they queue before it. The first is there after 80 ms.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(70) {
        let sent = Instant::now();
        call(Arc::clone(&client), to, text(100).into())
            .await
            .unwrap();
        slowest = slowest.max(sent.elapsed());
    }
    assert!(long.iter().all(|call| !call.is_finished()));
    assert!(slowest <= Duration::from_millis(4), "{slowest:?}");
    for call in long {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn ports_are_owned_and_hosts_are_checked() {
    let network = network(2, PacketFaults::default(), 8);
    let first = network.host(0, 9).unwrap();
    let taken = network.host(0, 9).unwrap_err();
    assert!(matches!(taken, BindError::AddressInUse { addr } if addr == first.local_addr()));
    let beyond = network.host(2, 9).unwrap_err();
    assert!(beyond.to_string().contains("10.0.0.3:9"), "{beyond}");
    let (a, b) = (network.host(0, 0).unwrap(), network.host(0, 0).unwrap());
    assert_ne!(a.local_addr(), b.local_addr());
    drop(first);
    assert!(network.host(0, 9).is_ok());
}

#[test]
fn a_network_needs_a_runtime_and_its_links_end_with_it() {
    let made = SimNetwork::new(
        Topology::single_switch(1, 1_000),
        PacketFaults::default(),
        9,
    );
    assert!(matches!(made, Err(BindError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let link = runtime.block_on(async { network(1, PacketFaults::default(), 9).host(0, 1) });
    let link = link.unwrap();
    drop(runtime);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let received = link.poll_recv(&mut cx, &mut RecvBatch::new());
    let std::task::Poll::Ready(Err(error)) = received else {
        panic!("{received:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(link.send(&[]).is_err());
}

/// Without a paused clock and with several threads the order of things is open; nothing may be
/// lost all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_in_real_time_too() {
    let (_, client, server, _) = echo_of_all_sizes(losing(20_000), 10).await;
    assert_eq!(client.responses_received, 10);
    assert_eq!(server.requests_received, 10);
}
