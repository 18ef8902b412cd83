//! Messages that are JSON instead of Protocol Buffers: a codec, and the service of the `json`
//! example, which the build script describes.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;
use homa_rpc::{Codec, Request, Response, Status};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Generated from the description in `build.rs`.
pub mod generated {
    homa_rpc::include_proto!("statistics.Statistics");
}

/// Encodes `E` and decodes `D` with serde.
pub struct JsonCodec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for JsonCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> fmt::Debug for JsonCodec<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonCodec")
    }
}

impl<E, D> Codec for JsonCodec<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = E;
    type Decode = D;

    fn encode(&self, message: E) -> Result<Bytes, Status> {
        serde_json::to_vec(&message)
            .map(Bytes::from)
            .map_err(|error| Status::internal(format!("cannot write JSON: {error}")))
    }

    fn decode(&self, bytes: Bytes) -> Result<D, Status> {
        serde_json::from_slice(&bytes)
            .map_err(|error| Status::internal(format!("cannot read JSON: {error}")))
    }
}

/// Some numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// In any order.
    pub numbers: Vec<f64>,
}

/// What they are together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many they are.
    pub count: usize,
    /// Their sum.
    pub sum: f64,
    /// The largest one, if there is any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub largest: Option<f64>,
}

/// Adds and compares.
#[derive(Debug)]
pub struct Arithmetic;

#[homa_rpc::async_trait]
impl generated::statistics_server::Statistics for Arithmetic {
    async fn summarize(&self, request: Request<Numbers>) -> Result<Response<Summary>, Status> {
        let numbers = request.into_inner().numbers;
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(Status::invalid_argument("a number must be finite"));
        }
        Ok(Response::new(Summary {
            count: numbers.len(),
            sum: numbers.iter().fold(0.0, |sum, number| sum + number),
            largest: numbers.into_iter().reduce(f64::max),
        }))
    }
}
