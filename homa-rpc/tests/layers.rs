//! What holds for any tower layer on clients and servers. `tower.rs` and `tower_http.rs` have the
//! ready-made ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use homa_rpc::{Body, BoxError, Code, Request, Response, Server, Status};
use support::echo_client::EchoClient;
use support::{Msg, Wire, echo, handler, run};
use tower::{ServiceBuilder, ServiceExt};

async fn the_first_layer_of_a_server_sees_a_call_first(wire: Wire) {
    let mark = |name: &'static str| {
        tower::util::MapRequestLayer::new(move |mut request: http::Request<Body>| {
            let value = http::HeaderValue::from_static(name);
            request.headers_mut().append("seen", value);
            request
        })
    };
    let server = Server::builder()
        .layer(mark("first"))
        .layer(mark("second"))
        .add_service(handler(async |request: Request<Msg>| {
            let seen: Vec<_> = request.metadata().get_all("seen").collect();
            Ok(Response::new(Msg::of(&seen.join(","))))
        }));
    let running = run(server, wire.pair());
    let reply = running.echo().say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "first,second");
}

async fn layers_that_wrap_bodies_work_on_both_sides(wire: Wire) {
    use http_body_util::BodyExt;
    use http_body_util::combinators::UnsyncBoxBody;

    type Wrapped = UnsyncBoxBody<bytes::Bytes, Status>;
    let server = Server::builder()
        .layer(tower::util::MapRequestLayer::new(
            |request: http::Request<Body>| request.map(|body| -> Wrapped { body.boxed_unsync() }),
        ))
        .layer(tower::util::MapResponseLayer::new(
            |response: http::Response<Body>| {
                response.map(|body| -> Wrapped { body.boxed_unsync() })
            },
        ))
        .add_service(handler(async |request: Request<Msg>| {
            if request.get_ref().text() == "fail" {
                return Err(Status::with_details(Code::Aborted, "a % b", "det"));
            }
            let metadata = request.metadata().clone();
            let mut response = Response::new(request.into_inner());
            *response.metadata_mut() = metadata;
            response.trailing_metadata_mut().insert("t", "1").unwrap();
            Ok(response)
        }));
    let running = run(server, wire.pair());
    let service = running
        .channel
        .clone()
        .map_request(|request: http::Request<Body>| {
            request.map(|body| -> Wrapped { body.boxed_unsync() })
        })
        .map_response(|response: http::Response<Body>| {
            response.map(|body| -> Wrapped { body.boxed_unsync() })
        });
    let echo = EchoClient::new(service);
    for text in ["", "hello"] {
        let mut request = Request::new(Msg::of(text));
        request.metadata_mut().insert_bin("k-bin", &[0]).unwrap();
        let reply = echo.say(request).await.unwrap();
        assert_eq!(reply.get_ref().text(), text);
        let back = reply.metadata().get_bin("k-bin").unwrap().unwrap();
        assert_eq!(back, [0].as_slice());
        assert_eq!(reply.trailing_metadata().unwrap().get("t"), Some("1"));
    }
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.message(), "a % b");
    assert_eq!(status.details(), "det");
}

async fn the_handler_knows_peer_and_deadline_behind_bodies_of_other_types(wire: Wire) {
    type Wrapped = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Status>;
    fn wrapped(request: http::Request<Body>) -> http::Request<Wrapped> {
        request.map(http_body_util::BodyExt::boxed_unsync)
    }
    let server = Server::builder()
        .layer(tower::util::MapRequestLayer::new(wrapped))
        .add_service(handler(async |request: Request<Msg>| {
            assert!(request.deadline().is_some());
            let peer = request.remote_addr().unwrap();
            Ok(Response::new(Msg::of(&peer.to_string())))
        }));
    let running = run(server, wire.pair());
    let service = ServiceBuilder::new()
        .layer(tower::util::MapRequestLayer::new(wrapped))
        .service(running.channel.clone());
    let mut request = Request::new(Msg::default());
    request.set_timeout(std::time::Duration::from_secs(60));
    let reply = EchoClient::new(service).say(request).await.unwrap();
    let client = running.client.local_addr();
    assert_eq!(reply.get_ref().text(), client.to_string());
}

async fn an_http_error_of_a_layer_is_mapped_on_either_side(wire: Wire) {
    let forbid = |mut response: http::Response<Body>| {
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        response
    };
    let server = Server::builder()
        .layer(tower::util::MapResponseLayer::new(forbid))
        .add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    let running = wire.run_echo(echo());
    let service = ServiceBuilder::new()
        .layer(tower::util::MapResponseLayer::new(forbid))
        .service(running.channel.clone());
    let status = EchoClient::new(service).say(Msg::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::PermissionDenied);
}

async fn errors_of_layers_keep_their_meaning(wire: Wire) {
    let fail = |_: http::Request<Body>| async {
        Err::<http::Response<Body>, BoxError>(Status::unauthenticated("who are you?").into())
    };
    let layer = tower::layer::layer_fn(move |_inner| tower::service_fn(fail));
    let server = Server::builder().layer(layer).add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "who are you?");
    let status = EchoClient::new(tower::service_fn(fail))
        .say(Msg::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

on_every_wire!(
    the_first_layer_of_a_server_sees_a_call_first,
    layers_that_wrap_bodies_work_on_both_sides,
    the_handler_knows_peer_and_deadline_behind_bodies_of_other_types,
    an_http_error_of_a_layer_is_mapped_on_either_side,
    errors_of_layers_keep_their_meaning,
);
