//! Resolver of names: which address calls go to after others were silent.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use homa_transport::{Config, Socket, Transport};
use tower::Service;

use super::channel::{Channel, ChannelBuilder};
use super::resolver::Route;
use super::*;
use crate::body::Body;
use crate::message::status::{Code, Status};
use crate::server::Server;

/// A channel to a name with addresses of the test's choice, which a look-up would have brought.
async fn channel(builder: ChannelBuilder, addresses: &[SocketAddr]) -> Channel {
    // If it is really looked up, nobody is there.
    let channel = builder.build("homa+udp://no-such-host.invalid:1").unwrap();
    channel.shared.resolver.pretend_found(addresses).await;
    channel
}

fn call(channel: &Channel) -> ResponseFuture {
    let mut request = http::Request::new(Body::request(Bytes::from_static(b"m")));
    *request.uri_mut() = "/no.Service/Method".parse().unwrap();
    Service::call(&mut channel.clone(), request)
}

/// A socket that takes packets and says nothing.
fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// A server without services: UNIMPLEMENTED is its sign of life.
fn living() -> SocketAddr {
    let bound = Server::builder().bind("homa+udp://127.0.0.1:0").unwrap();
    let uri = bound.local_uris().remove(0);
    tokio::spawn(bound.serve());
    uri.trim_start_matches("homa+udp://").parse().unwrap()
}

async fn assert_lives(channel: &Channel) {
    let status = match call(channel).await {
        Ok(response) => crate::body::final_status(&response).unwrap().unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

const SHORT: Duration = Duration::from_millis(30);

/// Ways to end a call of which nothing is heard.
async fn by_its_deadline(channel: &Channel) {
    // That of the channel.
    let status = call(channel).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

async fn by_who_waits(channel: &Channel) {
    let given_up = tokio::time::timeout(SHORT, call(channel)).await;
    assert!(given_up.is_err(), "{given_up:?}");
}

async fn by_a_drop(channel: &Channel) {
    let mut dropped = tokio::spawn(call(channel));
    let _pending = tokio::time::timeout(SHORT, &mut dropped).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn the_second_address_of_a_name_is_tried_after_the_first_was_silent() {
    let (_socket, first) = silent();
    let second = living();
    for way in 0..3 {
        let builder = match way {
            0 => Channel::builder().timeout(SHORT),
            _ => Channel::builder(),
        };
        let channel = channel(builder, &[first, second]).await;
        match way {
            0 => by_its_deadline(&channel).await,
            1 => by_who_waits(&channel).await,
            _ => by_a_drop(&channel).await,
        }
        let now = channel.shared.resolver.look_up().await.unwrap();
        assert_eq!(now.peer, second, "way {way}");
        if way > 0 {
            assert_lives(&channel).await;
        }
    }
}

#[tokio::test]
async fn a_route_that_worked_is_left_once_it_is_silent() {
    let (_socket, first) = silent();
    let second = living();
    let channel = channel(Channel::builder(), &[first, second]).await;
    let resolver = &channel.shared.resolver;
    let route = resolver.look_up().await.unwrap();
    resolver.worked(&route);
    assert_eq!(resolver.now().unwrap().unwrap().peer, first);
    by_who_waits(&channel).await;
    assert!(
        resolver.now().unwrap().is_none(),
        "another one is to be found"
    );
    assert_lives(&channel).await;
    assert_eq!(resolver.now().unwrap().unwrap().peer, second);
    assert_lives(&channel).await;
}

#[tokio::test]
async fn calls_too_short_to_hear_anything_leave_a_route_together() {
    let (_socket, first) = silent();
    let channel = channel(Channel::builder(), &[first]).await;
    let resolver = &channel.shared.resolver;
    let route = resolver.look_up().await.unwrap();
    resolver.worked(&route);
    let short = Duration::from_millis(1);
    for _ in 0..100 {
        resolver.given_up_in_silence(&route, short);
        resolver.given_up_in_silence(&route, short);
        // As with a call that is sent twice, of which the slower one is dropped.
        resolver.answered();
    }
    assert!(resolver.now().unwrap().is_some());
    for _ in 0..3 {
        assert!(resolver.now().unwrap().is_some());
        resolver.given_up_in_silence(&route, short);
    }
    assert!(resolver.now().unwrap().is_none());
}

#[tokio::test]
async fn an_old_call_says_nothing_about_a_newer_route_to_the_same_address() {
    let (_socket, first) = silent();
    let channel = channel(Channel::builder(), &[first, first]).await;
    let resolver = &channel.shared.resolver;
    let old = resolver.look_up().await.unwrap();
    resolver.given_up_in_silence(&old, SHORT);
    let new = resolver.look_up().await.unwrap();
    assert_eq!(new.peer, old.peer);
    resolver.given_up_in_silence(&old, SHORT);
    assert_eq!(resolver.look_up().await.unwrap().number, new.number);
}

#[tokio::test]
async fn a_slow_server_that_lives_keeps_its_route() {
    let server = Socket::udp(SocketAddr::from(([127, 0, 0, 1], 0)), Config::default()).unwrap();
    let (taken, mut requests) = tokio::sync::mpsc::channel(4);
    let sink = move |incoming| drop(taken.try_send(incoming));
    server.serve(std::sync::Arc::new(sink)).unwrap();
    let channel = channel(Channel::builder(), &[server.local_addr()]).await;
    let asked = tokio::spawn(call(&channel));
    let _held: homa_transport::Incoming = requests.recv().await.unwrap();
    // It says that it is busy when the client asks.
    while channel.stats().packets_received == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    assert_eq!(route(&channel).unwrap().peer, server.local_addr());
}

/// The route in use, whether or not a call got an answer there.
fn route(channel: &Channel) -> Option<Route> {
    channel.shared.resolver.in_use()
}

#[tokio::test]
async fn the_end_of_one_call_by_the_system_keeps_the_shared_socket() {
    let (_socket, addr) = silent();
    let channel = Channel::new(format!("homa+udp://{addr}")).unwrap();
    let resolver = &channel.shared.resolver;
    let route = resolver.now().unwrap().unwrap();
    let error = homa_transport::RpcError::System {
        peer: addr,
        reason: "something else".to_owned(),
        delivery: homa_transport::Delivery::Unknown,
    };
    assert_eq!(Status::from(error.clone()).code(), Code::Unavailable);
    assert!(!resolver.failed(&route, &error));
    let kind = crate::net::sockets::Kind {
        wire: crate::net::uri::Wire::Udp,
        backend: None,
        config: std::sync::Arc::default(),
    };
    let home = tokio::runtime::Handle::current();
    let shared = crate::net::sockets::client(&home, &kind).unwrap();
    assert!(std::sync::Arc::ptr_eq(&shared, &route.socket));
}
