//! Methods that stream in the forms that options give to generated code, called within the process.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use homa_interop::{
    awkward::features::{common::Shared, v1 as features},
    forms::{boxed_arc, boxed_stubs, native, native_arc},
};
use homa_rpc::{
    BoxStream, Code, MethodDescriptor, MethodKind, Request, Response, Status, Streaming,
    codegen::Stream, server::NamedService,
};

type Reply<T> = Result<Response<T>, Status>;

/// Messages that are all there.
struct Ready<T>(std::vec::IntoIter<T>);

impl<T> Ready<T> {
    fn of(messages: impl IntoIterator<Item = T>) -> Self {
        Self(Vec::from_iter(messages).into_iter())
    }
}

impl<T> Unpin for Ready<T> {}

impl<T> Stream for Ready<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.0.next())
    }
}

async fn all<T>(response: Reply<Streaming<T>>) -> Result<Vec<T>, Status> {
    let mut stream = response?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

struct Twice;

impl native::names::services::box_stream_server::BoxStream for Twice {
    // Not boxed.
    type BoxStreamStream = Ready<Result<native::names::prelude::BoxStream, Status>>;

    async fn box_stream(
        &self,
        request: Request<native::names::prelude::BoxStream>,
    ) -> Reply<Self::BoxStreamStream> {
        let message = request.into_inner();
        Ok(Response::new(Ready::of([Ok(message.clone()), Ok(message)])))
    }
}

impl native::names::services::stream_server::Stream for Twice {
    type StreamStream = Streaming<native::names::prelude::Stream>;

    async fn stream(
        &self,
        request: Request<Streaming<native::names::prelude::Stream>>,
    ) -> Reply<Self::StreamStream> {
        // The stream of requests is one of responses.
        Ok(Response::new(request.into_inner()))
    }
}

/// What takes any client of the service.
async fn exchange(
    client: &impl native::names::services::stream_client::StreamApi,
    count: usize,
) -> Result<usize, Status> {
    let messages = (0..count).map(|_| native::names::prelude::Stream::default());
    let request = Request::new(Box::pin(Ready::of(messages)) as homa_rpc::BoxRequestStream<_>);
    Ok(all(client.stream(request).await).await?.len())
}

#[tokio::test]
async fn native_traits_have_streams() {
    use native::names::{prelude, services};
    let server = services::box_stream_server::BoxStreamServer::new(Twice);
    let client = services::box_stream_client::BoxStreamClient::new(server);
    let messages = all(client.box_stream(prelude::BoxStream::default()).await).await;
    assert_eq!(messages.unwrap().len(), 2);
    let server = services::stream_server::StreamServer::new(Twice);
    let client = services::stream_client::StreamClient::new(server);
    // Sent to another task, as a handler would be.
    let count = tokio::spawn(async move { exchange(&client, 3).await });
    assert_eq!(count.await.unwrap().unwrap(), 3);
}

#[homa_rpc::async_trait]
impl boxed_arc::names::services::item_server::Item for Twice {
    type ItemStream = BoxStream<boxed_arc::names::prelude::Item>;

    async fn item(
        self: Arc<Self>,
        request: Request<boxed_arc::names::prelude::Item>,
    ) -> Reply<Self::ItemStream> {
        let item = request.into_inner();
        Ok(Response::new(Box::pin(Ready::of([Ok(item)]))))
    }

    type SelfStream = BoxStream<boxed_arc::names::prelude::Item>;

    async fn self_(
        self: Arc<Self>,
        request: Request<Streaming<boxed_arc::names::prelude::Self_>>,
    ) -> Reply<Self::SelfStream> {
        let requests = all(Ok(Response::new(request.into_inner()))).await?;
        let items = requests.iter().map(|_| Ok(Default::default()));
        Ok(Response::new(Box::pin(Ready::of(items))))
    }

    async fn send(
        self: Arc<Self>,
        _: Request<Streaming<boxed_arc::names::prelude::Send>>,
    ) -> Reply<boxed_arc::names::prelude::Pin> {
        Err(Status::aborted("sent"))
    }

    async fn new_(
        self: Arc<Self>,
        _: Request<boxed_arc::names::prelude::Future>,
    ) -> Reply<boxed_arc::names::prelude::Result> {
        Err(Status::aborted("new"))
    }
}

#[tokio::test]
async fn a_service_has_methods_of_every_kind_with_a_shared_handler() {
    use boxed_arc::names::{prelude, services};
    let server = services::item_server::ItemServer::new(Twice);
    let client = services::item_client::ItemClient::new(server);
    let one = all(client.item(prelude::Item::default()).await).await;
    assert_eq!(one.unwrap().len(), 1);
    let requests = Ready::of([prelude::Self_::default(), prelude::Self_::default()]);
    let two = all(client.self_(requests).await).await;
    assert_eq!(two.unwrap().len(), 2);
    let requests = Ready::of([prelude::Send::default()]);
    let status = client.send(requests).await.unwrap_err();
    assert_eq!(status.message(), "sent");
    let status = client.new_(prelude::Future::default()).await.unwrap_err();
    assert_eq!(status.message(), "new");
}

#[homa_rpc::async_trait]
impl boxed_stubs::names::services::item_server::Item for Twice {
    /// One of the four; without a type of its own, since the others have none.
    async fn item(
        &self,
        request: Request<boxed_stubs::names::prelude::Item>,
    ) -> Reply<BoxStream<boxed_stubs::names::prelude::Item>> {
        let item = request.into_inner();
        Ok(Response::new(Box::pin(Ready::of([Ok(item)]))))
    }
}

impl native_arc::names::services::item_server::Item for Twice {
    async fn send(
        self: Arc<Self>,
        request: Request<Streaming<native_arc::names::prelude::Send>>,
    ) -> Reply<native_arc::names::prelude::Pin> {
        all(Ok(Response::new(request.into_inner()))).await?;
        Ok(Response::new(native_arc::names::prelude::Pin::default()))
    }
}

#[tokio::test]
async fn methods_of_every_kind_can_be_left_out() {
    let unimplemented = |status: Status, method: &str| {
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        let text = format!("/names.services.Item/{method} is not implemented");
        assert_eq!(status.message(), text);
    };
    {
        use boxed_stubs::names::{prelude, services};
        let server = services::item_server::ItemServer::new(Twice);
        let client = services::item_client::ItemClient::new(server);
        let one = all(client.item(prelude::Item::default()).await).await;
        assert_eq!(one.unwrap().len(), 1);
        let none = Ready::of([]);
        unimplemented(client.self_(none).await.unwrap_err(), "Self");
        let none = Ready::of([]);
        unimplemented(client.send(none).await.unwrap_err(), "Send");
        let new = client.new_(prelude::Future::default()).await;
        unimplemented(new.unwrap_err(), "New");
    }
    use native_arc::names::{prelude, services};
    let server = services::item_server::ItemServer::new(Twice);
    let client = services::item_client::ItemClient::new(server);
    let none = Ready::of([]);
    client.send(none).await.unwrap();
    let item = client.item(prelude::Item::default()).await;
    unimplemented(item.unwrap_err(), "Item");
    let none = Ready::of([]);
    unimplemented(client.self_(none).await.unwrap_err(), "Self");
}

struct Features;

#[homa_rpc::async_trait]
impl features::streams_server::Streams for Features {
    type WatchStream = BoxStream<features::Response>;

    async fn watch(&self, _: Request<features::Request>) -> Reply<Self::WatchStream> {
        let responses = [Ok(features::Response {}), Err(Status::aborted("enough"))];
        Ok(Response::new(Box::pin(Ready::of(responses))))
    }

    async fn upload_all(&self, request: Request<Streaming<Shared>>) -> Reply<()> {
        let all = all(Ok(Response::new(request.into_inner()))).await?;
        assert_eq!(all.len(), 2);
        Ok(Response::new(()))
    }

    type ChatStream = BoxStream<features::outer::Inner>;

    async fn chat(&self, request: Request<Streaming<String>>) -> Reply<Self::ChatStream> {
        let names = all(Ok(Response::new(request.into_inner()))).await?;
        let inner = |name| features::outer::Inner {
            deepest: Some(features::outer::inner::Deepest { r#type: name }),
        };
        let responses = names.into_iter().map(move |name| Ok(inner(name)));
        Ok(Response::new(Box::pin(Ready::of(responses))))
    }

    async fn ping(&self, _: Request<features::Request>) -> Reply<features::Response> {
        Ok(Response::new(features::Response {}))
    }

    type SelfStream = Streaming<features::Type>;

    async fn self_(&self, request: Request<Streaming<features::Type>>) -> Reply<Self::SelfStream> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn messages_of_other_packages_and_scalars_are_streamed() {
    let server = features::streams_server::StreamsServer::new(Features);
    let client = features::streams_client::StreamsClient::new(server);
    let mut watch = client
        .watch(features::Request {})
        .await
        .unwrap()
        .into_inner();
    assert!(watch.message().await.unwrap().is_some());
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Aborted);
    let uploads = Ready::of([Shared::default(), Shared::default()]);
    client.upload_all(uploads).await.unwrap();
    let names = ["", "b"].map(str::to_owned);
    let inner = all(client.chat(Ready::of(names)).await).await.unwrap();
    let types: Vec<_> = inner
        .into_iter()
        .map(|inner| inner.deepest.unwrap().r#type)
        .collect();
    assert_eq!(types, ["", "b"]);
    client.ping(features::Request {}).await.unwrap();
    #[expect(deprecated, reason = "it is so in the schema")]
    let echoed = client.self_(Ready::of([features::Type {}])).await;
    assert_eq!(all(echoed).await.unwrap().len(), 1);
}

#[test]
fn methods_know_their_kind() {
    type Server = features::streams_server::StreamsServer<Features>;
    let kinds: Vec<_> = <Server as NamedService>::METHODS
        .iter()
        .map(|method: &MethodDescriptor| (method.method(), method.kind()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("Watch", MethodKind::ServerStreaming),
            ("upload_all", MethodKind::ClientStreaming),
            ("Chat", MethodKind::BidiStreaming),
            ("Ping", MethodKind::Unary),
            ("Self", MethodKind::BidiStreaming),
        ]
    );
}
