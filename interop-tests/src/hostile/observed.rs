//! A client by the rules, whose packets an attacker sees and whose address it can forge.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use homa_rpc::{Channel, Request, Status};
use homa_transport::link::raw::RawLink;
use homa_transport::{Config, Message, Socket, Transport, transport};
use socket2::Socket as RawSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::messages::{Payload, bench_client::BenchClient};
use super::plain_udp::PlainUdp;
use super::server::HOLD;
use super::sources::{loopback, raw, send_raw, set_source_port};
use super::tape::Tapped;
use super::{BoxError, CALL_TIMEOUT};
use crate::wire::{Uri, Wire};

/// Messages of the attack that wait for their answers at a time.
const MESSAGES_MAX: usize = 256;
/// Time between the calls of one kind.
const CALL_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of its calls: one packet, several, and with grants. The first is held for a while.
const SIZES: [usize; 3] = [100, 30_000, 200_000];

/// The client. Its calls go on until it is dropped.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) tapped: Arc<Tapped>,
    forger: Forger,
    server: SocketAddr,
    transport: Arc<dyn Transport>,
    messages: Arc<Semaphore>,
    outcome: Arc<Outcome>,
    client: BenchClient,
    calls: JoinSet<()>,
}

/// What came of its calls.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) good: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) first_failure: Mutex<Option<String>>,
}

/// What sends any bytes from the client's address.
#[derive(Debug)]
enum Forger {
    Udp(Arc<PlainUdp>),
    Raw { socket: RawSocket, port: u16 },
}

impl Observed {
    /// Opens the client, and has it make one call of each kind.
    pub(super) async fn open(uri: &Uri) -> Result<Self, BoxError> {
        let server = uri.resolve().await?;
        let raw_sockets = uri.wire() == Wire::Homa;
        let (tapped, forger) = if raw_sockets {
            let link = Arc::new(Tapped::new(Arc::new(RawLink::client()?)));
            let port = homa_transport::link::Link::local_addr(&*link).port();
            let socket = raw(server, loopback(server.ip()))?;
            (link, Forger::Raw { socket, port })
        } else {
            let any = SocketAddr::new(loopback(server.ip()), 0);
            let link = Arc::new(PlainUdp::bind(any).await?);
            let tapped = Arc::new(Tapped::new(Arc::<PlainUdp>::clone(&link)));
            (tapped, Forger::Udp(link))
        };
        let transport: Arc<dyn Transport> = Arc::new(Socket::over(
            Arc::<Tapped>::clone(&tapped),
            if raw_sockets {
                homa_transport::Wire::Native
            } else {
                homa_transport::Wire::Encapsulated
            },
            Config::default(),
        )?);
        let channel = Channel::builder()
            .socket(Arc::clone(&transport))
            .build(uri.to_string())?;
        let client = BenchClient::new(channel);
        for size in SIZES {
            echo(&client, &body(size)).await?;
        }
        Ok(Self {
            tapped,
            forger,
            server,
            transport,
            messages: Arc::new(Semaphore::new(MESSAGES_MAX)),
            outcome: Arc::default(),
            client,
            calls: JoinSet::new(),
        })
    }

    /// Has it make calls, a few at a time, until it is stopped.
    pub(super) fn start_calls(&mut self) {
        for size in SIZES {
            let (client, outcome) = (self.client.clone(), Arc::clone(&self.outcome));
            self.calls.spawn(async move {
                let body = body(size);
                let mut next = interval(CALL_INTERVAL);
                next.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    next.tick().await;
                    outcome.count(echo(&client, &body).await);
                }
            });
        }
    }

    /// Sends bytes as if they were the client's.
    pub(super) fn forge(&self, packet: &mut [u8]) -> io::Result<()> {
        match &self.forger {
            Forger::Udp(link) => link.forge(packet, self.server),
            Forger::Raw { socket, port } => {
                set_source_port(packet, *port);
                send_raw(socket, packet, self.server)
            }
        }
    }

    /// Sends a message by the rules; false if too many wait for their answers.
    pub(super) fn send_message(&self, message: Vec<u8>) -> bool {
        let Ok(room) = Arc::clone(&self.messages).try_acquire_owned() else {
            return false;
        };
        let message = Message::from(message);
        let call = transport::call(Arc::clone(&self.transport), self.server, message);
        tokio::spawn(async move {
            // What the server says to it is for the tests of homa-rpc.
            let _answer = call.await;
            drop(room);
        });
        true
    }

    /// Ends its calls, and says what came of them.
    pub(super) async fn stop(mut self) -> Arc<Outcome> {
        self.calls.shutdown().await;
        self.transport.close();
        self.outcome
    }
}

impl Outcome {
    fn count(&self, result: Result<(), Status>) {
        let Err(status) = result else {
            self.good.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_failure.lock();
        let first = first.as_deref_mut().ok();
        if let Some(first @ None) = first {
            *first = Some(status.to_string());
        }
    }

    pub(super) fn first_failure(&self) -> Option<String> {
        let first = self.first_failure.lock();
        first.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes to be returned; few ones are held for a while before.
fn body(len: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(len);
    if len < 1_000 {
        body.extend_from_slice(HOLD);
    }
    body.resize(len, b'o');
    body.freeze()
}

/// One call, with the limit of all good calls; other bytes than those sent are an error.
pub(super) async fn echo(client: &BenchClient, body: &Bytes) -> Result<(), Status> {
    let mut request = Request::new(Payload { body: body.clone() });
    request.set_timeout(CALL_TIMEOUT);
    let answer = client.echo(request).await?.into_inner();
    if answer.body != *body {
        return Err(Status::data_loss("the answer is not what was sent"));
    }
    Ok(())
}
