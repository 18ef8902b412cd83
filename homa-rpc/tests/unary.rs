//! Unary calls: what arrives at the other side, and how calls end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::error::Error;

use bytes::Bytes;
use homa_rpc::{Code, Delivery, Request, Response, Server, Status};
use support::other_client::OtherClient;
use support::{EchoClient, Msg, Wire, echo, handler, other_handler, run};

async fn a_message_comes_back_and_an_empty_one_too(wire: Wire) {
    let running = wire.run_echo(echo());
    for text in ["hello", ""] {
        let reply = running.echo().say(Msg::of(text)).await.unwrap();
        assert_eq!(reply.get_ref().text(), text);
    }
}

async fn a_call_can_be_spawned_and_outlive_its_client(wire: Wire) {
    let running = wire.run_echo(echo());
    let call = tokio::spawn(running.echo().say(Msg::of("x")));
    assert_eq!(call.await.unwrap().unwrap().get_ref().text(), "x");
}

async fn metadata_travels_both_ways_in_order_with_duplicates(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let mut response = Response::new(Msg::default());
        for value in request.metadata().get_all("list") {
            response.metadata_mut().append("list-back", value).unwrap();
        }
        for value in request.metadata().get_all_bin("list-bin") {
            let metadata = response.trailing_metadata_mut();
            metadata.append_bin("back-bin", &value.unwrap()).unwrap();
        }
        let user_agent = request.metadata().get("user-agent").unwrap();
        let metadata = response.trailing_metadata_mut();
        metadata.insert("agent", user_agent).unwrap();
        Ok(response)
    }));
    let mut request = Request::new(Msg::default());
    let metadata = request.metadata_mut();
    metadata.insert("user-agent", "test").unwrap();
    for value in ["b", "a", "b", ""] {
        metadata.append("list", value).unwrap();
    }
    for value in [b"\xff\0".as_slice(), b"", b"\xff\0", b"text"] {
        metadata.append_bin("list-bin", value).unwrap();
    }
    let reply = running.echo().say(request).await.unwrap();
    let back: Vec<_> = reply.metadata().get_all("list-back").collect();
    assert_eq!(back, ["b", "a", "b", ""]);
    let trailing = reply.trailing_metadata().unwrap();
    let back: Vec<_> = trailing
        .get_all_bin("back-bin")
        .map(Result::unwrap)
        .collect();
    assert_eq!(back, [b"\xff\0".as_slice(), b"", b"\xff\0", b"text"]);
    assert_eq!(trailing.get("agent"), Some("test"));
    assert!(reply.metadata().get("agent").is_none());
}

async fn every_code_arrives_with_message_details_and_metadata(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let code = Code::new(request.get_ref().data[0]).unwrap();
        let message = "\t test \r\n \u{e9} % \u{1F600} \0";
        let mut status = Status::with_details(code, message, Bytes::from_static(b"\0\xff"));
        status.metadata_mut().append("why", "1").unwrap();
        status.metadata_mut().append("why", "2").unwrap();
        status.metadata_mut().insert_bin("raw-bin", b"\0").unwrap();
        Err(status)
    }));
    for code in Code::ALL.into_iter().skip(1) {
        let message = Msg {
            data: vec![code.number()].into(),
        };
        let status = running.echo().say(message).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert_eq!(status.message(), "\t test \r\n \u{e9} % \u{1F600} \0");
        assert_eq!(status.details(), b"\0\xff".as_slice());
        let why: Vec<_> = status.metadata().get_all("why").collect();
        assert_eq!(why, ["1", "2"]);
        let raw = status.metadata().get_bin("raw-bin").unwrap().unwrap();
        assert_eq!(raw, b"\0".as_slice());
        assert_eq!(status.delivery(), Delivery::Unknown);
        assert!(!status.is_refused());
    }
}

async fn a_handler_cannot_fail_with_the_code_ok(wire: Wire) {
    let running = wire.run_echo(handler(async |_| Err(Status::new(Code::Ok, "fine"))));
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
}

async fn unknown_services_and_methods_are_unimplemented_and_named(wire: Wire) {
    let running = wire.run_echo(echo());
    let status = running.echo().missing(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("/test.Echo/Missing"), "{status}");
    let other = OtherClient::new(running.channel.clone());
    let status = other.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("test.Other"), "{status}");
}

async fn several_services_share_one_socket(wire: Wire) {
    let other = other_handler(async |_| Ok(Response::new(Msg::of("other"))));
    let server = Server::builder().add_service(echo()).add_service(other);
    let running = run(server, wire.pair());
    let reply = running.echo().say(Msg::of("echo")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "echo");
    let other = OtherClient::new(running.channel.clone());
    let reply = other.say(Msg::of("echo")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "other");
}

async fn a_service_added_twice_is_an_error_that_names_it(wire: Wire) {
    let server = Server::builder().add_service(echo()).add_service(echo());
    let error = server.bind_socket(wire.pair().1).unwrap_err();
    assert!(error.to_string().contains("test.Echo"), "{error}");
}

async fn the_handler_knows_the_client_and_the_deadline(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let peer = request.remote_addr().unwrap();
        let deadline = request.deadline().is_some();
        Ok(Response::new(Msg::of(&format!("{peer} {deadline}"))))
    }));
    let addr = running.client.local_addr();
    let reply = running.echo().say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), format!("{addr} false"));
    let mut request = Request::new(Msg::default());
    request.set_timeout(std::time::Duration::from_secs(3600));
    let reply = running.echo().say(request).await.unwrap();
    assert_eq!(reply.get_ref().text(), format!("{addr} true"));
}

async fn a_panic_of_the_handler_is_unknown_and_the_server_lives_on(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        assert_ne!(request.get_ref().text(), "panic", "as asked");
        Ok(Response::new(request.into_inner()))
    }));
    for _ in 0..3 {
        let status = running.echo().say(Msg::of("panic")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown);
        assert!(status.message().contains("panicked"), "{status}");
    }
    let reply = running.echo().say(Msg::of("fine")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "fine");
}

async fn a_unary_call_is_one_rpc_of_the_transport(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        if request.get_ref().text() == "fail" {
            return Err(Status::not_found(""));
        }
        Ok(Response::new(request.into_inner()))
    }));
    for (calls, text) in [(1, "x"), (2, "fail"), (3, "")] {
        drop(running.echo().say(Msg::of(text)).await);
        let (client, server) = (running.client.stats(), running.server.stats());
        assert_eq!(client.requests_sent, calls);
        assert_eq!(client.responses_received, calls);
        assert_eq!(server.requests_received, calls);
        assert_eq!(server.responses_sent, calls);
    }
}

async fn a_thousand_concurrent_calls_on_one_channel_all_answer(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        tokio::task::yield_now().await;
        Ok(Response::new(request.into_inner()))
    }));
    let echo = running.echo();
    let calls: Vec<_> = (0..1000)
        .map(|i| tokio::spawn(echo.say(Msg::of(&i.to_string()))))
        .collect();
    for (i, call) in calls.into_iter().enumerate() {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.get_ref().text(), i.to_string());
    }
}

async fn a_dead_server_is_unavailable_not_sent_and_named(wire: Wire) {
    let (client, _server) = wire.pair();
    let dead = wire.dead();
    let channel = homa_rpc::Channel::builder().socket(client);
    let channel = channel.build(format!("homa+udp://{dead}")).unwrap();
    let status = EchoClient::new(channel)
        .say(Msg::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::NotSent, "{status}");
    assert!(status.message().contains(&dead.to_string()), "{status}");
    assert!(status.source().unwrap().is::<homa_transport::RpcError>());
}

async fn a_closed_socket_is_unavailable_and_the_server_named(wire: Wire) {
    let running = wire.run_echo(echo());
    running.client.close();
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let address = running.server.local_addr().to_string();
    assert!(status.message().contains(&address), "{status}");
}

async fn messages_that_are_no_protobuf_are_internal_on_either_side(wire: Wire) {
    use homa_rpc::client::Caller;
    use homa_rpc::{Codec, MethodDescriptor};

    /// Sends and takes bytes as they are.
    struct Raw;
    impl Codec for Raw {
        type Encode = Bytes;
        type Decode = Bytes;
        fn encode(&self, message: Bytes) -> Result<Bytes, Status> {
            Ok(message)
        }
        fn decode(&self, bytes: Bytes) -> Result<Bytes, Status> {
            Ok(bytes)
        }
    }
    static SAY: MethodDescriptor = MethodDescriptor::unary("test.Echo", "Say", "/test.Echo/Say");
    let running = wire.run_echo(echo());
    let raw = Caller::new(running.channel.clone());
    let bad = Request::new(Bytes::from_static(b"\xff\xff"));
    let status = raw.unary(bad, &SAY, Raw).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let good = Request::new(Bytes::from_static(b"\x0a\x01x"));
    let reply = raw.unary(good, &SAY, Raw).await.unwrap();
    assert_eq!(reply.get_ref(), b"\x0a\x01x".as_slice());
}

on_every_wire!(
    a_message_comes_back_and_an_empty_one_too,
    a_call_can_be_spawned_and_outlive_its_client,
    metadata_travels_both_ways_in_order_with_duplicates,
    every_code_arrives_with_message_details_and_metadata,
    a_handler_cannot_fail_with_the_code_ok,
    unknown_services_and_methods_are_unimplemented_and_named,
    several_services_share_one_socket,
    a_service_added_twice_is_an_error_that_names_it,
    the_handler_knows_the_client_and_the_deadline,
    a_panic_of_the_handler_is_unknown_and_the_server_lives_on,
    a_unary_call_is_one_rpc_of_the_transport,
    a_thousand_concurrent_calls_on_one_channel_all_answer,
    a_dead_server_is_unavailable_not_sent_and_named,
    a_closed_socket_is_unavailable_and_the_server_named,
    messages_that_are_no_protobuf_are_internal_on_either_side,
);
