//! The generated service of `streams.proto`, served by closures, and what tests do with streams.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of a test")]

#[rustfmt::skip]
#[path = "streams.rs"]
mod generated;

use std::future::Future;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use homa_rpc::codegen::BoxFuture;
use homa_rpc::{BoxStream, Request, Response, Status, Streaming};

pub use generated::Item;
pub use generated::streams_client::{StreamsApi, StreamsClient};
pub use generated::streams_server::{Streams, StreamsServer};

type Method<Req, Res> =
    Box<dyn Fn(Request<Req>) -> BoxFuture<Response<Res>, Status> + Send + Sync + 'static>;

/// The service, with a closure for each method. By default a method echoes.
pub struct Closures {
    say: Method<Item, Item>,
    list: Method<Item, BoxStream<Item>>,
    record: Method<Streaming<Item>, Item>,
    chat: Method<Streaming<Item>, BoxStream<Item>>,
}

fn boxed<F, Fut, Req, Res>(f: F) -> Method<Req, Res>
where
    F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
{
    Box::new(move |request| Box::pin(f(request)))
}

impl Default for Closures {
    /// `say` gives the item back, `list` as many as its number says, `record` the last one with the number
    /// of all, `chat` each.
    fn default() -> Self {
        Self {
            say: boxed(async |request: Request<Item>| Ok(Response::new(request.into_inner()))),
            list: boxed(async |request: Request<Item>| {
                let item = request.into_inner();
                Ok(Response::new(items(0..item.number).boxed()))
            }),
            record: boxed(async |request: Request<Streaming<Item>>| {
                let mut requests = request.into_inner();
                let mut last = Item::default();
                let mut number = 0;
                while let Some(item) = requests.message().await? {
                    last = item;
                    number += 1;
                }
                Ok(Response::new(Item { number, ..last }))
            }),
            chat: boxed(async |request: Request<Streaming<Item>>| {
                Ok(Response::new(request.into_inner().boxed()))
            }),
        }
    }
}

impl Closures {
    pub fn list<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Request<Item>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<BoxStream<Item>>, Status>> + Send + 'static,
    {
        self.list = boxed(f);
        self
    }

    pub fn record<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Request<Streaming<Item>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Item>, Status>> + Send + 'static,
    {
        self.record = boxed(f);
        self
    }

    pub fn chat<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(Request<Streaming<Item>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<BoxStream<Item>>, Status>> + Send + 'static,
    {
        self.chat = boxed(f);
        self
    }

    pub fn server(self) -> StreamsServer<Self> {
        StreamsServer::new(self)
    }

    /// A client that calls the server without anything between the two.
    pub fn client(self) -> StreamsClient<StreamsServer<Self>> {
        StreamsClient::new(self.server())
    }
}

#[homa_rpc::async_trait]
impl Streams for Closures {
    async fn say(&self, request: Request<Item>) -> Result<Response<Item>, Status> {
        (self.say)(request).await
    }

    type ListStream = BoxStream<Item>;

    async fn list(&self, request: Request<Item>) -> Result<Response<BoxStream<Item>>, Status> {
        (self.list)(request).await
    }

    async fn record(&self, request: Request<Streaming<Item>>) -> Result<Response<Item>, Status> {
        (self.record)(request).await
    }

    type ChatStream = BoxStream<Item>;

    async fn chat(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<BoxStream<Item>>, Status> {
        (self.chat)(request).await
    }
}

impl Item {
    pub fn number(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// An item of so many bytes of data.
    pub fn long(len: usize) -> Self {
        Self {
            data: Bytes::from(vec![7; len]),
            ..Self::default()
        }
    }
}

/// Items with these numbers, all ready.
pub fn items<I>(numbers: I) -> impl stream::Stream<Item = Result<Item, Status>> + Send + 'static
where
    I: IntoIterator<Item = u64, IntoIter: Send + 'static>,
{
    stream::iter(numbers).map(|number| Ok(Item::number(number)))
}

/// The numbers of all items to come.
pub async fn numbers(stream: &mut Streaming<Item>) -> Result<Vec<u64>, Status> {
    let mut numbers = Vec::new();
    while let Some(item) = stream.message().await? {
        numbers.push(item.number);
    }
    Ok(numbers)
}
