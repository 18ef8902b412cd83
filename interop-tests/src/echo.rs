//! An echo server that counts what it was asked, and its client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use homa_transport::transport::{Incoming, Responder, call};
use homa_transport::{Config, RpcError, Transport};
use tokio::sync::watch;

use crate::wire::{OpenError, Uri};

/// Ids of requests that a server counts. What comes with others is answered too.
const IDS_MAX: usize = 1 << 20;
/// Requests that a server keeps unanswered.
const HELD_MAX: usize = 1 << 10;

/// Answers every request with its own bytes.
#[derive(Debug)]
pub struct EchoServer {
    transport: Arc<dyn Transport>,
    uri: Uri,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    totals: watch::Sender<Totals>,
    ids: HashMap<u64, u32>,
    holding: bool,
    held: Vec<Responder>,
}

/// What a server has been asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl EchoServer {
    /// Opens a server. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If there is no such socket.
    pub async fn open(uri: &Uri, config: &Config) -> Result<Self, OpenError> {
        let transport = uri.listen(config).await?;
        let state: Arc<Mutex<State>> = Arc::default();
        let for_sink = Arc::clone(&state);
        transport.serve(Arc::new(move |incoming| answer(&for_sink, incoming)))?;
        Ok(Self {
            uri: uri.of_listener(&*transport),
            transport,
            state,
        })
    }

    /// Where it is reached.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Its socket.
    #[must_use]
    pub const fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// What it has been asked so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        *lock(&self.state).totals.borrow()
    }

    /// Waits until it has been asked more often than that.
    pub async fn asked_more_than(&self, requests: u64) {
        let mut totals = lock(&self.state).totals.subscribe();
        // The sender is ours, so it cannot be gone.
        let _ = totals.wait_for(|now| now.requests > requests).await;
    }

    /// How often it was asked each id of [`request`].
    #[must_use]
    pub fn times_asked(&self) -> HashMap<u64, u32> {
        lock(&self.state).ids.clone()
    }

    /// From now on requests are kept and not answered.
    pub fn hold(&self) {
        lock(&self.state).holding = true;
    }

    /// From now on requests are answered again, except those that are held.
    pub fn answer(&self) {
        lock(&self.state).holding = false;
    }

    /// Closes the socket. Requests that are held fail at their clients.
    pub fn stop(self) {
        self.transport.close();
        // Outside the lock: dropping a responder runs the transport's code.
        let held = std::mem::take(&mut lock(&self.state).held);
        drop(held);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(state: &Mutex<State>, incoming: Incoming) {
    let mut now = lock(state);
    now.totals.send_modify(|totals| {
        totals.requests += 1;
        totals.bytes += incoming.message.len() as u64;
    });
    if let Some(id) = id(&incoming.message)
        && (now.ids.len() < IDS_MAX || now.ids.contains_key(&id))
    {
        *now.ids.entry(id).or_default() += 1;
    }
    if now.holding && now.held.len() < HELD_MAX {
        now.held.push(incoming.responder);
        return;
    }
    drop(now);
    // The client may have given up, or the socket been closed: nobody waits then.
    let _ = incoming.responder.respond(incoming.message.into());
}

/// Calls an echo server.
#[derive(Clone, Debug)]
pub struct EchoClient {
    transport: Arc<dyn Transport>,
    peer: SocketAddr,
}

impl EchoClient {
    /// Opens a client of the server at `uri`. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If there is no such socket, or no such host.
    pub async fn open(uri: &Uri, config: &Config) -> Result<Self, OpenError> {
        Ok(Self {
            transport: uri.open_client(config)?,
            peer: uri.resolve().await?,
        })
    }

    /// The same socket, calling another server (or the same one after an in-process restart).
    ///
    /// # Errors
    /// If there is no such host.
    pub async fn to(&self, uri: &Uri) -> Result<Self, OpenError> {
        Ok(Self {
            transport: Arc::clone(&self.transport),
            peer: uri.resolve().await?,
        })
    }

    /// Its socket.
    #[must_use]
    pub const fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// One call.
    ///
    /// # Errors
    /// Of the call.
    pub async fn call(&self, request: Bytes) -> Result<Bytes, RpcError> {
        call(Arc::clone(&self.transport), self.peer, request.into()).await
    }
}

/// `len` bytes that no other `id` has: the id, as far as there is room, then numbers drawn from it.
#[must_use]
pub fn request(id: u64, len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len.next_multiple_of(8));
    let mut word = id;
    while bytes.len() < len {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ id;
    }
    bytes.truncate(len);
    bytes.freeze()
}

/// The id in a request that is long enough to have one.
fn id(request: &[u8]) -> Option<u64> {
    request
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}
