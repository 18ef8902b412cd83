//! Services whose names are hard on a code generator, served and called.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serve;

use homa_interop::awkward::{
    PingReply, PingRequest,
    bare_client::BareClient,
    bare_server::{Bare, BareServer},
    features::{
        common::{Shared, shared::Part},
        v1::{
            self, Outer,
            http_imports_client::HttpImportsClient,
            http_imports_server::{HttpImports, HttpImportsServer},
            keywords_client::KeywordsClient,
            keywords_server::{Keywords, KeywordsServer},
            nothing_server::{Nothing, NothingServer},
            outer::{Inner, inner::Deepest},
            service_client::ServiceClient,
            service_server::{Service, ServiceServer},
        },
    },
};
use homa_rpc::{Code, Request, Response, Server, Status};
use prost_types::{Any, Timestamp};
use serve::with_server;

type Result<T> = std::result::Result<Response<T>, Status>;

struct Awkward;

fn inner(name: &str) -> Inner {
    Inner {
        deepest: Some(Deepest {
            r#type: name.to_owned(),
        }),
    }
}

#[homa_rpc::async_trait]
impl Keywords for Awkward {
    async fn r#type(&self, _: Request<Outer>) -> Result<Inner> {
        Ok(Response::new(inner("type")))
    }

    async fn self_(&self, request: Request<Inner>) -> Result<Deepest> {
        let deepest = request.into_inner().deepest;
        deepest
            .map(Response::new)
            .ok_or_else(|| Status::invalid_argument("no deepest"))
    }

    async fn new_(&self, _: Request<v1::Type>) -> Result<v1::Type> {
        Ok(Response::new(v1::Type {}))
    }

    async fn clone_(&self, request: Request<Outer>) -> Result<Outer> {
        Ok(Response::new(request.into_inner()))
    }

    async fn r#async(&self, _: Request<Outer>) -> Result<Outer> {
        Ok(Response::new(Outer::default()))
    }

    async fn old(&self, _: Request<Outer>) -> Result<Outer> {
        Err(Status::unimplemented("too old"))
    }
}

#[homa_rpc::async_trait]
impl HttpImports for Awkward {
    async fn foreign(&self, request: Request<Shared>) -> Result<Part> {
        let amount = request
            .into_inner()
            .parts
            .iter()
            .map(|part| part.amount)
            .sum();
        Ok(Response::new(Part { amount }))
    }

    async fn nothing(&self, _: Request<()>) -> Result<()> {
        Ok(Response::new(()))
    }

    async fn known(&self, request: Request<Any>) -> Result<Timestamp> {
        let seconds = request
            .into_inner()
            .value
            .iter()
            .copied()
            .map(i64::from)
            .sum();
        Ok(Response::new(Timestamp { seconds, nanos: 0 }))
    }

    async fn wrapped(&self, request: Request<String>) -> Result<i64> {
        let number = request.into_inner().parse();
        number
            .map(Response::new)
            .map_err(|_| Status::invalid_argument("not a number"))
    }
}

#[homa_rpc::async_trait]
impl Service for Awkward {
    async fn call(&self, _: Request<v1::Request>) -> Result<v1::Response> {
        Ok(Response::new(v1::Response {}))
    }

    async fn poll_ready(&self, _: Request<v1::Request>) -> Result<v1::Response> {
        Err(Status::unavailable("not ready"))
    }
}

impl Nothing for Awkward {}

#[homa_rpc::async_trait]
impl Bare for Awkward {
    async fn ping(&self, _: Request<PingRequest>) -> Result<PingReply> {
        Ok(Response::new(PingReply { count: 1 }))
    }
}

#[tokio::test]
async fn methods_named_like_keywords_are_called() {
    let server = Server::builder()
        .add_service(KeywordsServer::new(Awkward))
        .bind("homa+mem://keywords")
        .unwrap();
    with_server(server, async |channel| {
        let client = KeywordsClient::new(channel);
        let reply = client.r#type(Outer::default()).await.unwrap();
        assert_eq!(reply.into_inner(), inner("type"));
        let reply = client.self_(inner("deep")).await.unwrap();
        assert_eq!(reply.into_inner().r#type, "deep");
        client.new_(v1::Type {}).await.unwrap();
        let outer = Outer {
            by_name: [("x".to_owned(), inner("y"))].into(),
            ..Outer::default()
        };
        assert_eq!(
            client.clone_(outer.clone()).await.unwrap().into_inner(),
            outer
        );
        client.r#async(Outer::default()).await.unwrap();
        #[expect(deprecated, reason = "the schema marks the method")]
        let error = client.old(Outer::default()).await.unwrap_err();
        assert_eq!(error.message(), "too old");
    })
    .await;
}

#[tokio::test]
async fn messages_of_other_packages_and_well_known_types_are_carried() {
    let server = Server::builder()
        .add_service(HttpImportsServer::new(Awkward))
        .bind("homa+mem://imports")
        .unwrap();
    with_server(server, async |channel| {
        let client = HttpImportsClient::new(channel);
        let shared = Shared {
            parts: vec![Part { amount: 2 }, Part { amount: 3 }],
        };
        assert_eq!(client.foreign(shared).await.unwrap().into_inner().amount, 5);
        client.nothing(()).await.unwrap();
        let any = Any {
            type_url: String::new(),
            value: vec![40, 2],
        };
        assert_eq!(client.known(any).await.unwrap().into_inner().seconds, 42);
        assert_eq!(
            client.wrapped("17".to_owned()).await.unwrap().into_inner(),
            17
        );
        let error = client.wrapped("x".to_owned()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    })
    .await;
}

#[tokio::test]
async fn services_with_clashing_names_with_no_methods_and_without_package_share_a_port() {
    let server = Server::builder()
        .add_service(ServiceServer::new(Awkward))
        .add_service(NothingServer::new(Awkward))
        .add_service(BareServer::new(Awkward))
        .bind("homa+mem://clashes")
        .unwrap();
    with_server(server, async |channel| {
        let client = ServiceClient::new(channel.clone());
        client.call(v1::Request {}).await.unwrap();
        let error = client.poll_ready(v1::Request {}).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::Unavailable, "not ready")
        );
        let reply = BareClient::new(channel).ping(PingRequest {}).await.unwrap();
        assert_eq!(reply.into_inner().count, 1);
    })
    .await;
}
