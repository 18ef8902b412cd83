//! `homa://`: the wire of the kernel module, here over raw sockets on loopback. Needs CAP_NET_RAW; without
//! it each test says that it is skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![allow(dead_code, reason = "not all of the support is needed here")]

mod support;

use homa_rpc::{Channel, Code, Delivery, NativeBackend, Server, ServerError};
use homa_transport::BindError;
use support::{EchoClient, Msg, echo};

/// A server over raw sockets on the first free port, or the reason why there can be none.
fn serve(host: &str) -> Option<String> {
    let server = Server::builder()
        .add_service(echo())
        .native_backend(NativeBackend::Raw)
        .bind(format!("homa://{host}:0"));
    match server {
        Ok(bound) => {
            let uri = bound.local_uris().remove(0);
            tokio::spawn(bound.serve());
            Some(uri)
        }
        Err(ServerError::Bind {
            source: source @ (BindError::RawNotPermitted { .. } | BindError::ModuleLoaded),
            ..
        }) => {
            eprintln!("SKIPPED: {source}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn client(uri: &str) -> EchoClient {
    let channel = Channel::builder().native_backend(NativeBackend::Raw);
    EchoClient::new(channel.build(uri).unwrap())
}

#[tokio::test]
async fn calls_go_over_raw_sockets() {
    for host in ["127.0.0.1", "[::1]"] {
        let Some(uri) = serve(host) else { return };
        let (_, port) = uri.rsplit_once(':').unwrap();
        assert!(
            (1..=32_767).contains(&port.parse::<u16>().unwrap()),
            "{uri}"
        );
        for text in ["short".to_owned(), "long ".repeat(100_000)] {
            let reply = client(&uri).say(Msg::of(&text)).await.unwrap();
            assert!(reply.get_ref().text() == text, "{uri}");
        }
    }
}

#[tokio::test]
async fn a_server_port_above_32767_is_refused_with_the_range() {
    let server = Server::builder().add_service(echo());
    let server = server.native_backend(NativeBackend::Raw);
    let error = server.bind("homa://127.0.0.1:32768").unwrap_err();
    assert!(error.to_string().contains("1 to 32767"), "{error}");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_named() {
    let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    if protocols.lines().any(|line| line.starts_with("HOMA")) {
        eprintln!("skipped: the kernel module is loaded, so its backend is there");
        return;
    }
    let channel = Channel::builder().native_backend(NativeBackend::Kernel);
    let client = EchoClient::new(channel.build("homa://127.0.0.1:1").unwrap());
    let status = client.say(Msg::of("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(
        status.message().contains("Homa module is not loaded"),
        "{status}"
    );
}
