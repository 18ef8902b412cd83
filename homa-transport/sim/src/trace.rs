//! What happened last at every host, and a digest of all that happened.

use std::collections::VecDeque;
use std::fmt;

use homa_protocol::units::{Instant, RpcId};
use homa_protocol::wire::{Header, Malformed, Packet, PacketType};

/// Records kept per host.
const KEPT: usize = 48;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the step of the world.
    pub step: u64,
    /// When.
    pub at: Instant,
    /// Where.
    pub host: usize,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The host handed a packet to the network.
    Sent(Summary),
    /// The host was handed a packet.
    Received(Summary),
    /// The host was handed a packet that was forged in the name of another.
    Forged(Summary),
    /// Who sees packets of the host sees them come from another port.
    PortChanged,
    /// A call began, to this host, with a request of this length.
    Called(u64, usize, usize),
    /// A call ended: with a response of this length, or failed.
    Ended(u64, Option<usize>),
    /// The application gave a call up.
    GivenUp(u64),
    /// A request was delivered.
    Request(u64),
    /// The application answered a request, with a message of this length.
    Answered(u64, usize),
    /// The application dropped a request.
    Dropped(u64),
    /// A request was cancelled by its client.
    Cancelled(u64),
    /// The timers ran.
    Timers,
    /// The process stopped (false) or ran on (true).
    Running(bool),
    /// The process died (false) or a new one began (true).
    Alive(bool),
    /// The network reported a host as unreachable.
    Unreachable(usize),
    /// The faults are over.
    Healed,
}

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The other host.
    pub peer: usize,
    /// Type, or `None` if it was malformed.
    pub packet_type: Option<PacketType>,
    /// RPC, in the form of the sender.
    pub id: RpcId,
    /// First byte of the data, the grant or the gap.
    pub offset: u32,
    /// Bytes of the data or the gap; for a GRANT its level.
    pub length: u32,
}

impl Summary {
    /// Of a packet of `len` bytes to or from `peer`.
    pub(super) fn of(
        peer: usize,
        parsed: &Result<(Header, Packet<'_>), Malformed>,
        len: usize,
    ) -> Self {
        let Ok((header, packet)) = parsed else {
            return Self {
                peer,
                packet_type: None,
                id: RpcId::new(0),
                offset: 0,
                length: u32::try_from(len).unwrap_or(u32::MAX),
            };
        };
        let (offset, length) = match packet {
            Packet::Data(data, bytes) => {
                (data.offset, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
            }
            Packet::Grant(grant) => (grant.offset, u32::from(grant.priority.level())),
            Packet::Resend(resend) => (resend.offset, resend.length.unwrap_or(u32::MAX)),
            _ => (0, 0),
        };
        Self {
            peer,
            packet_type: Some(packet.packet_type()),
            id: header.sender_id,
            offset,
            length,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet_type {
            None => write!(f, "{} malformed bytes", self.length)?,
            Some(PacketType::Data) => {
                let end = u64::from(self.offset) + u64::from(self.length);
                write!(f, "DATA {:?} [{}, {end})", self.id, self.offset)?;
            }
            Some(PacketType::Grant) => {
                write!(
                    f,
                    "GRANT {:?} to {} at level {}",
                    self.id, self.offset, self.length
                )?;
            }
            Some(PacketType::Resend) if self.length == u32::MAX => {
                write!(f, "RESEND {:?} [{}, end)", self.id, self.offset)?;
            }
            Some(PacketType::Resend) => {
                let end = u64::from(self.offset) + u64::from(self.length);
                write!(f, "RESEND {:?} [{}, {end})", self.id, self.offset)?;
            }
            Some(other) => write!(f, "{other} {:?}", self.id)?,
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {:?} host {}: ", self.step, self.at, self.host)?;
        match self.what {
            What::Sent(packet) => write!(f, "to {}: {packet}", packet.peer),
            What::Received(packet) => write!(f, "from {}: {packet}", packet.peer),
            What::Forged(packet) => write!(f, "forged as from {}: {packet}", packet.peer),
            What::PortChanged => write!(f, "seen under another port"),
            What::Called(call, to, len) => write!(f, "call {call} to {to}, {len} bytes"),
            What::Ended(call, Some(len)) => write!(f, "call {call} has its response, {len} bytes"),
            What::Ended(call, None) => write!(f, "call {call} has failed"),
            What::GivenUp(call) => write!(f, "call {call} given up"),
            What::Request(call) => write!(f, "request of call {call} delivered"),
            What::Answered(call, len) => write!(f, "call {call} answered, {len} bytes"),
            What::Dropped(call) => write!(f, "request of call {call} dropped unanswered"),
            What::Cancelled(call) => write!(f, "request of call {call} cancelled"),
            What::Timers => write!(f, "timers run"),
            What::Running(true) => write!(f, "process runs on"),
            What::Running(false) => write!(f, "process stopped"),
            What::Alive(true) => write!(f, "new process"),
            What::Alive(false) => write!(f, "process dies"),
            What::Unreachable(peer) => write!(f, "host {peer} reported unreachable"),
            What::Healed => write!(f, "faults are over"),
        }
    }
}

/// Called with every record.
type Watcher = Box<dyn FnMut(&Record)>;

/// The last records of every host and a digest of all.
pub(super) struct Trace {
    last: Vec<VecDeque<Record>>,
    digest: u64,
    watcher: Option<Watcher>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Trace {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            last: (0..hosts).map(|_| VecDeque::with_capacity(KEPT)).collect(),
            digest: 0,
            watcher: None,
        }
    }

    pub(super) fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    pub(super) fn add(&mut self, record: Record) {
        self.digest = digest_of(self.digest, &record);
        if let Some(last) = self.last.get_mut(record.host) {
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(record);
        }
        if let Some(watcher) = &mut self.watcher {
            watcher(&record);
        }
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The last records of `hosts`, in order of time.
    pub(super) fn history(&self, hosts: &[usize]) -> Vec<Record> {
        let mut records: Vec<Record> = hosts
            .iter()
            .filter_map(|host| self.last.get(*host))
            .flatten()
            .copied()
            .collect();
        records.sort_by_key(|record| record.step);
        records
    }
}

fn digest_of(digest: u64, record: &Record) -> u64 {
    let (kind, a, b) = match record.what {
        What::Sent(packet) => (1, packet.id.value(), word_of(&packet)),
        What::Received(packet) => (2, packet.id.value(), word_of(&packet)),
        What::Called(call, to, len) => (3, call, to as u64 ^ (len as u64) << 16),
        What::Ended(call, len) => (4, call, len.map_or(u64::MAX, |len| len as u64)),
        What::GivenUp(call) => (5, call, 0),
        What::Request(call) => (6, call, 0),
        What::Answered(call, len) => (7, call, len as u64),
        What::Dropped(call) => (8, call, 0),
        What::Cancelled(call) => (9, call, 0),
        What::Timers => (10, 0, 0),
        What::Running(on) => (11, u64::from(on), 0),
        What::Alive(on) => (12, u64::from(on), 0),
        What::Unreachable(peer) => (13, peer as u64, 0),
        What::Healed => (14, 0, 0),
        What::Forged(packet) => (15, packet.id.value(), word_of(&packet)),
        What::PortChanged => (16, 0, 0),
    };
    let place = (record.host as u64) << 8 | kind;
    [record.at.as_nanos(), place, a, b]
        .into_iter()
        .fold(digest, |digest, word| {
            (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
}

fn word_of(packet: &Summary) -> u64 {
    let code = packet
        .packet_type
        .map_or(0, |packet_type| packet_type as u64);
    (u64::from(packet.offset) << 32 | u64::from(packet.length))
        ^ code << 24
        ^ (packet.peer as u64) << 16
}
