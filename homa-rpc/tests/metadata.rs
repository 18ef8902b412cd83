//! Metadata between the two ends: what layers see, what is sent, where the bounds are.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use homa_rpc::metadata::{BYTES_MAX, MetadataError, PAIRS_MAX};
use homa_rpc::{Body, Channel, Code, Delivery, Metadata, Request, Response, Server, Status};
use http::{HeaderMap, HeaderName, HeaderValue};
use support::echo_client::EchoClient;
use support::frames::{self, Raw};
use support::{Msg, Wire, echo, handler, run};
use tower::ServiceBuilder;
use tower::util::{MapRequestLayer, MapResponseLayer};

type HttpRequest = http::Request<Body>;

/// A call of `channel` with these headers put in by a layer.
async fn call_with(channel: &Channel, headers: HeaderMap) -> Result<Response<Msg>, Status> {
    let layered = ServiceBuilder::new()
        .layer(MapRequestLayer::new(move |mut request: HttpRequest| {
            *request.headers_mut() = headers.clone();
            request
        }))
        .service(channel.clone());
    EchoClient::new(layered).say(Msg::default()).await
}

fn one(key: &'static str, value: &[u8]) -> HeaderMap {
    let value = HeaderValue::from_bytes(value).unwrap();
    HeaderMap::from_iter([(HeaderName::from_static(key), value)])
}

/// The metadata section of a frame, by WIRE.md.
fn section(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        out.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        out.extend(*key);
        out.extend(*value);
    }
    out
}

async fn bin_values_are_base64_for_layers_and_raw_on_the_wire(wire: Wire) {
    let (client, server) = wire.pair();
    let mut taken = frames::silent(&server);
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = Channel::builder().socket(client).build(uri).unwrap();
    let layered = ServiceBuilder::new()
        .layer(MapRequestLayer::new(|request: HttpRequest| {
            assert_eq!(request.headers()["k-bin"], "AP8");
            request
        }))
        .service(channel);
    let mut request = Request::new(Msg::default());
    request
        .metadata_mut()
        .insert_bin("k-bin", b"\0\xff")
        .unwrap();
    let call = tokio::spawn(EchoClient::new(layered).say(request));
    let frame = taken.recv().await.unwrap().message;
    let raw = section(&[(b"k-bin", b"\0\xff")]);
    assert_eq!(
        frame[44..48],
        u32::try_from(raw.len()).unwrap().to_be_bytes()
    );
    let path = "/test.Echo/Say".len();
    assert_eq!(frame[64 + path..][..raw.len()], raw);
    call.abort();
}

async fn raw_bin_values_of_the_wire_are_base64_for_layers_of_the_server(wire: Wire) {
    let server = Server::builder()
        .layer(MapRequestLayer::new(|request: HttpRequest| {
            assert_eq!(request.headers()["k-bin"], "AP8");
            request
        }))
        .add_service(handler(async |request: Request<Msg>| {
            let value = request.metadata().get_bin("k-bin").unwrap().unwrap();
            Ok(Response::new(Msg { data: value }))
        }));
    let running = run(server, wire.pair());
    let frame = Raw {
        initial: section(&[(b"k-bin", b"\0\xff")]),
        ..Raw::call()
    };
    let server = running.server.local_addr();
    let reply = frames::send(&running.client, server, frame.bytes()).await;
    assert_eq!(reply.unwrap().message, b"\x0a\x02\0\xff");
}

async fn pairs_and_bytes_are_bounded_in_either_direction(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let mut response = Response::new(Msg::default());
        match request.get_ref().text() {
            "pairs" => {
                for _ in 0..PAIRS_MAX {
                    response.metadata_mut().append("k", "v").unwrap();
                    response.trailing_metadata_mut().append("t", "v").unwrap();
                }
            }
            "bytes" => {
                let value = "v".repeat(BYTES_MAX - 7);
                response.metadata_mut().insert("k", &value).unwrap();
                response
                    .trailing_metadata_mut()
                    .insert("t", &value)
                    .unwrap();
            }
            "more" => {
                let value = vec![0; BYTES_MAX];
                response.metadata_mut().insert_bin("k-bin", &value).unwrap();
            }
            _ => {}
        }
        Ok(response)
    }));
    for text in ["pairs", "bytes"] {
        let reply = running.echo().say(Msg::of(text)).await.unwrap();
        assert_eq!(
            reply.metadata(),
            &renamed(reply.trailing_metadata().unwrap())
        );
    }
    let status = running.echo().say(Msg::of("more")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("65536 bytes"), "{status}");

    let mut headers = HeaderMap::new();
    for _ in 0..PAIRS_MAX {
        headers.append("k", HeaderValue::from_static("v"));
    }
    assert!(call_with(&running.channel, headers.clone()).await.is_ok());
    headers.append("k", HeaderValue::from_static("v"));
    let status = call_with(&running.channel, headers).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.message().contains("513 pairs"), "{status}");
    assert!(status.message().contains("512 pairs"), "{status}");
}

/// The pairs of `t` under `k`.
fn renamed(metadata: &Metadata) -> Metadata {
    let mut out = Metadata::new();
    for value in metadata.get_all("t") {
        out.append("k", value).unwrap();
    }
    out
}

async fn frames_with_too_much_metadata_are_refused(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    let value = vec![b'v'; BYTES_MAX];
    let one: (&[u8], &[u8]) = (b"k", b"v");
    for (initial, code) in [
        (section(&[one; PAIRS_MAX]), Code::Ok),
        (section(&[one; PAIRS_MAX + 1]), Code::ResourceExhausted),
        (section(&[(b"k", &value[7..])]), Code::Ok),
        (section(&[(b"k", &value[6..])]), Code::ResourceExhausted),
    ] {
        let len = initial.len();
        let frame = Raw {
            initial,
            ..Raw::call()
        };
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(reply.code, code.number(), "{len} bytes");
        let refused = reply.flags & frames::REFUSED != 0;
        assert_eq!(refused, code != Code::Ok);
    }
}

async fn a_header_map_filled_to_the_brim_by_a_layer_is_an_error_and_no_panic(wire: Wire) {
    fn fill(headers: &mut HeaderMap) {
        for n in 0_u32.. {
            let name = HeaderName::try_from(format!("k{n}")).unwrap();
            if headers
                .try_append(name, HeaderValue::from_static("v"))
                .is_err()
            {
                assert!(n > 20_000, "full at {n}");
                return;
            }
        }
    }
    let server = Server::builder()
        .layer(MapResponseLayer::new(
            move |mut response: http::Response<Body>| {
                fill(response.headers_mut());
                response
            },
        ))
        .add_service(handler(async |request: Request<Msg>| {
            if request.get_ref().text() == "fail" {
                return Err(Status::aborted("lost"));
            }
            Ok(Response::new(Msg::default()))
        }));
    let running = run(server, wire.pair());
    for text in ["", "fail"] {
        let status = running.echo().say(Msg::of(text)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    let mut headers = HeaderMap::new();
    fill(&mut headers);
    let status = call_with(&running.channel, headers.clone())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    // As metadata of a status it leaves no room for the headers of the protocol.
    let status = Status::aborted("lost").with_metadata(Metadata::from_headers(headers));
    assert_eq!(status.into_http().headers()["grpc-status"], "10");
}

async fn reserved_names_are_refused_by_the_map_and_never_sent(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        let mut keys: Vec<_> = request.metadata().keys().collect();
        keys.sort_unstable();
        Ok(Response::new(Msg::of(&keys.join(" "))))
    }));
    let mut metadata = Metadata::new();
    for key in ["grpc-status", "grpc-anything", "content-type", "te"] {
        let reserved = MetadataError::Reserved(key.into());
        assert_eq!(metadata.insert(key, "v"), Err(reserved.clone()));
        assert_eq!(metadata.append(key, "v"), Err(reserved));
    }
    for key in ["grpc-trace-bin", "grpc-status-details-bin"] {
        let reserved = MetadataError::Reserved(key.into());
        assert_eq!(metadata.insert_bin(key, b"v"), Err(reserved.clone()));
        assert_eq!(metadata.append_bin(key, b"v"), Err(reserved));
    }
    let mut headers = HeaderMap::new();
    for key in [
        "content-type",
        "te",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        // Layers of the framework use these.
        "grpc-previous-rpc-attempts",
        "k",
    ] {
        headers.insert(key, HeaderValue::from_static("1"));
    }
    headers.insert("grpc-timeout", HeaderValue::from_static("1H"));
    let reply = call_with(&running.channel, headers).await.unwrap();
    assert_eq!(reply.get_ref().text(), "grpc-previous-rpc-attempts k");
}

async fn reserved_names_in_a_frame_are_refused(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    for key in [
        b"grpc-status".as_slice(),
        b"te",
        b"content-type",
        b"grpc-timeout",
    ] {
        let frame = Raw {
            initial: section(&[(key, b"1")]),
            ..Raw::call()
        };
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        assert_eq!(reply.unwrap().code, Code::Internal.number());
    }
}

async fn a_bin_value_of_a_layer_that_is_no_base64_fails_that_call_only(wire: Wire) {
    let calls = AtomicUsize::new(0);
    let server = Server::builder()
        .layer(MapResponseLayer::new(
            |mut response: http::Response<Body>| {
                if response.headers().contains_key("spoil") {
                    let value = HeaderValue::from_static("a");
                    response.headers_mut().insert("k-bin", value);
                }
                response
            },
        ))
        .add_service(handler(move |_| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut response = Response::new(Msg::default());
                if call == 0 {
                    response.metadata_mut().insert("spoil", "it").unwrap();
                }
                Ok(response)
            }
        }));
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("k-bin"), "{status}");
    let status = call_with(&running.channel, one("k-bin", b"!")).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.message().contains("k-bin"), "{status}");
    assert!(running.echo().say(Msg::default()).await.is_ok());
}

async fn text_that_only_layers_can_make_passes_unread(wire: Wire) {
    let server = Server::builder()
        .layer(MapRequestLayer::new(|request: HttpRequest| {
            assert_eq!(request.headers()["k"].as_bytes(), b"\xe9\t.");
            request
        }))
        .add_service(handler(async |request: Request<Msg>| {
            assert_eq!(request.metadata().get("k"), None);
            assert!(request.metadata().contains_key("k"));
            Ok(Response::new(Msg::default()))
        }));
    let running = run(server, wire.pair());
    assert!(
        call_with(&running.channel, one("k", b"\xe9\t."))
            .await
            .is_ok()
    );
}

on_every_wire!(
    bin_values_are_base64_for_layers_and_raw_on_the_wire,
    raw_bin_values_of_the_wire_are_base64_for_layers_of_the_server,
    pairs_and_bytes_are_bounded_in_either_direction,
    frames_with_too_much_metadata_are_refused,
    a_header_map_filled_to_the_brim_by_a_layer_is_an_error_and_no_panic,
    reserved_names_are_refused_by_the_map_and_never_sent,
    reserved_names_in_a_frame_are_refused,
    a_bin_value_of_a_layer_that_is_no_base64_fails_that_call_only,
    text_that_only_layers_can_make_passes_unread,
);
