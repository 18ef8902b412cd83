//! The processes that are measured: a server and a client for each stack, this program again.
//!
//! A child reads one command per line from its standard input and answers with one line: `ok …` or
//! `error …`. Its first line says whether it is ready. It ends when its input does.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use homa_transport::Config;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::floor::Waiting;
use super::homa::{self, Counters, HomaCalls};
use super::load::{self, Calls, Measured};
use super::scenario::Scenario;
use super::stack::Stack;
use super::usage::Usage;
use super::{floor_tcp, floor_udp, tonic};

/// How long the floors ask for data before they sleep: as long as homa-rpc's sockets do.
const SPIN: Duration = Duration::from_micros(100);

/// What a child is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) stack: Stack,
    /// The core for all of its threads.
    pub(crate) core: usize,
    /// Whether it may ask for data again and again before it sleeps.
    pub(crate) polling: bool,
    /// A client's servers; none for a server, or where both are one process.
    pub(crate) uris: Vec<String>,
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

    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        Some(Self {
            stack: Stack::find(&words.next()?)?,
            core: words.next()?.parse().ok()?,
            polling: words.next()?.parse().ok()?,
            uris: words.collect(),
        })
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
pub(crate) fn server(words: impl Iterator<Item = String>) -> ExitCode {
    child(words, |role, runtime| {
        let (uris, counters) = serve(role, runtime)?;
        answer(Ok(uris.join(" ")));
        commands(|command| match command {
            "usage" => Ok(Usage::now(&counters).to_string()),
            _ => Err(format!("a server has no command {command:?}")),
        });
        Ok(())
    })
}

/// Runs a client.
pub(crate) fn client(words: impl Iterator<Item = String>) -> ExitCode {
    child(words, |role, runtime| {
        let mut client = Client::new(role, runtime)?;
        answer(Ok(String::new()));
        commands(|command| {
            let words: Vec<_> = command.split(' ').collect();
            let run = match *words.as_slice() {
                ["run", scenario, ms] => Scenario::find(scenario).zip(ms.parse().ok()),
                _ => None,
            };
            let (scenario, ms) =
                run.ok_or_else(|| format!("a client has no command {command:?}"))?;
            client.run(runtime, scenario, Duration::from_millis(ms))
        });
        Ok(())
    })
}

fn child(
    words: impl Iterator<Item = String>,
    run: impl FnOnce(&Role, &Runtime) -> Result<(), String>,
) -> ExitCode {
    let Some(role) = Role::parse(words) else {
        eprintln!("homa-bench: only `homa-bench rpc` starts this command");
        return ExitCode::from(2);
    };
    let result = role.start().and_then(|runtime| run(&role, &runtime));
    if let Err(error) = result {
        answer(Err(error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn answer(result: Result<String, String>) {
    let line = match result {
        Ok(text) => format!("ok {text}"),
        Err(text) => format!("error {}", text.replace('\n', " ")),
    };
    let mut out = std::io::stdout().lock();
    // A parent that is gone also ends the input.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn commands(mut run: impl FnMut(&str) -> Result<String, String>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        answer(run(&line));
    }
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

    /// One round: calls that count, bytes, seconds, P50 and P99 in microseconds, then the usage.
    fn run(
        &mut self,
        runtime: &Runtime,
        scenario: Scenario,
        duration: Duration,
    ) -> Result<String, String> {
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
        let usage = Usage::now(&counters) - before;
        let (p50_us, p99_us) = (measured.quantile_us(0.5), measured.quantile_us(0.99));
        let (calls, bytes) = (measured.times.len(), measured.bytes);
        let seconds = measured.took.as_secs_f64();
        Ok(format!(
            "{calls} {bytes} {seconds} {p50_us} {p99_us} {usage}"
        ))
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

    #[test]
    fn a_role_survives_the_command_line() {
        let role = Role {
            stack: Stack::Tonic,
            core: 3,
            polling: true,
            uris: vec!["http://127.0.0.1:1".to_owned(), "b".to_owned()],
        };
        assert_eq!(Role::parse(role.to_arguments().into_iter()), Some(role));
        assert_eq!(Role::parse(["tonic".to_owned()].into_iter()), None);
    }
}
