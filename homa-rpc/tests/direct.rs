//! Without layers a call comes to its service without HTTP, with layers as HTTP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use homa_rpc::codegen::{HttpFuture, UnaryCall, UnaryFuture, UnaryService, serve_http, unary};
use homa_rpc::server::NamedService;
use homa_rpc::{Body, Code, MessageLimits, MethodDescriptor, ProstCodec, Response, Server, http};
use support::{Msg, Wire, run};
use tower::Service;
use tower::layer::util::Identity;

/// Counts what comes to it as HTTP.
#[derive(Clone, Default)]
struct Counting {
    as_http: Arc<AtomicUsize>,
}

impl UnaryService for Counting {
    fn limits(&self) -> MessageLimits {
        MessageLimits::default()
    }

    fn serve(&self, call: UnaryCall) -> UnaryFuture {
        assert_eq!(call.method_index(Self::METHODS), Some(0), "{call:?}");
        let codec = ProstCodec::<Msg, Msg>::default();
        unary(call, codec, self.limits(), async |request| {
            assert!(request.remote_addr().is_some());
            Ok(Response::new(request.into_inner()))
        })
    }
}

impl NamedService for Counting {
    const NAME: &'static str = "test.Echo";
    const METHODS: &'static [MethodDescriptor] = &[MethodDescriptor::unary(
        "test.Echo",
        "Say",
        "/test.Echo/Say",
    )];

    fn unary(&self) -> Option<&dyn UnaryService> {
        Some(self)
    }
}

impl Service<http::Request<Body>> for Counting {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> HttpFuture {
        self.as_http.fetch_add(1, Ordering::Relaxed);
        serve_http(self, request)
    }
}

/// Calls the service once, and once one that is not there.
async fn call(running: &support::Running) {
    let reply = running.echo().say(Msg::of("a")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "a");
    let other = support::other_client::OtherClient::new(running.channel.clone());
    let status = other.say(Msg::of("b")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("test.Other"), "{status}");
}

#[tokio::test]
async fn http_comes_into_being_for_layers_only() {
    let service = Counting::default();
    let bare = Server::builder().add_service(service.clone());
    call(&run(bare, Wire::Mem.pair())).await;
    assert_eq!(service.as_http.load(Ordering::Relaxed), 0);
    let pass = tower::layer::layer_fn(|router: homa_rpc::server::Router| {
        tower::util::MapRequest::new(router, |request: http::Request<Body>| request)
    });
    let layered = Server::builder().layer(pass).add_service(service.clone());
    call(&run(layered, Wire::Mem.pair())).await;
    assert_eq!(service.as_http.load(Ordering::Relaxed), 1);
    // A layer of this service alone hides it, and others are still served directly.
    let own = homa_rpc::server::layered(&Identity::new(), service.clone());
    call(&run(Server::builder().add_service(own), Wire::Mem.pair())).await;
    assert_eq!(service.as_http.load(Ordering::Relaxed), 2);
}
