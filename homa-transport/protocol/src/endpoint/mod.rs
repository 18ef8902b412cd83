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
//! So a driver is a loop of this shape (here the network loses everything):
//!
//! ```
//! use homa_protocol::endpoint::Event;
//! use homa_protocol::units::Instant;
//! use homa_protocol::{Config, Endpoint, RpcError, Wire};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real driver takes the seed from a random device, and the time from a monotonic clock.
//! let mut endpoint = Endpoint::new(Config::default(), Wire::Encapsulated, 4_000, 1_u128)?;
//! let mut now = Instant::from_nanos(1_000_000_000);
//! let server = "10.0.0.1:4000".parse()?;
//! endpoint.send_request(now, server, 1_472, b"hello".as_slice().into(), 7)?;
//! let outcome = loop {
//!     // Packets that have come meanwhile go in here: endpoint.handle_packet(now, from, to, bytes).
//!     endpoint.handle_timeout(now);
//!     match endpoint.poll_event() {
//!         Some(Event::Response { cookie: 7, message, .. }) => break Ok(message),
//!         Some(Event::Failed { cookie: 7, error, .. }) => break Err(error),
//!         _ => {}
//!     }
//!     while let Some(packet) = endpoint.poll_transmit(now) {
//!         let _to_the_network = (packet.to, packet.to_vec());
//!     }
//!     // A real driver sleeps until then, or until a packet comes.
//!     now = endpoint.poll_timeout().ok_or("nothing is due")?;
//! };
//! assert!(matches!(outcome, Err(RpcError::TimedOut { .. })));
//! # Ok(())
//! # }
//! ```
//!
//! A driver that was stopped for a while hands in all packets that are waiting before it calls
//! [`Endpoint::handle_timeout`]; then a stall of its own is not taken for the peer's silence.

mod arrival;
mod backoff;
mod diagnostics;
mod event;
mod grants;
mod memory;
mod messages;
mod pacer;
mod peers;
mod profile;
mod rpcs;
mod rx;
mod teardown;
mod timers;
mod tx;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::grants::priority::{SizesSeen, UnscheduledCutoffs};
use self::grants::scheduler::{GrantLimits, GrantScheduler};
use self::memory::admission::Waiting;
use self::memory::release::BurstWatch;
use self::pacer::{Pacer, PacerLimits};
use self::peers::peer::PeerKey;
use self::peers::replay_memory::ReplayMemory;
use self::peers::replay_window::MemoryClock;
use self::peers::table::PeerTable;
use self::peers::token::TokenKey;
use self::profile::rules::Rules;
use self::rpcs::rpc::{Liveness, Rpc, State};
use self::rpcs::table::RpcTable;
use self::timers::wheel::Timers;
use self::tx::send::Control;
use crate::config::{Config, Wire};
use crate::error::{ConfigError, Limit, RpcError};
use crate::list::Links;
use crate::message::Message;
use crate::stats::Stats;
use crate::units::{Instant, RpcId};
use crate::wire::Packet;

pub use self::diagnostics::trace::{Record, Trace};
pub use self::event::Event;
pub use self::grants::budget::LinkBudget;
pub use self::peers::token::Seed;
#[cfg(feature = "sim")]
pub use self::profile::experiment::ModuleKind;
#[cfg(feature = "sim")]
pub use self::profile::rules::Rule;
pub use self::tx::transmit::Transmit;

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
        let limits = GrantLimits::of(&config, cutoffs.scheduled_max(), paper_grants);
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
            at_rest: false,
            rest_links: Links::default(),
            moved_from: None,
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
        self.end_rest(rpc);
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
            self.end_rest(rpc);
            self.set_timer(rpc, now + self.config.timeout);
            self.say_abandoned(rpc);
        }
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
