//! How often a bare unary call allocates.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod counting;
mod support;

use homa_rpc::{Request, Response, Server, Status};
use support::{Echo, EchoServer, Msg, Wire, run};

struct Direct;

#[async_trait::async_trait]
impl Echo for Direct {
    async fn say(&self, request: Request<Msg>) -> Result<Response<Msg>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Client and server together, with a warm channel, no metadata, no layers, no deadline.
#[tokio::test]
async fn alloc_a_bare_unary_call_takes_at_most_10_allocations() {
    for wire in [Wire::Udp, Wire::Mem] {
        let server = Server::builder().add_service(EchoServer::new(Direct));
        let running = run(server, wire.pair());
        let echo = running.echo();
        // Static, so that the payload itself allocates nothing.
        let message = Msg {
            data: bytes::Bytes::from_static(&[7; 100]),
        };
        let allocations = counting::per_call(|| {
            let call = echo.say(message.clone());
            async { call.await.unwrap() }
        })
        .await;
        println!("{wire:?}: {allocations} allocations per call");
        assert!(allocations <= 10.0, "{wire:?}: {allocations} per call");
    }
}
