//! A service with a method of each kind, its server and its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use homa_rpc::{BoxStream, Channel, Request, Response, Server, Status, Streaming};
use homa_transport::{BindError, Config};
use tokio::task::AbortHandle;

use crate::wire::{OpenError, Uri};

#[allow(missing_docs, unreachable_pub, dead_code, reason = "generated code")]
mod messages {
    homa_rpc::include_proto!("test.streams");
}

use messages::streams_server::{Streams, StreamsServer};

pub use messages::Item;
pub use messages::streams_client::StreamsClient;

impl Item {
    /// An item with a number and so many bytes.
    #[must_use]
    pub fn of(number: u64, len: usize) -> Self {
        let byte = u8::try_from(number % 251).unwrap_or_default();
        let data = Bytes::from(vec![byte; len]);
        Self { data, number }
    }
}

/// A server of that service. Dropped, it ends without a word.
///
/// `say` gives the item back with the number of streams that are open, `list` as many of the item as its number
/// says, `record` the number of items, `chat` each item.
#[derive(Debug)]
pub struct StreamServer {
    uri: Uri,
    open: Arc<AtomicU64>,
    task: AbortHandle,
}

impl StreamServer {
    /// Serves on a socket of its own. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be opened.
    pub async fn open(uri: &Uri, config: &Config) -> Result<Self, OpenError> {
        let socket = uri.listen(config).await?;
        let uri = uri.of_listener(&*socket);
        let echoing = Echoing::default();
        let open = Arc::clone(&echoing.open);
        let service = StreamsServer::new(echoing);
        let bound = Server::builder().add_service(service);
        let bound = bound
            .bind_socket(socket)
            .map_err(|_| BindError::NoRuntime)?;
        Ok(Self {
            uri,
            open,
            task: tokio::spawn(bound.serve()).abort_handle(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// How many streams it has open for its clients.
    #[must_use]
    pub fn open_streams(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client of such a server, on a socket of its own. Must run inside a tokio runtime.
///
/// # Errors
/// If the socket cannot be opened.
pub fn client(uri: &Uri, config: &Config) -> Result<StreamsClient, OpenError> {
    let channel = Channel::builder().socket(uri.open_client(config)?);
    let channel = channel.build(uri.to_string());
    Ok(StreamsClient::new(
        channel.map_err(|_| BindError::NoRuntime)?,
    ))
}

/// How many streams the server has open for its clients.
///
/// # Errors
/// If it does not answer.
pub async fn open_streams(client: &StreamsClient) -> Result<u64, Status> {
    Ok(client.say(Item::default()).await?.get_ref().number)
}

#[derive(Debug, Default)]
struct Echoing {
    open: Arc<AtomicU64>,
}

/// A stream that is open.
struct Open(Arc<AtomicU64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echoing {
    fn open(&self) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(&self.open))
    }
}

fn held(items: BoxStream<Item>, open: Open) -> Response<BoxStream<Item>> {
    let items = items.map(move |item| {
        let _held = &open;
        item
    });
    Response::new(items.boxed())
}

#[homa_rpc::async_trait]
impl Streams for Echoing {
    async fn say(&self, request: Request<Item>) -> Result<Response<Item>, Status> {
        let number = self.open.load(Ordering::SeqCst);
        let item = request.into_inner();
        Ok(Response::new(Item { number, ..item }))
    }

    type ListStream = BoxStream<Item>;

    async fn list(&self, request: Request<Item>) -> Result<Response<BoxStream<Item>>, Status> {
        let Item { data, number } = request.into_inner();
        let items = stream::iter(0..number).map(move |number| {
            let data = data.clone();
            Ok(Item { data, number })
        });
        Ok(held(items.boxed(), self.open()))
    }

    async fn record(&self, request: Request<Streaming<Item>>) -> Result<Response<Item>, Status> {
        let _open = self.open();
        let mut requests = request.into_inner();
        let mut number = 0;
        while requests.message().await?.is_some() {
            number += 1;
        }
        Ok(Response::new(Item::of(number, 0)))
    }

    type ChatStream = BoxStream<Item>;

    async fn chat(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<BoxStream<Item>>, Status> {
        Ok(held(request.into_inner().boxed(), self.open()))
    }
}
