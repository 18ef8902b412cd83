//! From a path to a method that streams, in a server with layers and without.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use homa_rpc::client::Caller;
use homa_rpc::server::{NamedService, layered};
use homa_rpc::{Code, MethodDescriptor, MethodKind, ProstCodec, Request, Server};
use streaming::{Closures, Item, StreamsServer};
use support::{Running, Wire, run};
use tower::layer::util::Identity;

/// `List`, called by a client whose schema says that one message comes.
static LIST: MethodDescriptor =
    MethodDescriptor::unary("test.streams.Streams", "List", "/test.streams.Streams/List");

async fn check(running: &Running) {
    let caller = Caller::new(running.channel.clone());
    let call = |number| {
        let request = Request::new(Item::number(number));
        caller.unary(request, &LIST, ProstCodec::<Item, Item>::default())
    };
    let reply = call(1).await.unwrap();
    assert_eq!(reply.get_ref().number, 0);
    for number in [0, 2] {
        let status = call(number).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
    }
    let client = streaming::StreamsClient::new(running.channel.clone());
    let reply = client.say(Item::number(7)).await.unwrap();
    assert_eq!(reply.get_ref().number, 7, "unary methods beside it");
}

#[tokio::test]
async fn a_method_that_streams_is_served_to_callers_that_expect_one_message() {
    let bare = Server::builder().add_service(Closures::default().server());
    check(&run(bare, Wire::Net.pair())).await;
    let all = Server::builder()
        .layer(Identity::new())
        .add_service(Closures::default().server());
    check(&run(all, Wire::Net.pair())).await;
    let own = layered(&Identity::new(), Closures::default().server());
    check(&run(Server::builder().add_service(own), Wire::Net.pair())).await;
}

#[test]
fn layers_of_a_service_know_the_kinds_of_its_methods() {
    fn kinds<S: NamedService>(_: &S) -> Vec<MethodKind> {
        S::METHODS.iter().map(MethodDescriptor::kind).collect()
    }
    let expected = [
        MethodKind::Unary,
        MethodKind::ServerStreaming,
        MethodKind::ClientStreaming,
        MethodKind::BidiStreaming,
    ];
    let server: StreamsServer<_> = Closures::default().server();
    assert_eq!(kinds(&server), expected);
    assert_eq!(kinds(&layered(&Identity::new(), server)), expected);
}
