//! The service of `proto/bench/bench.proto`, for homa-rpc and for tonic. Both use the same messages.

use bytes::Bytes;
use homa_rpc::async_trait;

use self::messages::{Payload, Received};

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

const fn received(payload: &Payload) -> Received {
    Received {
        bytes: payload.body.len() as u64,
    }
}

/// The service.
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
