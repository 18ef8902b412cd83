//! How long short calls take while long messages fill the link that they share.
//!
//! ```text
//!  host 1: short calls ──────┐
//!  host 2: long requests ────┤► switch ─► host 0: the server
//!  host 3: long requests ────┤    (the slow port)
//!  ...                       ┘
//! ```
//!
//! The server answers with few bytes, so that only its own port is busy.

use std::sync::Arc;
use std::time::Duration;

use homa_transport::{Config, Transport};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::conformance::Failure;
use crate::echo::{EchoClient, request};
use crate::network::{Network, PortCounters};
use crate::wire::{Uri, Wire};

/// Hosts that the measurement needs: the server, one with short calls, the others with long ones. They
/// are as many as there are levels for granted bytes, see [`crate::conformance::priorities`], so that
/// each level is used.
pub const HOSTS: usize = 6;
/// Bytes of a short request.
const SHORT: usize = 100;
/// Bytes of a long request.
const LONG: usize = 500_000;
/// Long calls in progress at each host that makes them.
const LONG_OUTSTANDING: usize = 2;
/// Bytes of an answer at most.
const ANSWER: usize = 100;

/// Times of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: Duration,
    /// 99 of 100 calls took no longer.
    pub p99: Duration,
}

/// What was measured on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Short calls on an idle network.
    pub idle: Latency,
    /// Short calls beside long ones.
    pub loaded: Latency,
    /// What left the server's port while it was loaded.
    pub port: PortCounters,
    /// Time for which it was loaded.
    pub time: Duration,
}

impl Measured {
    /// How many times the idle P99 the loaded one is.
    #[must_use]
    pub fn p99_ratio(&self) -> f64 {
        self.loaded.p99.as_secs_f64() / self.idle.p99.as_secs_f64()
    }

    /// Share of the link's speed that was used, in percent.
    #[must_use]
    pub fn used_percent(&self, mbit: u32) -> f64 {
        // At 10⁶ bit/s, a byte takes 8 µs.
        let bytes: u64 = self.port.bytes.iter().sum();
        let needed = Duration::from_micros(8 * bytes) / mbit.max(1);
        100.0 * needed.as_secs_f64() / self.time.as_secs_f64()
    }
}

/// Makes `calls` short calls on an idle network of [`HOSTS`] hosts, then as many beside long ones.
///
/// # Errors
/// If a socket cannot be opened or a call fails.
///
/// # Panics
/// If the network has fewer hosts.
pub async fn measure(network: &Network, wire: Wire, calls: usize) -> Result<Measured, Failure> {
    let uri = Uri::new(wire, (network.host(0).v4(), 0).into());
    let server = network.host(0).spawn(async move { serve(&uri).await });
    let (_server, uri) = server.await??;

    let idle = latency(network, &uri, calls).await?;
    let mut long = JoinSet::new();
    for host in 2..network.layout().hosts {
        let client = {
            let uri = uri.clone();
            let open = async move { EchoClient::open(&uri, &Config::default()).await };
            network.host(host).spawn(open).await??
        };
        for _ in 0..LONG_OUTSTANDING {
            let client = client.clone();
            long.spawn_on(call_for_ever(client), network.host(host).runtime());
        }
    }
    // Until the first long messages are through, the link may not be full.
    let warm_up = latency(network, &uri, calls.div_ceil(10));
    stops_early(&mut long, warm_up).await?;
    let (before, start) = (network.port_counters(0)?, Instant::now());
    let loaded = stops_early(&mut long, latency(network, &uri, calls)).await?;
    let (port, time) = (network.port_counters(0)?.since(&before), start.elapsed());
    Ok(Measured {
        idle,
        loaded,
        port,
        time,
    })
}

/// `measurement`, unless the long calls beside it fail.
async fn stops_early(
    long: &mut JoinSet<Result<(), Failure>>,
    measurement: impl Future<Output = Result<Latency, Failure>>,
) -> Result<Latency, Failure> {
    tokio::select! {
        result = measurement => result,
        Some(ended) = long.join_next() => match ended? {
            Err(failure) => Err(failure),
            Ok(()) => Err(Failure::unexpected("long calls for ever", "their end")),
        },
    }
}

async fn serve(uri: &Uri) -> Result<(Arc<dyn Transport>, Uri), Failure> {
    let transport = uri.listen(&Config::default()).await?;
    let answer = |incoming: homa_transport::Incoming| {
        let answer = incoming.message.slice(..ANSWER.min(incoming.message.len()));
        // A client that is gone needs no answer.
        let _ = incoming.responder.respond(answer.into());
    };
    let served = transport.serve(Arc::new(answer));
    served.map_err(crate::wire::OpenError::from)?;
    let uri = uri.of_listener(&*transport);
    Ok((transport, uri))
}

async fn call_for_ever(client: EchoClient) -> Result<(), Failure> {
    let request = request(0, LONG);
    loop {
        let result = client.call(request.clone()).await;
        result.map_err(|error| Failure::Call { len: LONG, error })?;
    }
}

/// Short calls of host 1, one after the other.
async fn latency(network: &Network, uri: &Uri, calls: usize) -> Result<Latency, Failure> {
    let uri = uri.clone();
    let measured = network.host(1).spawn(async move {
        let client = EchoClient::open(&uri, &Config::default()).await?;
        let request = request(0, SHORT);
        // The first ones also make acquaintance.
        let first = 3;
        let mut times = Vec::with_capacity(calls);
        for index in 0..first + calls.max(1) {
            let start = Instant::now();
            let result = client.call(request.clone()).await;
            result.map_err(|error| Failure::Call { len: SHORT, error })?;
            if index >= first {
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        let at = |share: usize| {
            let rank = (times.len() * share).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or_default()
        };
        Ok::<_, Failure>(Latency {
            p50: at(50),
            p99: at(99),
        })
    });
    measured.await?
}
