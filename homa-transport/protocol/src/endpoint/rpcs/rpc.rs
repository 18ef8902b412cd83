//! One RPC at one of its two ends.
//!
//! ```text
//! client:  Outgoing ──response DATA──▶ Incoming ──complete──▶ (gone: response delivered, ack owed)
//!
//! server:  Receiving ──complete──▶ InService ──send_response──▶ Responding ──ack──▶ (gone)
//!                                      └──abort──▶ Abandoned ──10 timeouts of silence──▶ (gone)
//! ```
//!
//! RPC_UNKNOWN ends a server's RPC in any state. Source: homa_rpc.h, `struct homa_rpc`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::endpoint::RpcKey;
use crate::endpoint::messages::inbound::InMessage;
use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::pacer::Rank;
use crate::endpoint::peers::peer::PeerKey;
use crate::list::Links;
use crate::units::{Instant, RpcId};

/// State of an RPC; see the diagram of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Client: sending the request, no byte of the response has come.
    Outgoing,
    /// Client: receiving the response.
    Incoming,
    /// Server: receiving the request.
    Receiving,
    /// Server: the application has the request.
    InService,
    /// Server: sending the response, or waiting for its ack.
    Responding,
    /// Server: the application dropped the request unanswered. The record stays so that the client's
    /// RESENDs are not answered with RPC_UNKNOWN, which would execute the request again.
    Abandoned,
}

/// An RPC.
#[derive(Debug)]
pub(crate) struct Rpc {
    /// Its id in our form.
    pub(crate) id: RpcId,
    pub(crate) peer: PeerKey,
    /// Its place among the RPCs with that peer.
    pub(in crate::endpoint) peer_links: Links<RpcKey>,
    /// Nobody asks about it, as long as the peer lives: see `timers/rest.rs`.
    pub(in crate::endpoint) at_rest: bool,
    /// Its place among those at rest with that peer.
    pub(in crate::endpoint) rest_links: Links<RpcKey>,
    /// Of a served RPC: its peer before the client's port changed last.
    pub(in crate::endpoint) moved_from: Option<PeerKey>,
    /// Address and Homa port of the other end.
    pub(crate) addr: SocketAddr,
    /// Our address as the peer knows it, once a packet has come.
    pub(crate) local: Option<IpAddr>,
    /// Order of creation, for ties.
    pub(crate) birth: u64,
    /// The application's own mark, returned with the outcome (client).
    pub(crate) cookie: u64,
    pub(crate) state: State,
    /// The client expects many responses at once: few unscheduled bytes for this one.
    pub(crate) few_unscheduled: bool,
    pub(crate) out: Option<OutMessage>,
    pub(crate) inbound: Option<InMessage>,
    /// Length of the incoming message, if there is no room for its bytes yet.
    pub(crate) waits_for_room: Option<u32>,
    /// The same, if it has begun and there is no room for its rest.
    pub(crate) waits_for_grant: Option<u32>,
    /// Bytes charged to the endpoint's budget for `inbound`.
    pub(crate) charged: usize,
    /// Place in the send queue, if it is there.
    pub(crate) queued: Option<Rank>,
    /// Of a served RPC: its client has not shown our token so far, and it is counted as such.
    pub(crate) counted_as_stranger: bool,
    /// Of a served RPC: the token that its client wants to see.
    pub(crate) shown: u64,
    /// The response waits until its client has shown that it is there.
    pub(crate) held: bool,
    pub(crate) liveness: Liveness,
    /// When the timer that counts comes up.
    pub(crate) timer: Option<Instant>,
}

/// What is known about the other end's interest in an RPC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// When the RPC began.
    pub(crate) born: Instant,
    /// When it last came nearer to its end, or its application held it, by the clock of the memory of
    /// delivered requests: what packets say of it otherwise does not keep it alive.
    pub(crate) advanced: Instant,
    /// Last packet of any kind for this RPC; its beginning at first.
    pub(crate) heard: Instant,
    /// Start of the silence that RESENDs end: last DATA, GRANT or BUSY, or the last time at which
    /// nothing was expected. Source: homa_rpc.h, `silent_ticks`.
    pub(crate) quiet_since: Instant,
    /// Requests sent since then without an answer: RESENDs, or NEED_ACKs of a server.
    pub(crate) unanswered: u32,
    /// When the last of them was sent.
    pub(crate) asked: Instant,
    /// RESENDs and NEED_ACKs sent in all.
    pub(crate) asks: u32,
    /// BUSYs in a row.
    pub(crate) busy: u32,
    /// It was at rest when the silence began.
    pub(crate) rested: bool,
    /// The server has said since then that it has sent the whole response.
    pub(crate) told_all_sent: bool,
    /// The other end has shown that it has this RPC: DATA, GRANT or BUSY came.
    pub(crate) known_to_peer: bool,
    /// RPC_UNKNOWNs that came after that, on separate RESENDs, with nothing else between.
    pub(crate) unknown_replies: u32,
    /// Last time at which the server certainly did not have the request.
    pub(crate) not_delivered_at: Instant,
    /// The request was sent again to a server that was started meanwhile: one before it may have executed it.
    pub(crate) had_predecessor: bool,
    /// A RESEND was sent since the last RPC_UNKNOWN that counted.
    pub(crate) asked_since_unknown: bool,
    /// RESENDs for a request that came after part of its response, on separate RESENDs of our own, with
    /// no DATA between.
    pub(crate) resends_of_request: u32,
    /// A RESEND was sent since the last of them.
    pub(crate) asked_since_resend: bool,
    /// At some time nothing was heard for as long as a server remembers what it executed.
    pub(crate) overslept: bool,
    /// The request was asked for again, too late for an answer.
    pub(crate) asked_too_late: bool,
}

impl Liveness {
    pub(crate) const fn new(now: Instant, memory_now: Instant) -> Self {
        Self {
            born: now,
            advanced: memory_now,
            heard: now,
            quiet_since: now,
            unanswered: 0,
            asked: now,
            asks: 0,
            busy: 0,
            rested: false,
            told_all_sent: false,
            known_to_peer: false,
            unknown_replies: 0,
            not_delivered_at: now,
            had_predecessor: false,
            asked_since_unknown: false,
            resends_of_request: 0,
            asked_since_resend: false,
            overslept: false,
            asked_too_late: false,
        }
    }

    /// A packet for this RPC has come. `memory`: how long servers remember what they executed.
    pub(crate) fn on_heard(&mut self, now: Instant, memory: Duration) {
        self.overslept |= self.is_out_of_date(now, memory);
        self.heard = now;
    }

    /// True if so much time has passed since the last packet, or once did between two, that a server may
    /// have executed the request and forgotten it since what it said last.
    pub(crate) fn is_out_of_date(&self, now: Instant, memory: Duration) -> bool {
        let silent = now.saturating_since(self.heard);
        self.overslept || (!memory.is_zero() && silent >= memory)
    }

    /// DATA, GRANT or BUSY has come: the silence is over.
    pub(crate) const fn on_progress(&mut self, now: Instant) {
        self.heard = now;
        self.quiet_since = now;
        self.unanswered = 0;
        self.known_to_peer = true;
        self.rested = false;
        self.told_all_sent = false;
        self.unknown_replies = 0;
    }

    /// BUSY has come: the silence is over. `known`: that means that the other end has the RPC.
    pub(crate) const fn on_busy(&mut self, now: Instant, known: bool) {
        let was_known = self.known_to_peer;
        self.on_progress(now);
        self.known_to_peer = known || was_known;
        self.busy = self.busy.saturating_add(1);
    }

    /// A RESEND or NEED_ACK is sent now.
    pub(crate) const fn on_ask(&mut self, now: Instant) {
        self.asked = now;
        self.asks = self.asks.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
        self.asked_since_unknown = true;
        self.asked_since_resend = true;
    }

    /// Nothing is expected of the other end at present.
    pub(crate) const fn on_nothing_due(&mut self, now: Instant) {
        self.quiet_since = now;
        self.unanswered = 0;
    }
}

impl Rpc {
    /// True for our own calls.
    pub(crate) const fn is_client(&self) -> bool {
        self.id.is_client()
    }

    /// True if all that was granted of the incoming message has arrived: it is ours to grant more.
    pub(crate) fn is_granting(&self) -> bool {
        let inbound = self.inbound.as_ref();
        inbound.is_some_and(InMessage::has_all_granted)
    }

    /// True for a request of the peer that the application was given.
    pub(crate) const fn was_delivered(&self) -> bool {
        matches!(
            self.state,
            State::InService | State::Responding | State::Abandoned
        )
    }
}
