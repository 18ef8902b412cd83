//! The Homa protocol of one port, without I/O.
//!
//! [`Endpoint`] takes time and packets as arguments and yields packets and events. It never reads a
//! clock, a socket or a random device, so a driver, a simulator and a fuzzer run the same code.
//! There are three kinds of methods:
//!
//! - *commands* of the application: [`Endpoint::send_request`], [`Endpoint::send_response`],
//!   [`Endpoint::abort`];
//! - *inputs* from the network and the clock: [`Endpoint::handle_packet`],
//!   [`Endpoint::handle_unreachable`], [`Endpoint::handle_timeout`];
//! - *polls*, to be drained after any of the above: [`Endpoint::poll_event`] until `None`,
//!   [`Endpoint::poll_transmit`] until `None` or until the link is full, then
//!   [`Endpoint::poll_timeout`] for when to call [`Endpoint::handle_timeout`].
//!
//! A driver that was stopped for a while hands in all packets that are waiting before it calls
//! [`Endpoint::handle_timeout`]; then a stall of its own is not taken for the peer's silence.

mod address;
mod address_validation;
mod admission;
mod allowance;
mod announce;
mod budget;
mod control;
mod copies;
mod delay;
mod delivered;
mod end;
#[cfg(feature = "sim")]
mod experiment;
mod grant;
mod inbound;
mod inspect;
mod intervals;
mod lateness;
mod migration;
mod outbound;
mod outgoing;
mod pacer;
mod peer;
mod priority;
mod receive;
mod release;
mod replay;
mod rpc;
mod rules;
mod send;
mod start_msg;
mod table;
mod timeout;
mod timer;
mod token;
mod trace;
mod transmit;
mod wait_list;
mod width;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::admission::Waiting;
use self::delivered::MemoryClock;
use self::grant::{GrantLimits, GrantScheduler};
use self::pacer::{Pacer, PacerLimits};
use self::peer::{PeerKey, PeerTable};
use self::priority::{SizesSeen, UnscheduledCutoffs};
use self::release::BurstWatch;
use self::replay::ReplayMemory;
use self::rpc::{Liveness, Rpc, State};
use self::rules::Rules;
use self::send::Control;
use self::table::RpcTable;
use self::timer::Timers;
use self::token::TokenKey;
use crate::config::{Config, Wire};
use crate::error::{ConfigError, Limit, Report, RpcError, Unreachable};
use crate::list::Links;
use crate::message::Message;
use crate::stats::Stats;
use crate::units::{Instant, RpcId};
use crate::wire::Packet;

pub use self::budget::LinkBudget;
#[cfg(feature = "sim")]
pub use self::experiment::ModuleKind;
#[cfg(feature = "sim")]
pub use self::rules::Rule;
pub use self::token::Seed;
pub use self::trace::{Record, Trace};
pub use self::transmit::Transmit;

slotmap::new_key_type! {
    /// Handle of an RPC at its endpoint. Generational: the handle of an RPC that is over never
    /// names a later one.
    pub struct RpcKey;
}

/// The protocol state of one port: the RPCs of which it is the client or the server.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    rules: Rules,
    wire: Wire,
    local_port: u16,
    serving: bool,
    table: RpcTable,
    peers: PeerTable,
    timers: Timers,
    grants: GrantScheduler,
    pacer: Pacer,
    /// Until when the pacer holds back all that is waiting.
    paced_until: Option<Instant>,
    control: VecDeque<Control>,
    /// The rest of a packet that was cut, to be sent next.
    parts: VecDeque<Transmit>,
    waiting: Waiting,
    events: VecDeque<Event>,
    stats: Stats,
    next_id: u64,
    ids_wrapped: bool,
    token_key: TokenKey,
    /// Addresses have to be validated.
    validates: bool,
    /// Served RPCs whose clients have not been validated.
    strangers: usize,
    births: u64,
    /// Bytes reserved for incoming messages.
    inbound_bytes: usize,
    /// The time by which delivered requests are forgotten: that of the inputs, without our stalls.
    memory_clock: MemoryClock,
    /// The requests that were delivered.
    replays: ReplayMemory,
    /// Our own cutoffs, as peers are told.
    cutoffs: UnscheduledCutoffs,
    /// What they are computed from, if they follow the traffic.
    sizes: Option<SizesSeen>,
    /// Bytes of outgoing messages.
    outbound_bytes: usize,
    /// Outgoing messages no longer needed, until they are taken away.
    released: Vec<Message>,
    trace: Trace,
    /// Reused by `handle_timeout`.
    due: Vec<RpcKey>,
    /// When to look for memory to give back.
    next_release: Instant,
    bursts: BurstWatch,
}

/// Something the application has to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request has arrived. Answer it with [`Endpoint::send_response`], or give it up with
    /// [`Endpoint::abort`].
    Request {
        /// Handle for the answer.
        rpc: RpcKey,
        /// The client.
        peer: SocketAddr,
        /// The request.
        message: Bytes,
    },
    /// The response to a request of ours has arrived; the RPC is over.
    Response {
        /// What was given to [`Endpoint::send_request`].
        cookie: u64,
        /// The response.
        message: Bytes,
    },
    /// A request of ours has failed; the RPC is over.
    Failed {
        /// What was given to [`Endpoint::send_request`].
        cookie: u64,
        /// Why.
        error: RpcError,
    },
    /// A peer asked for a look at the trace ([`Endpoint::trace`]), and the configuration allows it.
    Frozen,
    /// The client has given up a request before it was answered; the RPC is over.
    Cancelled {
        /// Handle of the request.
        rpc: RpcKey,
    },
}

impl Endpoint {
    /// An endpoint of `local_port` without RPCs.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(
        mut config: Config,
        wire: Wire,
        local_port: u16,
        seed: impl Into<Seed>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let (rules, paper_grants) = Rules::of(&config);
        let seed = seed.into();
        if !rules.recovers {
            config.delivered_memory = Duration::ZERO;
        }
        let cutoffs = match &rules.paper {
            Some(paper) => paper.cutoffs,
            None => UnscheduledCutoffs::factory(config.num_priorities),
        };
        let adaptive = config
            .adaptive_cutoffs
            .unwrap_or(wire == Wire::Encapsulated);
        let sizes =
            adaptive.then(|| SizesSeen::new(config.num_priorities, config.unscheduled_bytes));
        let limits = GrantLimits {
            max_incoming: u64::from(config.max_incoming_bytes),
            window: config.window_bytes,
            max_overcommit: config.max_overcommit,
            increment: config.grant_increment_bytes,
            fifo_permille: u64::from(config.grant_fifo_permille),
            fifo_increment: config.fifo_grant_increment_bytes,
            fifo_priority: config.fifo_priority(),
            scheduled_max: cutoffs.scheduled_max(),
            paper: paper_grants,
        };
        let pacer = PacerLimits {
            link_mbps: config.link_mbps,
            backlog: config.nic_backlog,
            defer_min: config.defer_min_bytes,
            fifo_permille: u64::from(config.pacer_fifo_permille),
        };
        Ok(Self {
            rules,
            wire,
            local_port,
            serving: false,
            table: RpcTable::new(),
            peers: PeerTable::new(config.peers_max, wire),
            timers: Timers::new(),
            grants: GrantScheduler::new(limits),
            pacer: Pacer::new(pacer),
            paced_until: None,
            control: VecDeque::new(),
            parts: VecDeque::new(),
            waiting: Waiting::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            next_id: seed.ids & !1,
            ids_wrapped: false,
            strangers: 0,
            token_key: TokenKey::new(seed.secret),
            validates: rules.paper.is_none() && wire == Wire::Encapsulated,
            births: 0,
            inbound_bytes: 0,
            memory_clock: MemoryClock::default(),
            replays: ReplayMemory::new(config.peers_max),
            cutoffs,
            sizes,
            outbound_bytes: 0,
            released: Vec::new(),
            trace: if rules.keeps_payload {
                Trace::default()
            } else {
                Trace::off()
            },
            due: Vec::new(),
            next_release: Instant::ZERO,
            bursts: BurstWatch::default(),
            config,
        })
    }

    /// Shares the ceiling for incoming bytes and the uplink with the other endpoints of `budget`. To be
    /// called before anything else.
    pub fn share_link(&mut self, budget: &Arc<LinkBudget>) {
        self.grants.share_link(Arc::clone(budget));
        self.pacer.share_link(Arc::clone(budget));
    }

    /// Whether requests of others are taken; at first they are not.
    pub const fn set_serving(&mut self, serving: bool) {
        self.serving = serving;
    }

    /// Begins an RPC: sends `message` to `peer` in packets of at most `packet_bytes` (header
    /// included). `cookie` comes back with the outcome.
    ///
    /// # Errors
    /// If the message is empty or too long, the address unusable, or the limit of RPCs reached.
    /// Nothing is sent then.
    pub fn send_request(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        packet_bytes: usize,
        message: Message,
        cookie: u64,
    ) -> Result<RpcKey, RpcError> {
        let known = self.peers.find(peer);
        let message = self.check_message(message, known)?;
        let peer_key = match self.admit_call(now, peer, known) {
            Ok(peer_key) => peer_key,
            Err(error) => {
                self.release(message);
                return Err(error);
            }
        };
        let liveness = Liveness::new(now, self.memory_clock.latest());
        let id = self.allocate_id();
        let out = self.out_message(peer_key, message, packet_bytes, false);
        let length = out.length();
        let few_unscheduled = self.table.client_count() >= self.config.incast_threshold;
        let Some(known) = self.peers.get_mut(peer_key) else {
            return Err(RpcError::Stale);
        };
        let rpc = Rpc {
            id,
            peer: peer_key,
            peer_links: Links::default(),
            addr: peer,
            local: None,
            birth: self.births,
            cookie,
            state: State::Outgoing,
            few_unscheduled,
            out: Some(out),
            inbound: None,
            waits_for_room: None,
            waits_for_grant: None,
            charged: 0,
            queued: None,
            counted_as_stranger: false,
            shown: 0,
            held: false,
            liveness,
            timer: None,
        };
        let key = self.table.insert(rpc, &mut known.rpc_list);
        self.peers.on_rpc_begun(peer_key, false);
        self.births += 1;
        self.charge_outbound(key, length);
        self.stats.requests_sent += 1;
        self.enqueue(key);
        self.send_start(now, key);
        self.set_timer(key, now + self.config.resend_interval);
        Ok(key)
    }

    /// Answers a request in packets of at most `packet_bytes`.
    ///
    /// # Errors
    /// If the message is empty or too long: the request can still be answered.
    /// [`RpcError::Stale`] if the RPC is over or was answered before.
    pub fn send_response(
        &mut self,
        now: Instant,
        rpc: RpcKey,
        packet_bytes: usize,
        message: Message,
    ) -> Result<(), RpcError> {
        let in_service = |rpc: &&Rpc| rpc.state == State::InService;
        let Some(served) = self.table.get(rpc).filter(in_service) else {
            self.release(message);
            return Err(RpcError::Stale);
        };
        let (few, peer) = (served.few_unscheduled, served.peer);
        let message = self.check_message(message, Some(peer))?;
        let out = self.out_message(peer, message, packet_bytes, few);
        self.charge_outbound(rpc, out.length());
        if let Some(entry) = self.table.get_mut(rpc) {
            entry.state = State::Responding;
            entry.out = Some(out);
            entry.liveness.on_nothing_due(now);
            entry.liveness.advanced = self.memory_clock.latest();
        }
        self.stats.responses_sent += 1;
        self.enqueue(rpc);
        self.send_start(now, rpc);
        let wait = self.ack_wait(rpc);
        self.set_timer(rpc, now + wait);
        Ok(())
    }

    /// Gives up an RPC. As its client: the server is told, and no event follows but one that
    /// [`Endpoint::poll_event`] had ready before. As its server: a
    /// request that waits for its answer is dropped; its client will time out.
    pub fn abort(&mut self, now: Instant, rpc: RpcKey) {
        let Some(entry) = self.table.get_mut(rpc) else {
            return;
        };
        if entry.is_client() {
            self.stats.rpcs_cancelled += 1;
            self.end_call_early(rpc);
        } else if entry.state == State::InService {
            entry.state = State::Abandoned;
            entry.liveness.heard = now;
            self.set_timer(rpc, now + self.config.timeout);
        }
    }

    /// The other end of an RPC.
    #[must_use]
    pub fn peer_of(&self, rpc: RpcKey) -> Option<SocketAddr> {
        self.table.get(rpc).map(|rpc| rpc.addr)
    }

    /// Closes: forgets all RPCs of ours, telling their servers, and queues the acks owed. Send what
    /// [`Endpoint::poll_transmit`] yields afterwards.
    pub fn close(&mut self) {
        self.serving = false;
        for key in self.table.calls() {
            self.end_call_early(key);
        }
        let mut owed = Vec::new();
        for peer in self.peers.iter_mut() {
            if let Some(first) = peer.take_ack() {
                owed.push((peer.addr, first, peer.take_acks()));
            }
        }
        for (addr, first, others) in owed {
            self.stats.acks_sent += 1;
            self.send_to_server(addr, None, first.id, Packet::Ack(others));
        }
    }

    /// Takes the report that a peer cannot be reached: calls to it end, and on protocol 146 those to the
    /// other ports of its address too if the report is about the whole host. Requests of a peer end only if
    /// its socket is gone. A host that cannot be reached may be back before there is anything to send; if
    /// not, silence ends them. What our own system refuses to send is one lost packet, unless it is the
    /// first of a call.
    ///
    /// Source: homa_plumbing.c, `homa_err_handler_v4`; homa_rpc.c, `homa_abort_rpcs`.
    pub fn handle_unreachable(&mut self, report: &Report) {
        use Unreachable::{Host, Network, Protocol};
        let peers = match (self.wire, report.reason) {
            (Wire::Native, Protocol | Host | Network) => self.peers.of_host(report.peer.ip()),
            _ => self.peers.find(report.peer).into_iter().collect(),
        };
        for peer_key in peers {
            for key in self.rpcs_of(peer_key) {
                self.end_unreachable(key, report);
            }
            if report.reason != Unreachable::Denied {
                self.forget_peer(peer_key);
            }
        }
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] is due, or more can be had from
    /// [`Endpoint::poll_transmit`], if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times = [
            self.timers.next(),
            self.peers.next_sweep(),
            self.paced_until,
            self.grants.paused_until(),
        ];
        times.into_iter().flatten().min()
    }

    /// The last packets received and sent.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            rpcs_live: self.table.len() as u64,
            ..self.stats
        }
    }

    /// True if there is no RPC and nothing to send.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table.len() == 0
            && self.control.is_empty()
            && self.parts.is_empty()
            && self.pacer.is_empty()
    }

    /// Bytes granted and not received, over all messages that need grants.
    #[must_use]
    pub const fn incoming_bytes(&self) -> u64 {
        self.grants.incoming()
    }

    /// Bytes reserved for incoming messages at present.
    #[must_use]
    pub const fn inbound_bytes(&self) -> usize {
        self.inbound_bytes
    }

    /// The peer of a new call, if it can be called and there is room.
    fn admit_call(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        known: Option<PeerKey>,
    ) -> Result<PeerKey, RpcError> {
        if peer.port() == 0 || peer.ip().is_unspecified() || peer.ip().is_multicast() {
            let reason = "not the address and port of one host";
            return Err(RpcError::BadAddress { peer, reason });
        }
        self.check_room(self.table.client_count())?;
        let limit = self.config.peers_max;
        let known = known.or_else(|| self.peers.find_or_insert(peer, now));
        known.ok_or(RpcError::TooManyPeers { limit })
    }

    fn check_room(&self, held: usize) -> Result<(), RpcError> {
        if held < self.config.rpcs_max {
            return Ok(());
        }
        Err(RpcError::TooManyRpcs {
            limit: self.config.rpcs_max,
            option: Limit::Rpcs,
        })
    }

    /// Even, never 0, one counter per endpoint from a random start. Its upper half stays, since servers know
    /// a client by that. Source: homa_rpc.c, `homa_rpc_alloc_client`, where the counter starts at 2.
    fn allocate_id(&mut self) -> RpcId {
        loop {
            let lower = self.next_id & u64::from(u32::MAX);
            let upper = self.next_id - lower;
            self.next_id = upper | (lower + 2) & u64::from(u32::MAX);
            self.ids_wrapped |= self.next_id == upper;
            let id = RpcId::new(self.next_id);
            // Once round, an old call may still be there.
            if self.next_id >= 2 && !(self.ids_wrapped && self.table.has_client(id)) {
                return id;
            }
        }
    }

    /// Makes sure that the RPC is looked at by `at`.
    fn set_timer(&mut self, key: RpcKey, at: Instant) {
        if !self.rules.recovers {
            return;
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.timer.is_none_or(|timer| at < timer) {
            rpc.timer = Some(self.timers.set(at, key, rpc.timer));
        }
    }
}
