//! The processes that are measured: a server and a client for each stack, this program again.
//!
//! See [`crate::process`] for how they are told what to do.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum as _};
use homa_transport::Config;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::floor::Waiting;
use super::homa::{self, Counters, HomaCalls};
use super::load::{self, Calls, Measured};
use super::pair::Round;
use super::scenario::Scenario;
use super::stack::Stack;
use super::usage::Usage;
use super::{floor_tcp, floor_udp, tonic};
use crate::process::{answer, orders};

/// How long the floors ask for data before they sleep: as long as homa-rpc's sockets do.
const SPIN: Duration = Duration::from_micros(100);

/// What a child is to be, as the arguments of a hidden command.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    #[arg(value_enum)]
    pub(crate) stack: Stack,
    /// The core for all of its threads
    pub(crate) core: usize,
    /// Whether it may ask for data again and again before it sleeps
    #[arg(action = ArgAction::Set)]
    pub(crate) polling: bool,
    /// A client's servers; none for a server, or where both are one process
    pub(crate) uris: Vec<String>,
}

/// What a child is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Say what the process has used up.
    Usage,
    /// Make calls for so many milliseconds.
    Run { scenario: String, ms: u64 },
}

impl Role {
    /// The words after the command's name.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let mut words = vec![
            self.stack.name().to_owned(),
            self.core.to_string(),
            self.polling.to_string(),
        ];
        words.extend_from_slice(&self.uris);
        words
    }

    fn config(&self) -> Config {
        let config = Config::default();
        if self.polling {
            return config;
        }
        Config {
            busy_poll: Duration::ZERO,
            ..config
        }
    }

    const fn waiting(&self) -> Waiting {
        let spin = if self.polling { SPIN } else { Duration::ZERO };
        Waiting { spin }
    }

    /// Pins this process, and makes a runtime with one worker.
    fn start(&self) -> Result<Runtime, String> {
        let pinned = || {
            let mut cores = CpuSet::new();
            cores.set(self.core)?;
            sched_setaffinity(Pid::from_raw(0), &cores)
        };
        pinned().map_err(|error| format!("cannot run on core {}: {error}", self.core))?;
        Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))
    }
}

/// Runs a server.
pub(crate) fn server(role: &Role) -> ExitCode {
    child(role, |runtime| {
        let (uris, counters) = serve(role, runtime)?;
        answer(Ok(uris));
        orders(|order| match order {
            Order::Usage => Ok(Usage::now(&counters)),
            Order::Run { .. } => Err(format!("a server cannot do {order:?}")),
        });
        Ok(())
    })
}

/// Runs a client.
pub(crate) fn client(role: &Role) -> ExitCode {
    child(role, |runtime| {
        let mut client = Client::new(role, runtime)?;
        answer(Ok(&role.uris));
        orders(|order| match order {
            Order::Run { scenario, ms } => {
                let scenario = Scenario::from_str(&scenario, false)?;
                client.run(runtime, scenario, Duration::from_millis(ms))
            }
            Order::Usage => Err("a client reports its usage with each round".to_owned()),
        });
        Ok(())
    })
}

fn child(role: &Role, run: impl FnOnce(&Runtime) -> Result<(), String>) -> ExitCode {
    if let Err(error) = role.start().and_then(|runtime| run(&runtime)) {
        answer::<()>(Err(error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Starts to serve, and returns the addresses.
fn serve(role: &Role, runtime: &Runtime) -> Result<(Vec<String>, Counters), String> {
    let _inside = runtime.enter();
    match role.stack {
        Stack::Tonic => Ok((tonic::serve()?, None)),
        Stack::FloorUdp => {
            let (server, address) = floor_udp::Server::bind(role.waiting())?;
            std::thread::spawn(move || report(server.serve()));
            Ok((vec![address], None))
        }
        Stack::FloorTcp => {
            let (listener, address) = floor_tcp::bind()?;
            let waiting = role.waiting();
            std::thread::spawn(move || report(floor_tcp::serve(&listener, waiting)));
            Ok((vec![address], None))
        }
        Stack::HomaUdp | Stack::HomaRaw | Stack::HomaKernel | Stack::HomaMem => {
            let (server, uri, counters) = homa::bind(role.stack, role.config())?;
            runtime.spawn(async { report(server.serve().await.map_err(|e| e.to_string())) });
            Ok((vec![uri], counters))
        }
    }
}

fn report(result: Result<(), String>) {
    if let Err(error) = result {
        eprintln!("homa-bench rpc: a server failed: {error}");
    }
}

/// A client of any stack.
enum Client {
    Homa(HomaCalls, Counters),
    Tonic(Box<tonic::Connections>),
    Udp(floor_udp::Client),
    Tcp(floor_tcp::Client),
}

impl Client {
    fn new(role: &Role, runtime: &Runtime) -> Result<Self, String> {
        let served = if role.stack.in_process() {
            serve(role, runtime)?.0
        } else {
            role.uris.clone()
        };
        let uri = served.first().ok_or("no server was named")?;
        Ok(match role.stack {
            Stack::Tonic => Self::Tonic(Box::new(
                runtime.block_on(tonic::Connections::open(&served))?,
            )),
            Stack::FloorUdp => Self::Udp(floor_udp::Client::open(uri, role.waiting())?),
            Stack::FloorTcp => Self::Tcp(floor_tcp::Client::connect(uri, role.waiting())?),
            _ => {
                let _inside = runtime.enter();
                let (calls, counters) = HomaCalls::new(uri, role.config())?;
                Self::Homa(calls, counters)
            }
        })
    }

    /// One round.
    fn run(
        &mut self,
        runtime: &Runtime,
        scenario: Scenario,
        duration: Duration,
    ) -> Result<Round, String> {
        let counters = match self {
            Self::Homa(_, counters) => counters.clone(),
            _ => None,
        };
        let before = Usage::now(&counters);
        let mut measured = match self {
            Self::Homa(calls, _) => spawned(runtime, calls, scenario, duration)?,
            Self::Tonic(connections) => {
                spawned(runtime, connections.best_for(scenario), scenario, duration)?
            }
            Self::Udp(client) => client.run(scenario, duration)?,
            Self::Tcp(client) => client.run(scenario, duration)?,
        };
        let client = Usage::now(&counters) - before;
        Ok(Round {
            calls: measured.calls as f64,
            bytes: measured.bytes as f64,
            seconds: measured.took.as_secs_f64(),
            p50_us: measured.quantile_us(0.5),
            p99_us: measured.quantile_us(0.99),
            client,
            server: None,
        })
    }
}

/// Runs the load in tasks of the runtime, as a service would, and not on the thread that blocks.
fn spawned(
    runtime: &Runtime,
    calls: &(impl Calls + Sync),
    scenario: Scenario,
    duration: Duration,
) -> Result<Measured, String> {
    let (send, receive) = oneshot::channel();
    let calls = calls.clone();
    runtime.spawn(async move {
        // The receiver waits for it.
        let _ = send.send(load::run(&calls, scenario, duration).await);
    });
    receive
        .blocking_recv()
        .map_err(|_| "the client's task panicked".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::parse;

    #[test]
    fn a_role_survives_the_command_line() {
        let role = Role {
            stack: Stack::Tonic,
            core: 3,
            polling: true,
            uris: vec!["http://127.0.0.1:1".to_owned(), "b".to_owned()],
        };
        assert_eq!(parse(&role.to_arguments().join(" ")), Ok(role));
        assert!(parse::<Role>("tonic").is_err());
    }
}
