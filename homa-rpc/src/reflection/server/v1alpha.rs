//! `grpc.reflection.v1alpha.ServerReflection`.

use std::sync::Arc;

use super::answer::Knowledge;
use super::stream::ServerReflectionInfoStream;
use crate::Streaming;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;
use crate::reflection::pb::v1alpha::ServerReflectionRequest;
pub use crate::reflection::pb::v1alpha::server_reflection_server::{
    ServerReflection, ServerReflectionServer,
};

/// The service of this version. A [`Builder`](super::Builder) makes it.
#[derive(Debug)]
pub struct ReflectionService {
    known: Arc<Knowledge>,
}

impl ReflectionService {
    pub(super) const fn new(known: Arc<Knowledge>) -> Self {
        Self { known }
    }
}

#[crate::async_trait]
impl ServerReflection for ReflectionService {
    type ServerReflectionInfoStream = ServerReflectionInfoStream;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let known = Arc::clone(&self.known);
        let stream = ServerReflectionInfoStream::new(request.into_inner(), known);
        Ok(Response::new(stream))
    }
}
