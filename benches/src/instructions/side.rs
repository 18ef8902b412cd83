//! A client, a server, or both, as a process that callgrind watches.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use homa_rpc::{Channel, Server};
use homa_transport::{Config, Incoming, Message, Socket, Transport, transport};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use super::{Layer, Wire};
use crate::process::{answer, orders};
use crate::rpc::service::messages::bench_client::BenchClient;
use crate::rpc::service::messages::bench_server::BenchServer;
use crate::rpc::service::{Service, payload};

/// Name of the hidden command.
pub(crate) const COMMAND: &str = "instructions-side";
/// Name of the function at whose calls callgrind writes what it has counted since the last one.
pub(crate) const MARK: &str = "callgrind_mark";
/// Callgrind's numbers of the threads: a client's is the first of its process, a server's the only one that
/// is started there.
pub(crate) const CLIENT_THREAD: u32 = 1;
pub(crate) const SERVER_THREAD: u32 = 2;
/// Name of the server within the process.
const MEM_NAME: &str = "homa-bench-instructions";
/// Timers do not fire meanwhile: under callgrind everything takes fifty times as long.
const LONG: Duration = Duration::from_millis(900);
const TIMEOUT: Duration = Duration::from_secs(60);

/// What both sides agree upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) layer: Layer,
    pub(crate) wire: Wire,
    pub(crate) concurrency: u32,
    pub(crate) size: u32,
}

/// What a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    Server,
    Client { uri: String },
    Both,
}

/// What a process is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Write down what was counted so far.
    Mark,
    /// Make that many calls.
    Calls(u32),
}

/// The arguments of such a process.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// What it is, as JSON
    #[arg(value_parser = |json: &str| serde_json::from_str::<(Place, Part)>(json))]
    role: (Place, Part),
}

impl Side {
    pub(crate) const fn new(place: Place, part: Part) -> Self {
        Self {
            role: (place, part),
        }
    }

    /// The words of the command line.
    pub(crate) fn to_arguments(&self) -> Result<[String; 2], String> {
        let role = serde_json::to_string(&self.role).map_err(|error| error.to_string())?;
        Ok([COMMAND.to_owned(), role])
    }
}

/// Runs such a process until its input ends.
pub(crate) fn run(side: &Side) -> ExitCode {
    let (place, part) = &side.role;
    if let Err(error) = serve_or_call(*place, part) {
        answer::<()>(Err(error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve_or_call(place: Place, part: &Part) -> Result<(), String> {
    pin()?;
    let (uri, server) = match part {
        Part::Client { uri } => (uri.clone(), None),
        Part::Server | Part::Both => {
            let (uri, server) = start_server(place)?;
            (uri, Some(server))
        }
    };
    let client = match part {
        Part::Server => None,
        Part::Client { .. } | Part::Both => Some(Client::open(place, &uri)?),
    };
    answer(Ok(uri));
    orders(|order| match (order, &client) {
        (Order::Mark, _) => {
            callgrind_mark();
            server.as_ref().map_or(Ok(()), mark_inside)
        }
        (Order::Calls(calls), Some(client)) => client.make(calls),
        (Order::Calls(_), None) => Err("a server makes no calls".to_owned()),
    });
    Ok(())
}

/// The mark concerns the thread that makes it.
fn mark_inside(server: &Handle) -> Result<(), String> {
    let (done, is_done) = mpsc::channel();
    server.spawn(async move {
        callgrind_mark();
        // The receiver waits for it.
        let _ = done.send(());
    });
    is_done.recv().map_err(text)
}

/// Callgrind sees its name. What is done there does not matter.
#[inline(never)]
fn callgrind_mark() {
    std::hint::black_box(());
}

/// Both sides take turns on the first core that is allowed, so that they meet as they did last time.
fn pin() -> Result<(), String> {
    let pinned = || {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut first = CpuSet::new();
        let core = (0..CpuSet::count()).find(|core| allowed.is_set(*core).unwrap_or(false));
        first.set(core.unwrap_or(0))?;
        sched_setaffinity(Pid::from_raw(0), &first)
    };
    pinned().map_err(|error: nix::Error| format!("cannot run on one core: {error}"))
}

fn runtime() -> Result<Runtime, String> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| format!("cannot start a runtime: {error}"))
}

fn config() -> Config {
    Config {
        busy_poll: Duration::ZERO,
        resend_interval: LONG,
        need_ack_delay: LONG,
        timeout: TIMEOUT,
        ..Config::default()
    }
}

/// Serves on a thread of its own; returns the URI and the thread's runtime.
fn start_server(place: Place) -> Result<(String, Handle), String> {
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            // A receiver that is gone no longer needs a server.
            match listen(place) {
                Ok((uri, serving)) => {
                    let _ = ready.send(Ok((uri, Handle::current())));
                    serving.await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    });
    let ended = |_| Err("the server's thread has ended".to_owned());
    is_ready.recv().unwrap_or_else(ended)
}

type Serving = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Listens; the future serves for ever.
fn listen(place: Place) -> Result<(String, Serving), String> {
    let socket: Arc<dyn Transport> = Arc::new(match place.wire {
        Wire::Udp => Socket::udp(SocketAddr::from(([127, 0, 0, 1], 0)), config()).map_err(text)?,
        Wire::Mem => Socket::mem_listen(MEM_NAME, config()).map_err(text)?,
    });
    let uri = match place.wire {
        Wire::Udp => format!("homa+udp://{}", socket.local_addr()),
        Wire::Mem => format!("homa+mem://{MEM_NAME}"),
    };
    let serving: Serving = match place.layer {
        Layer::Rpc => {
            let server = Server::builder().add_service(BenchServer::new(Service));
            let server = server.bind_socket(socket).map_err(text)?;
            Box::pin(async {
                if let Err(error) = server.serve().await {
                    eprintln!("homa-bench instructions: the server failed: {error}");
                }
            })
        }
        Layer::Transport => {
            let tasks = Handle::current();
            let echo = move |incoming: Incoming| {
                let Incoming {
                    message, responder, ..
                } = incoming;
                // In a task, as a service is called. A client that is gone needs no answer.
                drop(tasks.spawn(async move { drop(responder.respond(Message::from(message))) }));
            };
            socket.serve(Arc::new(echo)).map_err(text)?;
            Box::pin(async move {
                let _open = socket;
                std::future::pending().await
            })
        }
    };
    Ok((uri, serving))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What makes the calls.
struct Client {
    place: Place,
    runtime: Runtime,
    calls: Calls,
}

#[derive(Clone)]
enum Calls {
    Rpc(BenchClient),
    Transport(Arc<dyn Transport>, SocketAddr),
}

impl Client {
    fn open(place: Place, uri: &str) -> Result<Self, String> {
        let runtime = runtime()?;
        let inside = runtime.enter();
        let socket: Arc<dyn Transport> = Arc::new(match place.wire {
            Wire::Udp => Socket::udp_client(config()).map_err(text)?,
            Wire::Mem => Socket::mem_client(config()).map_err(text)?,
        });
        let calls = match place.layer {
            Layer::Rpc => {
                let channel = Channel::builder().socket(socket).build(uri).map_err(text)?;
                Calls::Rpc(BenchClient::new(channel))
            }
            Layer::Transport => {
                let address = match uri.strip_prefix("homa+udp://") {
                    Some(address) => address.parse().ok(),
                    None => Socket::mem_resolve(MEM_NAME),
                };
                Calls::Transport(socket, address.ok_or("the server has no address")?)
            }
        };
        drop(inside);
        Ok(Self {
            place,
            runtime,
            calls,
        })
    }

    /// Makes that many calls, in tasks that make one at a time each.
    fn make(&self, calls: u32) -> Result<(), String> {
        let body = Bytes::from(vec![7; self.place.size as usize]);
        let tasks = self.place.concurrency;
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for task in 0..tasks {
                let count = calls / tasks + u32::from(task < calls % tasks);
                running.spawn(repeat(self.calls.clone(), body.clone(), count));
            }
            while let Some(ended) = running.join_next().await {
                ended.map_err(text)??;
            }
            Ok(())
        })
    }
}

async fn repeat(calls: Calls, body: Bytes, count: u32) -> Result<(), String> {
    for _ in 0..count {
        let bytes = match &calls {
            Calls::Rpc(client) => {
                let reply = client.echo(payload(body.clone())).await.map_err(text)?;
                reply.into_inner().body.len()
            }
            Calls::Transport(socket, peer) => {
                let request = Message::from(body.clone());
                let reply = transport::call(Arc::clone(socket), *peer, request).await;
                reply.map_err(text)?.len()
            }
        };
        if bytes != body.len() {
            return Err(format!("{} bytes were sent, {bytes} came back", body.len()));
        }
    }
    Ok(())
}
