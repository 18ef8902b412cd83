//! How often a call with everything usual about it allocates.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod counting;
mod support;

use std::future::{Ready, ready};
use std::time::Duration;

use homa_rpc::{Body, Request, Response, Server, Status, final_status, try_clone_request};
use support::{Echo, EchoClient, EchoServer, Msg, Wire, run};
use tower::ServiceBuilder;
use tower::retry::Policy;

struct WithMetadata;

#[async_trait::async_trait]
impl Echo for WithMetadata {
    async fn say(&self, request: Request<Msg>) -> Result<Response<Msg>, Status> {
        assert_eq!(request.metadata().get("request-key"), Some("value"));
        assert!(request.deadline().is_some());
        let mut response = Response::new(request.into_inner());
        response
            .metadata_mut()
            .insert("response-key", "value")
            .unwrap();
        Ok(response)
    }
}

/// Again while the outcome is an error.
#[derive(Clone)]
struct OnError;

impl Policy<http::Request<Body>, http::Response<Body>, Status> for OnError {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<http::Response<Body>, Status>,
    ) -> Option<Ready<()>> {
        let failed = match result {
            Ok(response) => matches!(final_status(response), Some(Err(_))),
            Err(_) => true,
        };
        failed.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        try_clone_request(request)
    }
}

/// Client and server together, with a warm channel. The pair of metadata counts with what its maker
/// allocates, the payload does not.
#[tokio::test]
async fn alloc_a_call_with_deadline_metadata_and_retry_takes_at_most_24_allocations() {
    for wire in [Wire::Udp, Wire::Mem] {
        let server = Server::builder().add_service(EchoServer::new(WithMetadata));
        let running = run(server, wire.pair());
        let retrying = ServiceBuilder::new()
            .retry(OnError)
            .service(running.channel.clone());
        let echo = EchoClient::new(retrying);
        let message = Msg {
            data: bytes::Bytes::from_static(&[7; 100]),
        };
        let allocations = counting::per_call(|| {
            let mut request = Request::new(message.clone());
            request.set_timeout(Duration::from_secs(5));
            request
                .metadata_mut()
                .insert("request-key", "value")
                .unwrap();
            let call = echo.say(request);
            async {
                let response = call.await.unwrap();
                assert_eq!(response.metadata().get("response-key"), Some("value"));
            }
        })
        .await;
        println!("{wire:?}: {allocations} allocations per call");
        assert!(allocations <= 24.0, "{wire:?}: {allocations} per call");
    }
}
