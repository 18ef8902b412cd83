//! A server that has ended leaves its port and name to the next one at once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;

use homa_rpc::{BoundServer, Channel, Server, ServerError};
use support::{EchoClient, Msg, echo, handler};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const ROUNDS: usize = 20;

fn runtimes() -> [(&'static str, Runtime); 2] {
    let mut many = Builder::new_multi_thread();
    let builders = [
        ("current_thread", &mut Builder::new_current_thread()),
        ("multi_thread", many.worker_threads(2)),
    ];
    builders.map(|(name, builder)| (name, builder.enable_all().build().unwrap()))
}

/// Places that this test alone uses. Nobody gets such a port by chance while it is free for a moment.
fn uris(test: u8) -> Vec<String> {
    let mut uris = vec![
        format!("homa+udp://127.88.1.{test}:20088"),
        format!("homa+mem://rebind-{test}"),
    ];
    let native = format!("homa://127.88.1.{test}:{}", 2_080 + u16::from(test));
    if let Err(error) = Server::builder().bind(&native) {
        eprintln!("SKIPPED for homa://: {error}");
    } else {
        uris.push(native);
    }
    uris
}

fn bind(uri: &str, shards: u32) -> Result<BoundServer, ServerError> {
    let server = Server::builder().shards(shards).add_service(echo());
    server.bind(uri)
}

async fn serve_and_bind_again(uri: &str, shards: u32, with_call: bool) {
    let echo = EchoClient::new(Channel::new(uri).unwrap());
    for round in 0..ROUNDS {
        let bound = bind(uri, shards).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let (stop, stopped) = oneshot::channel::<()>();
        if with_call {
            let echo = echo.clone();
            tokio::spawn(async move {
                echo.say(Msg::of("hello")).await.unwrap();
                drop(stop);
            });
        } else {
            drop(stop);
        }
        bound.serve_with_shutdown(stopped).await.unwrap();
    }
}

#[test]
fn when_serve_returns_the_port_is_free() {
    for (_, runtime) in runtimes() {
        runtime.block_on(async {
            for uri in uris(1) {
                for with_call in [true, false] {
                    for shards in [1, 2] {
                        serve_and_bind_again(&uri, shards, with_call).await;
                    }
                }
            }
        });
    }
}

#[test]
fn a_server_that_is_dropped_leaves_its_port_without_anybody_waiting() {
    for (name, runtime) in runtimes() {
        runtime.block_on(async {
            for uri in uris(2) {
                for round in 0..ROUNDS {
                    let bound = bind(&uri, 1);
                    drop(bound.unwrap_or_else(|error| panic!("{name}, round {round}: {error}")));
                    // Given up in the middle, as by `select!`.
                    let bound = bind(&uri, 1).unwrap();
                    let serving = bound.serve();
                    let stopped = tokio::time::timeout(std::time::Duration::ZERO, serving);
                    assert!(stopped.await.is_err());
                }
            }
        });
    }
}

#[test]
fn dropped_with_calls_in_progress_it_answers_them_first() {
    let [_, (_, runtime)] = runtimes();
    runtime.block_on(async {
        let uri = "homa+udp://127.88.1.3:20088";
        let (began, mut begun) = tokio::sync::mpsc::channel(4);
        let waits = handler(move |_| {
            began.try_send(()).unwrap();
            pending()
        });
        let bound = Server::builder().add_service(waits).bind(uri).unwrap();
        let serving = tokio::spawn(bound.serve());
        let echo = EchoClient::new(Channel::new(uri).unwrap());
        let call = tokio::spawn(echo.say(Msg::of("hello")));
        begun.recv().await.unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), homa_rpc::Code::Unavailable, "{status}");
        // The reply has come, so the port will not be long.
        while bind(uri, 1).is_err() {
            tokio::task::yield_now().await;
        }
    });
}
