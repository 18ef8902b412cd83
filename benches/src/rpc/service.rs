//! The services of `proto/bench`, for homa-rpc and for tonic. Both use the same messages.

use std::pin::Pin;

use bytes::Bytes;
use homa_rpc::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use self::messages::{ItemsRequest, Payload, Received};
use super::scenario::BULK_BYTES;

/// The messages, with the clients and servers of homa-rpc.
#[expect(dead_code, unreachable_pub, reason = "generated code")]
pub(crate) mod messages {
    homa_rpc::include_proto!("bench");
}

/// The clients and servers of tonic.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub(crate) mod tonic_service {
    include!(concat!(env!("OUT_DIR"), "/tonic/bench.rs"));
}

pub(crate) const fn payload(body: Bytes) -> Payload {
    Payload { body }
}

/// The bodies as messages.
pub(crate) fn payloads(bodies: mpsc::Receiver<Bytes>) -> impl Stream<Item = Payload> + Send {
    ReceiverStream::new(bodies).map(payload)
}

fn items<E: Send + 'static>(request: &ItemsRequest) -> Sending<E> {
    let bytes = usize::try_from(request.bytes).unwrap_or(usize::MAX);
    let item = payload(Bytes::from(vec![7; bytes.min(BULK_BYTES)]));
    let items = (0..request.count).map(move |_| Ok(item.clone()));
    Box::pin(tokio_stream::iter(items))
}

/// What a server sends in one call.
type Sending<E> = Pin<Box<dyn Stream<Item = Result<Payload, E>> + Send>>;

const fn received(payload: &Payload) -> Received {
    Received {
        bytes: payload.body.len() as u64,
    }
}

/// The service, and that of streams.
#[derive(Debug)]
pub(crate) struct Service;

#[async_trait]
impl messages::bench_server::Bench for Service {
    async fn echo(
        &self,
        request: homa_rpc::Request<Payload>,
    ) -> Result<homa_rpc::Response<Payload>, homa_rpc::Status> {
        Ok(homa_rpc::Response::new(request.into_inner()))
    }

    async fn upload(
        &self,
        request: homa_rpc::Request<Payload>,
    ) -> Result<homa_rpc::Response<Received>, homa_rpc::Status> {
        Ok(homa_rpc::Response::new(received(&request.into_inner())))
    }
}

#[tonic::async_trait]
impl tonic_service::bench_server::Bench for Service {
    async fn echo(
        &self,
        request: tonic::Request<Payload>,
    ) -> Result<tonic::Response<Payload>, tonic::Status> {
        Ok(tonic::Response::new(request.into_inner()))
    }

    async fn upload(
        &self,
        request: tonic::Request<Payload>,
    ) -> Result<tonic::Response<Received>, tonic::Status> {
        Ok(tonic::Response::new(received(&request.into_inner())))
    }
}

#[async_trait]
impl messages::streams_server::Streams for Service {
    type ItemsStream = Sending<homa_rpc::Status>;

    async fn items(
        &self,
        request: homa_rpc::Request<ItemsRequest>,
    ) -> Result<homa_rpc::Response<Self::ItemsStream>, homa_rpc::Status> {
        Ok(homa_rpc::Response::new(items(request.get_ref())))
    }

    type PingPongStream = homa_rpc::Streaming<Payload>;

    async fn ping_pong(
        &self,
        request: homa_rpc::Request<homa_rpc::Streaming<Payload>>,
    ) -> Result<homa_rpc::Response<Self::PingPongStream>, homa_rpc::Status> {
        Ok(homa_rpc::Response::new(request.into_inner()))
    }
}

#[tonic::async_trait]
impl tonic_service::streams_server::Streams for Service {
    type ItemsStream = Sending<tonic::Status>;

    async fn items(
        &self,
        request: tonic::Request<ItemsRequest>,
    ) -> Result<tonic::Response<Self::ItemsStream>, tonic::Status> {
        Ok(tonic::Response::new(items(request.get_ref())))
    }

    type PingPongStream = tonic::Streaming<Payload>;

    async fn ping_pong(
        &self,
        request: tonic::Request<tonic::Streaming<Payload>>,
    ) -> Result<tonic::Response<Self::PingPongStream>, tonic::Status> {
        Ok(tonic::Response::new(request.into_inner()))
    }
}
