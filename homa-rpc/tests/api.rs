//! What programs find at the paths and by the names that they know from tonic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::time::Duration;

use homa_rpc::layer::{InterceptedService, InterceptorLayer, around, interceptor};
use homa_rpc::server::{Routes, layered};
use homa_rpc::transport::{self, Channel, Config, Server, Uri, Wire};
use homa_rpc::{Code, Metadata, Request, Response, Status, http};
use support::{EchoClient, Msg, echo, handler, other_client::OtherClient, other_handler};
use tower::Layer;

/// A middleware that knows nothing of what a request has beside its parts.
fn rebuilt<T>(request: Request<T>) -> Request<T> {
    let (metadata, extensions, message) = request.into_parts();
    Request::from_parts(metadata, extensions, message)
}

#[test]
fn a_request_made_anew_of_its_parts_has_lost_nothing() {
    let mut request = Request::new(Msg::of("text"));
    request.set_timeout(Duration::from_secs(3));
    request.metadata_mut().insert("key", "value").unwrap();
    request.extensions_mut().insert(7_u8);
    let again = rebuilt(request);
    assert_eq!(again.timeout(), Some(Duration::from_secs(3)));
    assert_eq!(again.metadata().get("key"), Some("value"));
    assert_eq!(again.extensions().get(), Some(&7_u8));
    assert_eq!(
        again.extensions().len(),
        1,
        "what was kept is gone from here"
    );
    assert_eq!(again.get_ref().text(), "text");
    let (metadata, extensions, _message) = again.into_parts();
    let other: Request<u32> = Request::from_parts(metadata, extensions, 5);
    assert_eq!(other.timeout(), Some(Duration::from_secs(3)));
}

#[test]
fn a_response_made_anew_of_its_parts_has_lost_nothing() {
    let mut response = Response::new(1);
    response.metadata_mut().insert("key", "value").unwrap();
    response
        .trailing_metadata_mut()
        .insert("last", "one")
        .unwrap();
    let (metadata, message, extensions) = response.into_parts();
    let again = Response::from_parts(metadata, message + 1, extensions);
    assert_eq!(again.metadata().get("key"), Some("value"));
    assert_eq!(again.trailing_metadata().unwrap().get("last"), Some("one"));
    assert!(again.extensions().is_empty());
    assert_eq!(again.into_inner(), 2);
}

#[tokio::test]
async fn a_handler_behind_parts_knows_deadline_and_client_still() {
    let service = handler(async |request: Request<Msg>| {
        let request = rebuilt(request);
        assert!(request.deadline().is_some() && request.remote_addr().is_some());
        assert_eq!(request.method().unwrap().method(), "Say");
        Ok(Response::new(request.into_inner()))
    });
    let running = support::Wire::Mem.run_echo(service);
    let mut request = Request::new(Msg::of("a"));
    request.set_timeout(Duration::from_secs(60));
    running.echo().say(request).await.unwrap();
}

/// One error type for a program that is a client and a server.
async fn serve_and_call(config: Config) -> Result<u64, transport::Error> {
    let routes = Routes::new(echo()).add_service(other_handler(async |request| {
        Ok(Response::new(request.into_inner()))
    }));
    let bound = Server::builder()
        .config(config.clone())
        .add_routes(routes)
        .bind("homa+udp://127.0.0.1:0")?;
    let uri = bound.local_uris().remove(0);
    tokio::spawn(bound.serve());
    let channel = Channel::builder().config(config).build(uri)?;
    let echo = EchoClient::new(channel.clone());
    assert_eq!(echo.say(Msg::of("a")).await.unwrap().get_ref().text(), "a");
    let other = OtherClient::new(channel.clone());
    assert_eq!(other.say(Msg::of("b")).await.unwrap().get_ref().text(), "b");
    Ok(channel.stats().rpcs_live)
}

#[tokio::test]
async fn settings_of_sockets_reach_them_from_both_builders() {
    let idle = Config {
        busy_poll: Duration::ZERO,
        ..Config::default()
    };
    serve_and_call(idle).await.unwrap();
    // Refused by the socket, which shows that it was asked.
    let wrong = Config {
        num_priorities: 9,
        ..Config::default()
    };
    let error = serve_and_call(wrong.clone()).await.unwrap_err();
    assert!(matches!(error, transport::Error::Server(_)), "{error}");
    assert!(error.to_string().contains("num_priorities"), "{error}");
    let uri = "homa+udp://127.0.0.1:9";
    let channel = Channel::builder().config(wrong).build(uri).unwrap();
    let status = EchoClient::new(channel)
        .say(Msg::of("a"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("num_priorities"), "{status}");
}

#[tokio::test]
async fn services_are_added_if_they_are_there_and_twice_is_an_error() {
    let none = None.or_else(|| std::hint::black_box(false).then(echo));
    let builder = Server::builder().add_optional_service(none);
    let running = support::run(
        builder.add_optional_service(Some(other_handler(async |request| {
            Ok(Response::new(request.into_inner()))
        }))),
        support::Wire::Mem.pair(),
    );
    let status = running.echo().say(Msg::of("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let other = OtherClient::new(running.channel.clone());
    other.say(Msg::of("a")).await.unwrap();
    let twice = Server::builder().add_service(echo());
    let twice = twice.add_routes(Routes::new(echo()));
    let error = twice.bind("homa+mem://api-twice").unwrap_err();
    assert!(error.to_string().contains("test.Echo"), "{error}");
}

#[tokio::test]
async fn layers_give_back_what_they_are_around() {
    let pass = |request: Request<()>| Ok(request);
    let channel = Channel::new("homa+udp://127.0.0.1:9").unwrap();
    let mut intercepted = InterceptedService::new(channel, pass);
    let text = format!("{:?}", intercepted.get_ref());
    assert!(text.contains("127.0.0.1:9"), "{text}");
    let _: &mut Channel = intercepted.get_mut();
    assert_eq!(
        (intercepted.interceptor())(Request::new(()))
            .unwrap()
            .timeout(),
        None
    );
    let _same: InterceptorLayer<_> = interceptor(pass);
    let outer = InterceptorLayer::new(pass).layer(intercepted.into_inner());
    let outer =
        around(async |request, next: homa_rpc::layer::Next| next.run(request).await).layer(outer);
    let channel: Channel = outer.into_inner().into_inner();
    assert!(format!("{channel:?}").contains("127.0.0.1:9"));
    let service = layered(&InterceptorLayer::new(pass), echo());
    let _: &InterceptedService<_, _> = service.get_ref();
}

/// The usual way to return errors of the system from a handler.
fn read_config() -> homa_rpc::Result<String> {
    Ok(std::fs::read_to_string("/no/such/file/of/this/test")?)
}

#[test]
fn errors_and_codes_convert_as_in_tonic() {
    let status: Status = read_config().unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(Code::try_from(5), Ok(Code::NotFound));
    assert_eq!(i32::from(Code::NotFound), 5);
    assert!(
        Code::try_from(17)
            .unwrap_err()
            .to_string()
            .contains("0 to 16")
    );
    let headers = http::HeaderMap::new();
    assert!(Metadata::from_headers(headers).is_empty());
}

#[test]
fn a_uri_says_where_it_leads() {
    let uri: Uri = "homa+udp://127.0.0.1:0".parse().unwrap();
    assert_eq!((uri.wire(), uri.port()), (Wire::Udp, Some(0)));
    let addr = "127.0.0.1:7".parse().unwrap();
    let made = Uri::of_address(Wire::Homa, addr).unwrap();
    assert_eq!(made.to_string(), "homa://127.0.0.1:7");
    assert_eq!(Uri::of_address(Wire::Mem, addr), None);
}

/// Every path that `docs/from-tonic.md` names in its table of paths, written out: it compiles if they exist.
#[allow(unused_imports, reason = "to see that they are there")]
mod paths {
    mod root {
        use homa_rpc::BoxError;
        use homa_rpc::BoxStream;
        use homa_rpc::Code;
        use homa_rpc::IntoRequest;
        use homa_rpc::IntoStreamingRequest;
        use homa_rpc::Metadata;
        use homa_rpc::MethodDescriptor;
        use homa_rpc::Request;
        use homa_rpc::Response;
        use homa_rpc::Result;
        use homa_rpc::Status;
        use homa_rpc::Streaming;
        use homa_rpc::async_trait;
        use homa_rpc::http;
        use homa_rpc::include_proto;
        use homa_rpc::{Body, Codec, ProstCodec};
    }
    mod layers {
        use homa_rpc::client::CallService;
        use homa_rpc::client::Caller;
        use homa_rpc::layer::InterceptedService;
        use homa_rpc::layer::Interceptor;
        use homa_rpc::layer::InterceptorLayer;
        use homa_rpc::layer::interceptor;
        use homa_rpc::server::NamedService;
        use homa_rpc::server::Routes;
        use homa_rpc::types::ErrorDetails;
    }
    mod transport {
        use homa_rpc::transport::{BindError, BoundServer, Channel, ChannelBuilder, ChannelError};
        use homa_rpc::transport::{Config, Error, NativeBackend, RpcError, Server, ServerBuilder};
        use homa_rpc::transport::{ServerError, Socket, Stats, Transport, Uri, UriError};
    }
}

#[test]
fn the_paths_of_the_table_are_those_that_compile_here() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/from-tonic.md");
    let Ok(page) = std::fs::read_to_string(page) else {
        // Not there in a published package.
        return;
    };
    let table = page.split("## Paths").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let source = include_str!("api.rs");
    let mut named = 0;
    // What stands between backticks.
    for path in table.split('`').skip(1).step_by(2) {
        let Some(path) = path.strip_prefix("homa_rpc::") else {
            continue;
        };
        let (module, names) = path.rsplit_once("::").unwrap_or(("", path));
        let (module, names) = path.split_once('{').map_or((module, names), |(m, n)| {
            (m.trim_end_matches("::"), n.trim_end_matches('}'))
        });
        let module = if module.is_empty() {
            "homa_rpc::".to_owned()
        } else {
            format!("homa_rpc::{module}::")
        };
        for name in names.split(", ") {
            let is_there = source.lines().any(|line| {
                let line = line.trim().strip_prefix("use ");
                let items = line.and_then(|line| line.strip_prefix(&module));
                items.is_some_and(|items| {
                    let items = items.trim_matches(['{', '}', ';']);
                    items.split(", ").any(|item| item == name)
                })
            });
            assert!(is_there, "{module}{name} is not among the paths here");
            named += 1;
        }
    }
    assert!(named > 35, "{named} paths");
}
