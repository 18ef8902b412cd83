//! The forms that options give to generated code, served and called.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serve;

use std::sync::Arc;

use homa_interop::{
    awkward::names::{self, services as plain},
    documented::strict::{
        common::{Amount, amount},
        v1::{
            GetItemRequest, Item,
            store_service_client::{StoreServiceApi, StoreServiceClient},
            store_service_server::{self, StoreService, StoreServiceServer},
        },
    },
    forms::{boxed_arc, native, native_arc},
};
use homa_rpc::{
    Channel, Code, Idempotency, Request, Response, Server, Status, server::NamedService,
};
use serve::with_server;

type Reply<T> = Result<Response<T>, Status>;

#[derive(Clone)]
struct Everything;

#[homa_rpc::async_trait]
impl StoreService for Everything {
    /// Gives back what it knows of its own method.
    async fn get_item(&self, request: Request<GetItemRequest>) -> Reply<Item> {
        let method = request
            .method()
            .ok_or_else(|| Status::internal("no method"))?;
        Ok(Response::new(Item {
            name: format!("{} {:?}", method.path(), method.idempotency()),
            ..Item::default()
        }))
    }

    async fn put_item(&self, request: Request<Item>) -> Reply<()> {
        let level = request.method().map(|method| method.idempotency());
        assert_eq!(level, Some(Idempotency::Idempotent));
        Ok(Response::new(()))
    }

    async fn add(&self, request: Request<Amount>) -> Reply<i64> {
        Ok(Response::new(request.into_inner().value))
    }

    async fn old(&self, _: Request<()>) -> Reply<Vec<u8>> {
        Ok(Response::new(vec![1, 2, 3]))
    }

    async fn undocumented(&self, _: Request<String>) -> Reply<prost_types::Any> {
        Err(Status::unimplemented("not even documented"))
    }
}

#[tokio::test]
async fn a_client_trait_is_usable_as_dyn_and_methods_know_their_idempotency() {
    let server = Server::builder()
        .add_service(StoreServiceServer::new(Everything))
        .bind("homa+mem://forms-store")
        .unwrap();
    with_server(server, async |channel| {
        let client: Arc<dyn StoreServiceApi> = Arc::new(StoreServiceClient::new(channel));
        let reply = client.get_item(Request::new(GetItemRequest::default()));
        assert_eq!(
            reply.await.unwrap().into_inner().name,
            "/strict.v1.StoreService/GetItem NoSideEffects"
        );
        client
            .put_item(Request::new(Item::default()))
            .await
            .unwrap();
        let amount = Amount {
            value: 7,
            unit: Some(amount::Unit::None.into()),
            ..Amount::default()
        };
        assert_eq!(
            client.add(Request::new(amount)).await.unwrap().into_inner(),
            7
        );
        let undocumented = client.undocumented(Request::new(String::new())).await;
        assert_eq!(undocumented.unwrap_err().code(), Code::Unimplemented);
    })
    .await;
}

#[test]
fn a_server_names_its_service_and_its_methods() {
    assert_eq!(store_service_server::SERVICE_NAME, "strict.v1.StoreService");
    let methods = <StoreServiceServer<Everything> as NamedService>::METHODS;
    let levels: Vec<_> = methods
        .iter()
        .map(|method| (method.method(), method.idempotency()))
        .collect();
    assert_eq!(
        levels,
        [
            ("GetItem", Idempotency::NoSideEffects),
            ("PutItem", Idempotency::Idempotent),
            ("Add", Idempotency::Unknown),
            ("Old", Idempotency::Unknown),
            ("Undocumented", Idempotency::Unknown),
        ]
    );
}

#[test]
fn defaults_of_proto2_are_those_of_the_schema() {
    let amount = Amount::default();
    assert_eq!(amount.unit(), amount::Unit::Piece);
    assert_eq!(amount.text(), "a \"quoted\" \\ word\n");
    assert_eq!(amount.raw(), b"\0\xffabc");
    assert!(amount.limit().is_infinite());
}

#[test]
fn type_names_are_there_on_request() {
    use prost::Name as _;
    assert_eq!(Item::full_name(), "strict.v1.Item");
    assert_eq!(Item::type_url(), "/strict.v1.Item");
}

impl native::names::services::result_server::Result for Everything {
    async fn result(
        &self,
        request: Request<native::names::prelude::Result>,
    ) -> Reply<native::names::prelude::Result> {
        tokio::task::yield_now().await;
        Ok(Response::new(request.into_inner()))
    }
}

/// What takes any client of the service.
async fn echo(
    client: &impl native::names::services::result_client::ResultApi,
    text: &str,
) -> native::names::prelude::Result {
    use native::names::prelude::{self, result::Choice};
    let message = prelude::Result {
        choice: Some(Choice::Text(text.to_owned())),
        ..prelude::Result::default()
    };
    client
        .result(Request::new(message))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn native_traits_take_plain_async_functions() {
    use native::names::{
        prelude::result::Choice,
        services::{result_client::ResultClient, result_server::ResultServer},
    };
    let server = Server::builder()
        .add_service(ResultServer::new(Everything))
        .bind("homa+mem://forms-native")
        .unwrap();
    with_server(server, async |channel| {
        let client = ResultClient::new(channel);
        // Sent to another task, as a handler would be.
        let reply = tokio::spawn(async move { echo(&client, "x").await })
            .await
            .unwrap();
        assert_eq!(reply.choice, Some(Choice::Text("x".to_owned())));
    })
    .await;
}

#[homa_rpc::async_trait]
impl boxed_arc::names::services::service_server::Service for Everything {
    async fn service(
        self: Arc<Self>,
        request: Request<boxed_arc::names::prelude::Service>,
    ) -> Reply<boxed_arc::names::prelude::Service> {
        let kept = Arc::clone(&self);
        tokio::spawn(async move { drop(kept) }).await.unwrap();
        Ok(Response::new(request.into_inner()))
    }
}

impl native_arc::names::services::box_server::Box_ for Everything {
    async fn r#box(
        self: Arc<Self>,
        _: Request<native_arc::names::prelude::Box>,
    ) -> Reply<native_arc::names::prelude::Box> {
        Err(Status::data_loss("the box is empty"))
    }
}

impl native_arc::names::services::option_server::Option for Everything {}

#[tokio::test]
async fn servers_can_be_shared_and_answer_what_they_leave_out() {
    use boxed_arc::names::services as boxed;
    use native_arc::names::services as native;
    let server = Server::builder()
        .add_service(boxed::service_server::ServiceServer::new(Everything))
        .add_service(native::box_server::BoxServer::from_arc(Arc::new(
            Everything,
        )))
        .add_service(native::option_server::OptionServer::new(Everything))
        .bind("homa+mem://forms-shared")
        .unwrap();
    with_server(server, async |channel: Channel| {
        let client = boxed::service_client::ServiceClient::new(channel.clone());
        client
            .service(boxed_arc::names::prelude::Service::default())
            .await
            .unwrap();
        let client = native::box_client::BoxClient::new(channel.clone());
        let status = client
            .r#box(native_arc::names::prelude::Box::default())
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, "the box is empty")
        );
        let client = native::option_client::OptionClient::new(channel);
        let status = client
            .option(native_arc::names::prelude::Option::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(
            status.message(),
            "/names.services.Option/Option is not implemented"
        );
    })
    .await;
}

#[homa_rpc::async_trait]
impl plain::box_server::Box_ for Everything {
    async fn r#box(&self, request: Request<names::prelude::Box>) -> Reply<names::prelude::Box> {
        Ok(Response::new(request.into_inner()))
    }
}

#[homa_rpc::async_trait]
impl plain::t_server::T for Everything {
    async fn t(&self, request: Request<names::prelude::T>) -> Reply<names::prelude::T> {
        Ok(Response::new(request.into_inner()))
    }
}

#[homa_rpc::async_trait]
impl plain::b_server::B for Everything {
    async fn b(&self, request: Request<names::prelude::B>) -> Reply<names::prelude::B> {
        Ok(Response::new(request.into_inner()))
    }
}

#[homa_rpc::async_trait]
impl plain::self_server::Self_ for Everything {
    async fn self_(&self, request: Request<names::prelude::Self_>) -> Reply<names::prelude::Self_> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn services_named_like_parameters_and_like_what_macros_use_are_served() {
    let server = Server::builder()
        .add_service(plain::box_server::BoxServer::new(Everything))
        .add_service(plain::t_server::TServer::new(Everything))
        .add_service(plain::b_server::BServer::new(Everything))
        .add_service(plain::self_server::SelfServer::new(Everything))
        .bind("homa+mem://forms-names")
        .unwrap();
    with_server(server, async |channel| {
        let client = plain::box_client::BoxClient::new(channel.clone());
        client.r#box(names::prelude::Box::default()).await.unwrap();
        let client = plain::t_client::TClient::new(channel.clone());
        client.t(names::prelude::T::default()).await.unwrap();
        let client = plain::b_client::BClient::new(channel.clone());
        client.b(names::prelude::B::default()).await.unwrap();
        let client = plain::self_client::SelfClient::new(channel);
        client
            .self_(names::prelude::Self_::default())
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn layers_of_one_service_do_not_touch_the_others() {
    use homa_rpc::{layer::interceptor, server::layered};
    fn refuse(_: Request<()>) -> Result<Request<()>, Status> {
        Err(Status::permission_denied("not this service"))
    }
    let closed = plain::b_server::BServer::new(Everything);
    let server = Server::builder()
        .add_service(plain::t_server::TServer::new(Everything))
        .add_service(layered(&interceptor(refuse), closed))
        .add_service(plain::box_server::BoxServer::with_interceptor(
            Everything, refuse,
        ))
        .bind("homa+mem://forms-layers")
        .unwrap();
    with_server(server, async |channel| {
        let client = plain::t_client::TClient::new(channel.clone());
        client.t(names::prelude::T::default()).await.unwrap();
        let client = plain::b_client::BClient::new(channel.clone());
        let status = client.b(names::prelude::B::default()).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "not this service")
        );
        let client = plain::box_client::BoxClient::new(channel);
        let status = client
            .r#box(names::prelude::Box::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    })
    .await;
}

#[tokio::test]
async fn an_error_of_a_layer_that_is_not_ready_is_the_status_of_the_call() {
    use homa_rpc::server::layered;
    use std::task::{Context, Poll};
    use tower::{Layer, Service};

    /// A layer that is never ready.
    #[derive(Clone)]
    struct Broken<S>(S);
    struct Break;
    impl<S> Layer<S> for Break {
        type Service = Broken<S>;
        fn layer(&self, inner: S) -> Broken<S> {
            Broken(inner)
        }
    }
    impl<S: Service<R>, R> Service<R> for Broken<S> {
        type Response = S::Response;
        type Error = Status;
        type Future = std::future::Ready<Result<S::Response, Status>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
            Poll::Ready(Err(Status::unavailable("broken")))
        }
        fn call(&mut self, _: R) -> Self::Future {
            panic!("called although it was not ready");
        }
    }
    let server = Server::builder()
        .add_service(layered(&Break, plain::t_server::TServer::new(Everything)))
        .bind("homa+mem://forms-broken")
        .unwrap();
    with_server(server, async |channel| {
        let client = plain::t_client::TClient::new(channel);
        for _ in 0..2 {
            let status = client.t(names::prelude::T::default()).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unavailable, "broken")
            );
        }
    })
    .await;
}
