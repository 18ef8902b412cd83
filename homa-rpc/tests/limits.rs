//! Limits of sizes and numbers, at the limit and one off.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use homa_rpc::{Code, Delivery, Request, Response, Server, Status};
use homa_transport::{Config, Socket, Transport};
use support::{EchoClient, EchoServer, Handle, Msg, Wire, echo, handler, run};
use tokio::sync::Notify;

const FRAME_MAX: usize = 1_000_000;
/// Header and path of a request of the test service.
const REQUEST_OVERHEAD: usize = 64 + "/test.Echo/Say".len();
const RESPONSE_OVERHEAD: usize = 64;

/// A message whose encoding has exactly `len` bytes; `len` of 16,385 to 2,097,151 (three bytes of
/// length).
fn encoded_as(len: usize) -> Msg {
    let message = Msg {
        data: vec![7; len - 4].into(),
    };
    assert_eq!(prost::Message::encoded_len(&message), len);
    message
}

async fn a_request_that_fills_a_frame_is_one_and_a_longer_one_takes_several(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let len = request.get_ref().data.len();
        Ok(Response::new(Msg::of(&len.to_string())))
    }));
    let fits = FRAME_MAX - REQUEST_OVERHEAD;
    for len in [fits - 1, fits, fits + 1, FRAME_MAX, FRAME_MAX + 1] {
        let before = running.client.stats().requests_sent;
        let reply = running.echo().say(encoded_as(len)).await.unwrap();
        assert_eq!(reply.get_ref().text(), (len - 4).to_string());
        let sent = running.client.stats().requests_sent - before;
        assert_eq!(sent == 1, len <= fits, "{sent} frames for {len} bytes");
    }
}

async fn a_response_that_fills_a_frame_is_one_and_a_longer_one_takes_several(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let len: usize = request.get_ref().text().parse().unwrap();
        Ok(Response::new(encoded_as(len)))
    }));
    let fits = FRAME_MAX - RESPONSE_OVERHEAD;
    for len in [fits - 1, fits, fits + 1, FRAME_MAX, FRAME_MAX + 1] {
        let before = running.client.stats().requests_sent;
        let reply = running.echo().say(Msg::of(&len.to_string())).await;
        assert!(reply.unwrap().into_inner() == encoded_as(len));
        let sent = running.client.stats().requests_sent - before;
        assert_eq!(sent == 1, len <= fits, "{sent} frames for {len} bytes");
    }
}

/// What nobody has set a limit for is decoded up to 4 MiB, as in gRPC.
async fn messages_over_4_mib_are_refused_by_who_decodes_them_unless_it_is_told_otherwise(
    wire: Wire,
) {
    const MAX: usize = 4 * 1024 * 1024;
    /// Tag and length of the field.
    const HEAD: usize = 5;
    let long = |len: usize| Msg {
        data: vec![7; len - HEAD].into(),
    };
    let service = || {
        handler(async |request: Request<Msg>| {
            let asked = request.get_ref().data.first_chunk::<8>();
            let asked = asked.map_or(0, |asked| u64::from_be_bytes(*asked));
            Ok(Response::new(Msg {
                data: vec![7; usize::try_from(asked).unwrap()].into(),
            }))
        })
    };
    let asks = |len: usize| Msg {
        data: Bytes::copy_from_slice(&(len as u64 - HEAD as u64).to_be_bytes()),
    };
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let len = request.get_ref().data.len();
        Ok(Response::new(Msg::of(&len.to_string())))
    }));
    let reply = running.echo().say(long(MAX)).await.unwrap();
    assert_eq!(reply.get_ref().text(), (MAX - HEAD).to_string());
    let status = running.echo().say(long(MAX + 1)).await.unwrap_err();
    assert_over_default(&status, MAX + 1);

    let running = wire.run_echo(service());
    let reply = running.echo().say(asks(MAX)).await.unwrap();
    assert_eq!(reply.get_ref().data.len(), MAX - HEAD);
    let status = running.echo().say(asks(MAX + 1)).await.unwrap_err();
    assert_over_default(&status, MAX + 1);

    // With the limit raised on both sides, both ways.
    let server = Server::builder().add_service(echo().max_decoding_message_size(2 * MAX));
    let running = run(server, wire.pair());
    let client = EchoClient::new(running.channel.clone()).max_decoding_message_size(2 * MAX);
    let reply = client.say(long(2 * MAX)).await.unwrap();
    assert!(reply.into_inner() == long(2 * MAX));
    let status = client.say(long(2 * MAX + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("8388609"), "{status}");
}

fn assert_over_default(status: &Status, len: usize) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    for part in [&len.to_string(), "4194304", "max_decoding_message_size"] {
        assert!(status.message().contains(part), "{status}");
    }
}

async fn a_status_too_long_for_a_frame_becomes_one_that_says_so(wire: Wire) {
    let running = wire.run_echo(handler(async |_| {
        let details = Bytes::from(vec![0; FRAME_MAX]);
        Err(Status::with_details(Code::Aborted, "", details))
    }));
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("1000064"), "{status}");
}

async fn metadata_over_its_limit_is_refused_on_either_side(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let mut response = Response::new(Msg::default());
        if request.get_ref().text() == "much" {
            let value = "v".repeat(homa_rpc::metadata::BYTES_MAX);
            response.metadata_mut().insert("k", &value).unwrap();
        }
        Ok(response)
    }));
    // 6 bytes of lengths and 1 of key for each pair.
    for (len, fits) in [
        (homa_rpc::metadata::BYTES_MAX - 7, true),
        (homa_rpc::metadata::BYTES_MAX - 6, false),
    ] {
        let mut request = Request::new(Msg::default());
        let metadata = request.metadata_mut();
        metadata.insert("k", &"v".repeat(len)).unwrap();
        let result = running.echo().say(request).await;
        match result {
            Ok(_) => assert!(fits),
            Err(status) => {
                assert!(!fits);
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert_eq!(status.delivery(), Delivery::NotSent);
            }
        }
    }
    let status = running.echo().say(Msg::of("much")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

async fn message_limits_hold_on_each_side_and_name_the_option(wire: Wire) {
    let running = run(
        Server::builder().add_service(
            echo()
                .max_decoding_message_size(20_000)
                .max_encoding_message_size(20_000),
        ),
        wire.pair(),
    );
    assert!(running.echo().say(encoded_as(20_000)).await.is_ok());
    let status = running.echo().say(encoded_as(20_001)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("20001"), "{status}");
    assert!(status.message().contains("20000"), "{status}");
    assert!(status.message().contains("max_decoding_message_size"));

    let running = wire.run_echo(echo());
    let client = EchoClient::new(running.channel.clone()).max_encoding_message_size(20_000);
    assert!(client.say(encoded_as(20_000)).await.is_ok());
    let status = client.say(encoded_as(20_001)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_encoding_message_size"));
    let client = EchoClient::new(running.channel.clone()).max_decoding_message_size(20_000);
    assert!(client.say(encoded_as(20_000)).await.is_ok());
    let status = client.say(encoded_as(20_001)).await.unwrap_err();
    assert!(status.message().contains("max_decoding_message_size"));
}

async fn calls_in_progress_are_limited_and_the_excess_refused_before_dispatch(wire: Wire) {
    let (go, come): (Arc<Notify>, Arc<Notify>) = (Arc::default(), Arc::default());
    let service = handler({
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        move |request: Request<Msg>| {
            let (go, come) = (Arc::clone(&go), Arc::clone(&come));
            async move {
                come.notify_one();
                go.notified().await;
                Ok(Response::new(request.into_inner()))
            }
        }
    });
    let server = Server::builder().concurrency_limit(2).add_service(service);
    let running = run(server, wire.pair());
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(tokio::spawn(running.echo().say(Msg::default())));
        come.notified().await;
    }
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.is_refused());
    for call in calls {
        go.notify_one();
        assert!(call.await.unwrap().is_ok());
    }
    let again = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    go.notify_one();
    assert!(again.await.unwrap().is_ok());
}

/// A service that says it has begun and waits for `go`.
fn gated(go: &Arc<Notify>, come: &Arc<Notify>) -> EchoServer<Handle> {
    let (go, come) = (Arc::clone(go), Arc::clone(come));
    handler(move |request: Request<Msg>| {
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        async move {
            come.notify_one();
            go.notified().await;
            Ok(Response::new(request.into_inner()))
        }
    })
}

fn assert_refused(status: &Status, option: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.is_refused());
    assert!(status.message().contains(option), "{status}");
}

async fn calls_of_one_client_are_limited_whatever_others_do(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let server = Server::builder()
        .concurrency_limit_per_peer(1)
        .add_service(gated(&go, &come));
    let running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_refused(&status, "concurrency_limit_per_peer");
    let (stranger, _) = wire.pair();
    let channel = homa_rpc::Channel::builder().socket(stranger);
    let other = EchoClient::new(channel.build(&running.uri).unwrap());
    let other = tokio::spawn(other.say(Msg::default()));
    come.notified().await;
    for call in [first, other] {
        go.notify_one();
        assert!(call.await.unwrap().is_ok());
    }
    let again = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    go.notify_one();
    assert!(again.await.unwrap().is_ok());
}

async fn calls_of_one_method_are_limited_and_others_are_not(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let server = Server::builder()
        .method_concurrency_limit("/test.Echo/Say", 1)
        .add_service(support::other_handler(async |request: Request<Msg>| {
            Ok(Response::new(request.into_inner()))
        }))
        .add_service(gated(&go, &come));
    let running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_refused(&status, "method_concurrency_limit");
    assert!(status.message().contains("/test.Echo/Say"), "{status}");
    let other = support::other_client::OtherClient::new(running.channel.clone());
    assert!(other.say(Msg::default()).await.is_ok());
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
    assert_eq!(running.monitor.stats().calls_refused, 1);
}

async fn a_limit_for_a_method_that_is_not_served_is_an_error_that_names_it(wire: Wire) {
    let (_, server) = wire.pair();
    for path in ["/test.Other/Say", "test.Echo/Say", "Say"] {
        let builder = Server::builder().method_concurrency_limit(path, 1);
        let error = builder.add_service(echo()).bind_socket(Arc::clone(&server));
        assert!(error.unwrap_err().to_string().contains(path));
    }
}

async fn message_limits_of_one_call_take_the_place_of_those_of_the_client(wire: Wire) {
    let running = wire.run_echo(echo());
    let client = EchoClient::new(running.channel.clone())
        .max_encoding_message_size(20_000)
        .max_decoding_message_size(20_000);
    let request = |encoding, decoding| {
        let mut request = Request::new(encoded_as(20_001));
        request.set_max_encoding_message_size(encoding);
        request.set_max_decoding_message_size(decoding);
        request
    };
    assert!(client.say(request(20_001, 20_001)).await.is_ok());
    let status = client.say(request(20_000, 20_001)).await.unwrap_err();
    assert!(
        status.message().contains("max_encoding_message_size"),
        "{status}"
    );
    assert_eq!(status.code(), Code::ResourceExhausted);
    let status = client.say(request(20_001, 20_000)).await.unwrap_err();
    assert!(
        status.message().contains("max_decoding_message_size"),
        "{status}"
    );
    assert_eq!(status.code(), Code::ResourceExhausted);
}

async fn bytes_of_requests_in_progress_are_limited_and_short_ones_pass(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let frame = REQUEST_OVERHEAD + 20_000;
    let server = Server::builder()
        .request_bytes_limit(2 * frame + 1)
        .add_service(gated(&go, &come));
    let running = run(server, wire.pair());
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(tokio::spawn(running.echo().say(encoded_as(20_000))));
        come.notified().await;
    }
    let status = running.echo().say(encoded_as(20_000)).await.unwrap_err();
    assert_refused(&status, "request_bytes_limit");
    for size in [frame, 2 * frame, 2 * frame + 1] {
        assert!(status.message().contains(&size.to_string()), "{status}");
    }
    calls.push(tokio::spawn(running.echo().say(Msg::of("short"))));
    come.notified().await;
    for call in calls {
        go.notify_one();
        assert!(call.await.unwrap().is_ok());
    }
    let again = tokio::spawn(running.echo().say(encoded_as(20_000)));
    come.notified().await;
    go.notify_one();
    assert!(again.await.unwrap().is_ok());
}

async fn what_a_limit_of_the_client_stops_was_not_sent(wire: Wire) {
    let running = wire.run_echo(echo());
    let client = EchoClient::new(running.channel.clone()).max_encoding_message_size(20_000);
    let status = client.say(encoded_as(20_001)).await.unwrap_err();
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.message().contains("20001"), "{status}");
    assert!(status.message().contains("20000"), "{status}");
    assert_eq!(running.client.stats().requests_sent, 0);
}

fn udp(config: Config) -> Arc<dyn Transport> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Arc::new(Socket::udp(any, config).unwrap())
}

#[tokio::test]
async fn a_client_with_too_many_calls_in_progress_sends_no_more_and_names_the_option() {
    let (go, come) = (Arc::default(), Arc::default());
    let client = udp(Config {
        rpcs_max: 2,
        ..Config::default()
    });
    let server = Server::builder().add_service(gated(&go, &come));
    let running = run(server, (client, udp(Config::default())));
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(tokio::spawn(running.echo().say(Msg::default())));
        come.notified().await;
    }
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.message().contains("rpcs_max"), "{status}");
    for call in calls {
        go.notify_one();
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(running.client.stats().requests_sent, 2);
}

#[tokio::test]
async fn requests_for_which_a_server_has_no_room_are_refused_and_never_executed() {
    const ROOM: usize = 4;
    let server = udp(Config {
        rpcs_max: ROOM,
        ..Config::default()
    });
    let (running_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let service = handler({
        let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
        move |request: Request<Msg>| {
            let (running_now, most) = (Arc::clone(&running_now), Arc::clone(&most));
            async move {
                let now = running_now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok(Response::new(request.into_inner()))
            }
        }
    });
    let server = (udp(Config::default()), server);
    let running = run(Server::builder().add_service(service), server);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        calls.spawn(running.echo().say(Msg::of("x")));
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(reply) => {
                assert_eq!(reply.get_ref().text(), "x");
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert_eq!(status.delivery(), Delivery::NotSent, "{status}");
                assert!(status.message().contains("rpcs_max"), "{status}");
            }
        }
    }
    assert!((1..50).contains(&answered), "{answered}");
    assert!(most.load(Ordering::SeqCst) <= ROOM);
    assert!(running.server.stats().requests_refused > 0);
    assert_eq!(running.monitor.stats().handlers_spawned, answered);
}

async fn a_message_over_the_limit_is_not_even_encoded(wire: Wire) {
    use homa_rpc::{Codec, MethodDescriptor, client::Caller};

    /// Knows the length of what it is not to encode.
    struct Sized;
    impl Codec for Sized {
        type Encode = usize;
        type Decode = Bytes;
        fn encode(&self, len: usize) -> Result<Bytes, Status> {
            assert!(len <= 100, "encoded");
            Ok(vec![0; len].into())
        }
        fn encoded_len(&self, len: &usize) -> Option<usize> {
            Some(*len)
        }
        fn decode(&self, bytes: Bytes) -> Result<Bytes, Status> {
            Ok(bytes)
        }
    }
    static SAY: MethodDescriptor = MethodDescriptor::unary("test.Echo", "Say", "/test.Echo/Say");
    let running = wire.run_echo(echo());
    let caller = Caller::new(running.channel.clone()).max_encoding_message_size(100);
    let status = caller
        .unary(Request::new(101), &SAY, Sized)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(caller.unary(Request::new(0), &SAY, Sized).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_calls_again_when_it_has_its_reply_is_never_over_its_limit() {
    let server = Server::builder()
        .concurrency_limit(1)
        .concurrency_limit_per_peer(1)
        .method_concurrency_limit("/test.Echo/Say", 1)
        .add_service(echo());
    let running = run(server, Wire::Udp.pair());
    for _ in 0..2_000 {
        running.echo().say(Msg::of("again")).await.unwrap();
    }
}

on_every_wire!(
    bytes_of_requests_in_progress_are_limited_and_short_ones_pass,
    what_a_limit_of_the_client_stops_was_not_sent,
    calls_of_one_client_are_limited_whatever_others_do,
    calls_of_one_method_are_limited_and_others_are_not,
    a_limit_for_a_method_that_is_not_served_is_an_error_that_names_it,
    message_limits_of_one_call_take_the_place_of_those_of_the_client,
    a_message_over_the_limit_is_not_even_encoded,
    a_request_that_fills_a_frame_is_one_and_a_longer_one_takes_several,
    a_response_that_fills_a_frame_is_one_and_a_longer_one_takes_several,
    messages_over_4_mib_are_refused_by_who_decodes_them_unless_it_is_told_otherwise,
    a_status_too_long_for_a_frame_becomes_one_that_says_so,
    metadata_over_its_limit_is_refused_on_either_side,
    message_limits_hold_on_each_side_and_name_the_option,
    calls_in_progress_are_limited_and_the_excess_refused_before_dispatch,
);
