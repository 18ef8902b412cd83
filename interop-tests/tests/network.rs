//! The network in a box does what it says, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use homa_interop::conformance::STUCK_AFTER;
use homa_interop::network::{Disturbance, Host, Layout, Network, NetworkError, Queues};
use homa_interop::skip;
use tokio::net::UdpSocket;

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

fn namespace_file(host: &Host) -> PathBuf {
    Path::new("/run/netns").join(host.namespace())
}

async fn socket(host: &Host, v6: bool) -> UdpSocket {
    let ip = if v6 { host.v6() } else { host.v4() };
    let socket = host.spawn(async move { UdpSocket::bind((ip, 0)).await });
    let socket = socket.await.unwrap().unwrap();
    // Room for all that a test sends.
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(4 << 20).unwrap();
    socket
}

/// Bytes of each datagram of the tests, headers not counted.
const LEN: usize = 1_000;

/// Sends one datagram with a number at a priority level.
async fn send(socket: &UdpSocket, to: &UdpSocket, level: u32, number: u32) {
    let options = socket2::SockRef::from(socket);
    if to.local_addr().unwrap().is_ipv6() {
        options.set_tclass_v6(level << 5).unwrap();
    } else {
        options.set_tos_v4(level << 5).unwrap();
    }
    let mut datagram = [0; LEN];
    datagram[..4].copy_from_slice(&number.to_le_bytes());
    let to = to.local_addr().unwrap();
    assert_eq!(socket.send_to(&datagram, to).await.unwrap(), LEN);
}

async fn receive(socket: &UdpSocket) -> u32 {
    let mut datagram = [0; LEN + 1];
    let received = tokio::time::timeout(STUCK_AFTER, socket.recv(&mut datagram));
    assert_eq!(received.await.expect("a datagram").unwrap(), LEN);
    u32::from_le_bytes(*datagram.first_chunk().unwrap())
}

#[tokio::test]
async fn packets_are_counted_at_the_level_of_their_tos_or_traffic_class() {
    let test = "packets_are_counted_at_the_level_of_their_tos_or_traffic_class";
    let Some(network) = build(test, &Layout::default()) else {
        return;
    };
    for v6 in [false, true] {
        let to = socket(network.host(0), v6).await;
        let from = socket(network.host(1), v6).await;
        for level in 0..8u32 {
            let before = network.port_counters(0).unwrap();
            for number in 0..=level {
                send(&from, &to, level, number).await;
                assert_eq!(receive(&to).await, number);
            }
            let sent = network.port_counters(0).unwrap().since(&before);
            let count = sent.packets[level as usize];
            // Nothing but these is at a level above the lowest; there are announcements of IPv6.
            let exact = count == u64::from(level) + 1;
            assert!(exact || (level == 0 && count > 0), "{level}: {sent:?}");
            let others = sent.packets.iter().skip(1).sum::<u64>();
            assert_eq!(others, if level == 0 { 0 } else { count }, "{sent:?}");
        }
    }
}

/// Two hundred datagrams at the lowest level, then one at the highest, on a link that takes two seconds
/// for them. Returns how many of them come before that one.
async fn overtaken_by(network: &Network) -> u32 {
    let to = socket(network.host(0), false).await;
    let from = socket(network.host(1), false).await;
    for number in 1..=200 {
        send(&from, &to, 0, number).await;
    }
    send(&from, &to, 7, 0).await;
    let mut before = 0;
    while receive(&to).await != 0 {
        before += 1;
    }
    before
}

#[tokio::test]
async fn the_highest_level_overtakes_what_waits_and_only_where_there_are_levels() {
    let test = "the_highest_level_overtakes_what_waits_and_only_where_there_are_levels";
    let mut layout = Layout {
        mbit: 1,
        ..Layout::default()
    };
    let Some(network) = build(test, &layout) else {
        return;
    };
    assert!(overtaken_by(&network).await < 200);
    layout.queues = Queues::Fifo;
    let network = build(test, &layout).unwrap();
    assert_eq!(overtaken_by(&network).await, 200);
}

#[tokio::test]
async fn packets_are_lost_and_doubled_at_the_rate_asked_for() {
    let test = "packets_are_lost_and_doubled_at_the_rate_asked_for";
    let disturbance = Disturbance {
        lost_permille: 300,
        doubled_permille: 200,
        late_permille: 0,
    };
    let layout = Layout {
        disturbances: vec![disturbance],
        ..Layout::default()
    };
    let Some(network) = build(test, &layout) else {
        return;
    };
    let to = socket(network.host(0), false).await;
    let from = socket(network.host(1), false).await;
    let before = network.port_counters(0).unwrap();
    // A last one at the lowest level comes after all others; it is repeated until one comes through.
    let sending = async {
        for number in 1..=1_000 {
            send(&from, &to, 1, number).await;
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            send(&from, &to, 0, 0).await;
        }
    };
    let receiving = async {
        let mut times = vec![0; 1_001];
        loop {
            match receive(&to).await {
                0 => return times,
                number => times[number as usize] += 1,
            }
        }
    };
    let ((), times) = tokio::join!(sending, receiving);
    let arrived = times.iter().filter(|times| **times > 0).count();
    let doubled = times.iter().filter(|times| **times > 1).count();
    // Five standard deviations and more around 700, and 200 of those (less their lost copies).
    assert!((600..800).contains(&arrived), "{arrived} arrived");
    assert!((30..250).contains(&doubled), "{doubled} doubled");
    let lost = network.port_counters(0).unwrap().since(&before).lost;
    assert!(lost >= 1_000 - arrived as u64, "{lost} lost");
}

#[tokio::test]
async fn late_packets_come_behind_others() {
    let test = "late_packets_come_behind_others";
    let layout = Layout {
        disturbances: vec![Disturbance {
            late_permille: 200,
            ..Disturbance::default()
        }],
        ..Layout::default()
    };
    let Some(network) = build(test, &layout) else {
        return;
    };
    let to = socket(network.host(0), false).await;
    let from = socket(network.host(1), false).await;
    for number in 0..150 {
        send(&from, &to, 7, number).await;
    }
    let mut order = Vec::new();
    while order.len() < 150 {
        order.push(receive(&to).await);
    }
    assert!(!order.is_sorted());
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..150));
}

#[test]
fn a_panic_leaves_no_namespaces_behind() {
    let test = "a_panic_leaves_no_namespaces_behind";
    let Some(network) = build(test, &Layout::default()) else {
        return;
    };
    let file = namespace_file(network.host(1));
    assert!(file.exists());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _network = network;
        std::panic::resume_unwind(Box::new("as if a test had failed"));
    }));
    assert!(panicked.is_err());
    assert!(!file.exists());
}

#[test]
fn namespaces_of_processes_that_are_gone_are_removed_and_others_are_not() {
    let test = "namespaces_of_processes_that_are_gone_are_removed_and_others_are_not";
    let Some(first) = build(test, &Layout::default()) else {
        return;
    };
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let leftover = format!("homa-box-{}-0-0-switch", gone.id());
    let added = Command::new("ip")
        .args(["netns", "add", &leftover])
        .status();
    assert!(added.unwrap().success());
    let second = build(test, &Layout::default()).unwrap();
    assert!(!Path::new("/run/netns").join(leftover).exists());
    for network in [first, second] {
        assert!(namespace_file(network.host(0)).exists());
    }
}

#[test]
fn a_network_of_one_host_is_refused() {
    let layout = Layout {
        hosts: 1,
        ..Layout::default()
    };
    match Network::build(&layout) {
        Err(NetworkError::Hosts { got: 1, .. }) => {}
        Err(NetworkError::Unavailable(reason)) => {
            skip::report("a_network_of_one_host_is_refused", reason);
        }
        result => panic!("{result:?}"),
    }
}
