//! Channels and servers on a simulated network: loss, partitions and queues, in tokio's paused
//! time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use homa_rpc::{Code, Request, Response, Server};
use homa_transport::sim::{PacketFaults, SimNetwork, Topology};
use homa_transport::{Config, Socket, Transport, Wire};
use support::{EchoServer, Handle, Msg, Running, echo, handler, run};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const MEGABYTE: usize = 1_000_000;

fn losing(loss: u32) -> PacketFaults {
    PacketFaults {
        loss,
        ..PacketFaults::default()
    }
}

/// A server on host 1 and a channel to it on host 0, with links of 1 Gbit/s.
fn world(service: EchoServer<Handle>, faults: PacketFaults, seed: u64) -> (SimNetwork, Running) {
    let network = SimNetwork::new(Topology::single_switch(2, 1_000), faults, seed).unwrap();
    let open = |host| -> Arc<dyn Transport> {
        let link = network.host(host, 4_000).unwrap();
        Arc::new(Socket::over(Arc::new(link), Wire::Encapsulated, Config::default()).unwrap())
    };
    let pair = (open(0), open(1));
    let running = run(Server::builder().add_service(service), pair);
    (network, running)
}

fn message(number: usize, len: usize) -> Msg {
    let data: Vec<u8> = (0..len)
        .map(|at| u8::try_from((at * 31 + at / 251 + number) % 256).unwrap())
        .collect();
    Msg { data: data.into() }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_calls_at_a_time_are_answered_though_a_fifth_of_the_packets_is_lost() {
    let (network, running) = world(echo(), losing(200_000), 1);
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let echo = running.echo();
        calls.spawn(async move {
            let sent = message(number, 1 + number * number / 2);
            let reply = echo.say(sent.clone()).await;
            (number, sent, reply)
        });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        let (number, sent, reply) = call.unwrap();
        let reply = reply.unwrap_or_else(|status| panic!("call {number}: {status}"));
        assert!(reply.into_inner() == sent, "call {number}");
        answered += 1;
    }
    assert_eq!(answered, 200);
    let counts = network.counts();
    assert!(counts.lost * 6 > counts.sent, "{counts:?}");
    let stats = running.server.stats();
    assert_eq!(stats.requests_handed_over, 200, "each was executed once");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_server_that_is_cut_off_ends_exactly_at_its_deadline() {
    let (network, running) = world(echo(), PacketFaults::default(), 2);
    running.echo().say(Msg::of("before")).await.unwrap();
    network.cut(1, &[1]);
    for millis in [1, 20, 333, 700] {
        let timeout = Duration::from_millis(millis);
        let mut request = Request::new(Msg::of("into the dark"));
        request.set_timeout(timeout);
        let begun = Instant::now();
        let status = running.echo().say(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(begun.elapsed(), timeout);
    }
    network.heal(1);
    let reply = running.echo().say(Msg::of("after")).await.unwrap();
    assert_eq!(reply.into_inner().text(), "after");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_ends_when_its_server_has_been_cut_off_for_long() {
    let (network, running) = world(echo(), PacketFaults::default(), 3);
    network.cut(1, &[1]);
    let begun = Instant::now();
    let status = running.echo().say(Msg::of("anyone?")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(begun.elapsed() >= Config::default().timeout);
    assert!(begun.elapsed() < 3 * Config::default().timeout);
}

/// Reports that its handler was dropped.
struct OnDrop(mpsc::Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.try_send(()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_cancel_their_handlers_though_a_fifth_of_the_packets_is_lost() {
    const CALLS: usize = 50;
    let (begun, mut begins) = mpsc::channel(CALLS);
    let (ended, mut ends) = mpsc::channel(CALLS);
    let service = handler(move |_| {
        let guard = OnDrop(ended.clone());
        begun.try_send(()).unwrap();
        async move {
            let _guard = guard;
            pending().await
        }
    });
    let (_network, running) = world(service, losing(200_000), 4);
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        calls.spawn(running.echo().say(message(number, 1 + number * 100)));
    }
    for _ in 0..CALLS {
        begins.recv().await.unwrap();
    }
    assert!(ends.try_recv().is_err(), "nothing has ended yet");
    calls.abort_all();
    let dropped = Instant::now();
    for _ in 0..CALLS {
        ends.recv().await.unwrap();
    }
    // Where the word of a cancel was lost, the client's silence tells.
    let longest = 12 * Config::default().timeout;
    assert!(dropped.elapsed() < longest, "{:?}", dropped.elapsed());
    assert!(begins.try_recv().is_err(), "none was executed twice");
}

#[tokio::test(start_paused = true)]
async fn the_handlers_of_a_client_that_is_gone_are_dropped() {
    const CALLS: usize = 20;
    let (begun, mut begins) = mpsc::channel(CALLS);
    let (ended, mut ends) = mpsc::channel(CALLS);
    let service = handler(move |_| {
        let guard = OnDrop(ended.clone());
        begun.try_send(()).unwrap();
        async move {
            let _guard = guard;
            pending().await
        }
    });
    let (network, running) = world(service, PacketFaults::default(), 7);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        calls.spawn(running.echo().say(Msg::of("x")));
    }
    for _ in 0..CALLS {
        begins.recv().await.unwrap();
    }
    network.cut(1, &[0]);
    let gone = Instant::now();
    for _ in 0..CALLS {
        ends.recv().await.unwrap();
    }
    assert!(gone.elapsed() >= Config::default().timeout);
    assert!(gone.elapsed() < 15 * Config::default().timeout);
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.monitor.stats().calls_cancelled, CALLS as u64);
}

/// The times of `count` calls of a few bytes, one every 5 ms; the greatest but one in a hundred.
async fn p99_of_short_calls(running: &Running, count: usize) -> Duration {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let echo = running.echo();
        calls.spawn(async move {
            let begun = Instant::now();
            echo.say(message(number, 100)).await.unwrap();
            begun.elapsed()
        });
        sleep(Duration::from_millis(5)).await;
    }
    let mut times = calls.join_all().await;
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn short_calls_are_not_held_up_behind_long_ones_on_the_same_channel() {
    const LONG: usize = 8;
    let (_network, running) = world(echo(), PacketFaults::default(), 5);
    let alone = p99_of_short_calls(&running, 200).await;
    let long: Vec<_> = (0..LONG)
        .map(|number| {
            let echo = running.echo();
            tokio::spawn(async move {
                let sent = message(number, MEGABYTE - 1_000);
                let mut times = Vec::new();
                loop {
                    let begun = Instant::now();
                    let reply = echo.say(sent.clone()).await.unwrap();
                    assert_eq!(reply.get_ref().data.len(), sent.data.len());
                    times.push(begun.elapsed());
                    if times.len() == 10 {
                        return times;
                    }
                }
            })
        })
        .collect();
    let among_long = p99_of_short_calls(&running, 100).await;
    assert!(
        long.iter().all(|calls| !calls.is_finished()),
        "the links were busy all the time"
    );
    let mut times = Vec::new();
    for calls in long {
        times.extend(calls.await.unwrap());
    }
    times.sort();
    let usual = times[times.len() / 2];
    assert!(among_long <= 4 * alone, "{among_long:?} against {alone:?}");
    assert!(usual > 8 * alone, "long calls share the link: {usual:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_begins_anew_is_found_by_the_same_channel() {
    let (network, mut running) = world(echo(), losing(50_000), 6);
    running.echo().say(Msg::of("first")).await.unwrap();
    running.stop();
    running.task.await.unwrap().unwrap();
    let closed = running.server;
    closed.close();
    drop(closed);
    // The old socket lets go of its port when its driver has ended.
    let link = loop {
        match network.host(1, 4_000) {
            Ok(link) => break link,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let socket = Socket::over(Arc::new(link), Wire::Encapsulated, Config::default()).unwrap();
    let service = handler(async |_| {
        let data = Bytes::from_static(b"second");
        Ok(Response::new(Msg { data }))
    });
    let bound = Server::builder()
        .add_service(service)
        .bind_socket(Arc::new(socket))
        .unwrap();
    let serving = tokio::spawn(bound.serve());
    let client = support::EchoClient::new(running.channel.clone());
    let reply = client.say(Msg::of("again")).await.unwrap();
    assert_eq!(reply.into_inner().text(), "second");
    serving.abort();
}
