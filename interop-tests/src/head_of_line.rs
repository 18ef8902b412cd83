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
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use homa_transport::{Config, Stats, Transport};
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
/// Times that each of them is made before the short calls are measured, and meanwhile, on average.
const LONG_ROUNDS: usize = 2;
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
    /// DATA packets that the long calls sent meanwhile, first transmissions.
    pub long_sent: u64,
    /// DATA packets that they sent again.
    pub long_resent: u64,
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

/// Makes `calls` short calls on an idle network of [`HOSTS`] hosts, then as many beside long ones, with
/// all sockets set as `config` says.
///
/// # Errors
/// If a socket cannot be opened or a call fails.
///
/// # Panics
/// If the network has fewer hosts.
pub async fn measure(
    network: &Network,
    wire: Wire,
    config: &Config,
    calls: usize,
) -> Result<Measured, Failure> {
    let uri = Uri::new(wire, (network.host(0).v4(), 0).into());
    let server = {
        let config = config.clone();
        network
            .host(0)
            .spawn(async move { serve(&uri, &config).await })
    };
    let (_server, uri) = server.await??;

    let short = open_at(network, 1, &uri, config).await?;
    let idle = latency(network, &short, move |made| made >= calls).await?;
    let mut long = JoinSet::new();
    let long_done: Arc<AtomicUsize> = Arc::default();
    let mut sockets = Vec::new();
    for host in 2..network.layout().hosts {
        let client = open_at(network, host, &uri, config).await?;
        sockets.push(Arc::clone(client.transport()));
        for _ in 0..LONG_OUTSTANDING {
            let calls = call_for_ever(client.clone(), Arc::clone(&long_done));
            long.spawn_on(calls, network.host(host).runtime());
        }
    }
    // A few rounds of long messages before, so that the hosts know each other, and as many meanwhile.
    let rounds = LONG_ROUNDS * long.len();
    let done = Arc::clone(&long_done);
    let warm_up = latency(network, &short, move |_| done.load(Relaxed) >= rounds);
    stops_early(&mut long, warm_up).await?;
    let done_before = long_done.load(Relaxed);
    let enough =
        move |made| made >= calls && long_done.load(Relaxed) >= done_before.saturating_add(rounds);
    let (before, sent_before) = (network.port_counters(0)?, total(&sockets));
    let start = Instant::now();
    let loaded = stops_early(&mut long, latency(network, &short, enough)).await?;
    let (port, sent) = (network.port_counters(0)?.since(&before), total(&sockets));
    Ok(Measured {
        idle,
        loaded,
        port,
        time: start.elapsed(),
        long_sent: sent.data_sent - sent_before.data_sent,
        long_resent: sent.data_resent - sent_before.data_resent,
    })
}

fn total(sockets: &[Arc<dyn Transport>]) -> Stats {
    let mut total = Stats::default();
    for socket in sockets {
        total += socket.stats();
    }
    total
}

/// A client at a host.
async fn open_at(
    network: &Network,
    host: usize,
    uri: &Uri,
    config: &Config,
) -> Result<EchoClient, Failure> {
    let (uri, config) = (uri.clone(), config.clone());
    let open = async move { EchoClient::open(&uri, &config).await };
    Ok(network.host(host).spawn(open).await??)
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

async fn serve(uri: &Uri, config: &Config) -> Result<(Arc<dyn Transport>, Uri), Failure> {
    let transport = uri.listen(config).await?;
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

async fn call_for_ever(client: EchoClient, done: Arc<AtomicUsize>) -> Result<(), Failure> {
    let request = request(0, LONG);
    loop {
        let result = client.call(request.clone()).await;
        result.map_err(|error| Failure::Call { len: LONG, error })?;
        done.fetch_add(1, Relaxed);
    }
}

/// Short calls of host 1, one after the other, until there are `enough`.
async fn latency(
    network: &Network,
    client: &EchoClient,
    enough: impl Fn(usize) -> bool + Send + 'static,
) -> Result<Latency, Failure> {
    let client = client.clone();
    let measured = network.host(1).spawn(async move {
        let request = request(0, SHORT);
        let mut times = Vec::new();
        while times.is_empty() || !enough(times.len()) {
            let start = Instant::now();
            let result = client.call(request.clone()).await;
            result.map_err(|error| Failure::Call { len: SHORT, error })?;
            times.push(start.elapsed());
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
