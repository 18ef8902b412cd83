//! A transport without Homa: nodes that hand messages to one another in process.
//!
//! It shows that homa-rpc needs nothing but the `Transport` trait, and can be told not to carry
//! cancellation, as a transport may.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use homa_transport::transport::{CallKey, RequestKey};
use homa_transport::{
    CloseReason, Delivery, Incoming, Message, RequestSink, Respond, Responder, RpcError, Stats,
    Transport, Unreachable,
};

const MESSAGE_BYTES_MAX: usize = 1_000_000;

static NODES: Mutex<Option<HashMap<SocketAddr, Weak<Node>>>> = Mutex::new(None);
static NEXT_PORT: AtomicU16 = AtomicU16::new(1);
static NEXT_RPC: AtomicU64 = AtomicU64::new(1);

/// No bit of a message.
pub const NO_BIT: usize = usize::MAX;

/// One socket of the switch.
pub struct Node {
    addr: SocketAddr,
    me: Weak<Self>,
    pub carries_cancel: AtomicBool,
    /// The bit of each message sent as a client that is flipped on its way, or [`NO_BIT`].
    pub flips_sent: AtomicUsize,
    /// So many messages are spared before that, and one is hit; `usize::MAX`: all are hit.
    pub flips_sent_skip: AtomicUsize,
    /// The same of each response.
    pub flips_received: AtomicUsize,
    /// The same of each response.
    pub flips_received_skip: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    closed: bool,
    closed_waker: Option<Waker>,
    calls: HashMap<CallKey, Slot>,
    served: HashMap<RequestKey, Served>,
    sink: Option<RequestSink>,
    waiting: Vec<Incoming>,
    stats: Stats,
}

#[derive(Default)]
struct Slot {
    result: Option<Result<Bytes, RpcError>>,
    waker: Option<Waker>,
    server: Option<(Arc<Node>, RequestKey)>,
}

struct Served {
    client: Arc<Node>,
    call: CallKey,
    cancelled: bool,
    waker: Option<Waker>,
}

fn number() -> u64 {
    NEXT_RPC.fetch_add(1, Ordering::Relaxed)
}

/// A new node.
pub fn node() -> Arc<Node> {
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    let addr = ([127, 9, 9, 9], port).into();
    let node = Arc::new_cyclic(|me| Node {
        addr,
        me: me.clone(),
        carries_cancel: AtomicBool::new(true),
        flips_sent: AtomicUsize::new(NO_BIT),
        flips_sent_skip: AtomicUsize::new(usize::MAX),
        flips_received: AtomicUsize::new(NO_BIT),
        flips_received_skip: AtomicUsize::new(usize::MAX),
        inner: Mutex::default(),
    });
    let mut nodes = NODES.lock().unwrap();
    nodes
        .get_or_insert_default()
        .insert(addr, Arc::downgrade(&node));
    node
}

/// The message with one of its bits flipped.
fn flip(message: Bytes, bit: &AtomicUsize, skip: &AtomicUsize) -> Bytes {
    // What gives a call up is spared.
    if message.get(1) == Some(&4) {
        return message;
    }
    match skip.load(Ordering::Relaxed) {
        usize::MAX => {}
        0 => skip.store(usize::MAX - 1, Ordering::Relaxed),
        more => {
            skip.store(more - 1, Ordering::Relaxed);
            return message;
        }
    }
    let bit = bit.load(Ordering::Relaxed);
    let mut bytes = message.to_vec();
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    bytes.into()
}

/// A client node and a server node.
pub fn pair() -> (Arc<dyn Transport>, Arc<dyn Transport>) {
    (node(), node())
}

impl Node {
    fn finish(&self, call: CallKey, result: Result<Bytes, RpcError>) {
        let mut inner = self.inner.lock().unwrap();
        let Some(slot) = inner.calls.get_mut(&call) else {
            return;
        };
        slot.result = Some(
            result.map(|response| flip(response, &self.flips_received, &self.flips_received_skip)),
        );
        let waker = slot.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn check(&self, message: &Message) -> Result<(), RpcError> {
        if self.inner.lock().unwrap().closed {
            return Err(RpcError::Closed {
                reason: CloseReason::Closed,
                delivery: Delivery::NotSent,
            });
        }
        match message.len() {
            0 => Err(RpcError::EmptyMessage),
            len if len > MESSAGE_BYTES_MAX => Err(RpcError::MessageTooLong {
                len,
                max: MESSAGE_BYTES_MAX,
            }),
            _ => Ok(()),
        }
    }

    fn deliver(self: Arc<Self>, client: Arc<Self>, call: CallKey, message: Bytes) -> RequestKey {
        let rpc = RequestKey::new(number());
        let incoming = Incoming {
            peer: client.addr,
            message,
            responder: Responder::new(self.clone(), rpc),
        };
        let mut inner = self.inner.lock().unwrap();
        inner.stats.requests_received += 1;
        inner.served.insert(
            rpc,
            Served {
                client,
                call,
                cancelled: false,
                waker: None,
            },
        );
        match inner.sink.clone() {
            Some(sink) => {
                drop(inner);
                sink(incoming);
            }
            None => inner.waiting.push(incoming),
        }
        rpc
    }
}

impl Transport for Node {
    fn start_call(&self, peer: SocketAddr, request: Message) -> Result<CallKey, RpcError> {
        self.check(&request)?;
        let rpc = CallKey::new(number());
        let server = {
            let nodes = NODES.lock().unwrap();
            nodes.as_ref().and_then(|nodes| nodes.get(&peer)?.upgrade())
        };
        let mut inner = self.inner.lock().unwrap();
        inner.stats.requests_sent += 1;
        inner.calls.insert(rpc, Slot::default());
        drop(inner);
        match server.filter(|server| !server.inner.lock().unwrap().closed) {
            Some(server) => {
                let me = self.me.upgrade().unwrap();
                let request = flip(
                    request.into_bytes(),
                    &self.flips_sent,
                    &self.flips_sent_skip,
                );
                let at = server.clone().deliver(me, rpc, request);
                if let Some(slot) = self.inner.lock().unwrap().calls.get_mut(&rpc) {
                    slot.server = Some((server, at));
                }
            }
            None => self.finish(
                rpc,
                Err(RpcError::Unreachable {
                    peer,
                    reason: Unreachable::Port,
                    delivery: Delivery::NotSent,
                }),
            ),
        }
        Ok(rpc)
    }

    fn poll_response(&self, rpc: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>> {
        let mut inner = self.inner.lock().unwrap();
        let Some(slot) = inner.calls.get_mut(&rpc) else {
            return Poll::Ready(Err(RpcError::Stale));
        };
        match slot.result.take() {
            Some(result) => {
                inner.calls.remove(&rpc);
                inner.stats.responses_received += u64::from(result.is_ok());
                Poll::Ready(result)
            }
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn cancel(&self, rpc: CallKey) {
        let slot = self.inner.lock().unwrap().calls.remove(&rpc);
        if !self.carries_cancel.load(Ordering::Relaxed) {
            return;
        }
        if let Some((server, at)) = slot.and_then(|slot| slot.server)
            && server.carries_cancel.load(Ordering::Relaxed)
        {
            let mut inner = server.inner.lock().unwrap();
            if let Some(served) = inner.served.get_mut(&at) {
                served.cancelled = true;
                let waker = served.waker.take();
                drop(inner);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    fn cancel_reaches_server(&self) -> bool {
        self.carries_cancel.load(Ordering::Relaxed)
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        let mut inner = self.inner.lock().unwrap();
        inner.sink = Some(Arc::clone(&sink));
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().for_each(|incoming| sink(incoming));
        Ok(())
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn stats(&self) -> Stats {
        self.inner.lock().unwrap().stats
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut inner = self.inner.lock().unwrap();
        if inner.closed {
            return Poll::Ready(CloseReason::Closed);
        }
        inner.closed_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn close(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.closed = true;
        if let Some(waker) = inner.closed_waker.take() {
            waker.wake();
        }
        inner.sink = None;
        let waiting = std::mem::take(&mut inner.waiting);
        let calls: Vec<_> = inner.calls.keys().copied().collect();
        drop(inner);
        drop(waiting);
        for call in calls {
            self.finish(
                call,
                Err(RpcError::Closed {
                    reason: CloseReason::Closed,
                    delivery: Delivery::Unknown,
                }),
            );
        }
    }
}

impl Respond for Node {
    fn respond(&self, rpc: RequestKey, response: Message) -> Result<(), RpcError> {
        self.check(&response)?;
        let Some(served) = self.inner.lock().unwrap().served.remove(&rpc) else {
            return Err(RpcError::Stale);
        };
        if served.cancelled {
            return Err(RpcError::Stale);
        }
        self.inner.lock().unwrap().stats.responses_sent += 1;
        served.client.finish(served.call, Ok(response.into_bytes()));
        Ok(())
    }

    fn abandon(&self, rpc: RequestKey) {
        let served = self.inner.lock().unwrap().served.remove(&rpc);
        if let Some(served) = served {
            served.client.finish(
                served.call,
                Err(RpcError::TimedOut {
                    peer: self.addr,
                    silent: std::time::Duration::from_secs(1),
                    resends: 10,
                }),
            );
        }
    }

    fn poll_cancelled(&self, rpc: RequestKey, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock().unwrap();
        match inner.served.get_mut(&rpc) {
            Some(served) if !served.cancelled => {
                served.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.addr)
    }
}
