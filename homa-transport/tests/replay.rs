//! Recorded exchanges of the Linux module, replayed through an endpoint that takes the place of one of
//! the two hosts: it must get along with what the other host sent, and send what the module sent.
//!
//! Packets of the other host come at their recorded times; requests and responses of ours are issued when
//! the module's were first seen. Ids and ports are those of the recording: the endpoint's ids start
//! where the module's did. Compared are, per packet, the whole header, the number of data bytes and the
//! TOS byte, except for
//!
//! - the checksum, and in DATA the hint to segmentation hardware (`doff`) and the place of the offset;
//! - what an ACK acknowledges besides its own RPC: that depends on when the application took a response.
//!
//! DATA sent for the first time, and each answer to a packet (BUSY, RPC_UNKNOWN, DATA sent again) must be
//! the same as often; what timers and batches cause (RESEND, NEED_ACK, GRANT, CUTOFFS) and ACK must be
//! the same but may come more or less often. Every further difference is stated with its case.

#[path = "vectors/replay/mod.rs"]
mod recording;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use homa_transport::endpoint::{Event, Record, RpcKey};
use homa_transport::units::{Instant, RpcId};
use homa_transport::wire::{self, Cutoffs, Header, Packet, PacketType};
use homa_transport::{Config, Endpoint, RpcError, Unreachable, Wire};

use self::recording::{Content, Recording, Side};

/// Packets of 1,500 bytes with an IPv4 header of 20.
const PACKET_BYTES: usize = 1_480;
/// How long the endpoint is watched after the last recorded packet.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Packets that are compared with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// DATA sent for the first time.
    First,
    /// DATA sent again.
    Again,
    Grant,
    Resend,
    Unknown,
    Busy,
    Cutoffs,
    NeedAck,
    Ack,
}

impl Kind {
    /// Sent once for each cause, which is the same for us and the module.
    const fn is_counted(self) -> bool {
        matches!(self, Self::First | Self::Again | Self::Unknown | Self::Busy)
    }
}

/// What is compared of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    kind: Kind,
    text: String,
    tos: u8,
    data_bytes: usize,
    header: Vec<u8>,
}

impl Seen {
    fn new(tos: u8, bytes: &[u8]) -> Self {
        let (header, packet) = wire::parse(bytes).expect("a well-formed packet");
        let mut raw = bytes[..packet.packet_type().header_bytes()].to_vec();
        raw[16..18].fill(0);
        let (mut kind, mut data_bytes) = (Kind::First, 0);
        match &packet {
            Packet::Data(data, bytes) => {
                if data.retransmit {
                    kind = Kind::Again;
                }
                data_bytes = bytes.len();
                raw[4..8].copy_from_slice(&data.offset.to_be_bytes());
                raw[52..56].copy_from_slice(&data.offset.to_be_bytes());
                raw[12] = 0;
            }
            Packet::Grant(_) => kind = Kind::Grant,
            Packet::Resend(_) => kind = Kind::Resend,
            Packet::RpcUnknown => kind = Kind::Unknown,
            Packet::Busy => kind = Kind::Busy,
            Packet::Cutoffs(_) => kind = Kind::Cutoffs,
            Packet::NeedAck => kind = Kind::NeedAck,
            Packet::Ack(_) => {
                kind = Kind::Ack;
                raw[28..80].fill(0);
            }
            Packet::Freeze => panic!("nobody sends FREEZE"),
        }
        let to = SocketAddr::from(([0; 4], header.destination_port));
        let record = Record::of(Instant::ZERO, true, to, &header, &packet, data_bytes);
        let text = match kind {
            Kind::Ack => "ACK".to_owned(),
            _ => record.to_string(),
        };
        Self {
            kind,
            text: format!("{:?} {text}", header.sender_id),
            tos,
            data_bytes,
            header: raw,
        }
    }

    /// The piggybacked ack's bytes.
    fn ack_mut(&mut self) -> Option<&mut [u8]> {
        self.header.get_mut(36..46).filter(|_| self.data_bytes > 0)
    }
}

/// How the RPCs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Each request is answered with its echo.
    Echoed,
    /// No RPC comes about at the server.
    NoRpc,
    TimedOut,
    PortUnreachable,
}

/// A difference that is there for a reason, with that reason.
type Because<T> = &'static [(T, &'static str)];

/// A recording, and which host we are. Every difference stated must really be seen.
struct Case {
    recording: &'static str,
    we_are: Side,
    config: Config,
    /// Counters of [`ERRORS`] that rise.
    rises: Because<&'static str>,
    /// Packets of ours that the module did not send.
    more: Because<Kind>,
    /// Packets of the module that we do not send.
    fewer: Because<Kind>,
    /// Piggybacked acks ride on other packets.
    acks_move: Option<&'static str>,
    end: End,
}

impl Case {
    fn new(recording: &'static str, we_are: Side) -> Self {
        Self {
            recording,
            we_are,
            config: Config {
                adaptive_cutoffs: Some(false),
                ..Config::default()
            },
            rises: &[],
            more: &[],
            fewer: &[],
            acks_move: None,
            end: End::Echoed,
        }
    }

    fn run(self) {
        let replayed = Replay::new(&self).run(&self);
        replayed.check_end(&self);
        replayed.check_packets(&self);
        replayed.check_counters(&self);
        replayed.check_grants();
        replayed.check_acks();
    }
}

/// The recording hosts were slow: their tick of 1 ms took about 1.3 ms, so that we ask earlier.
const SLOW_TICKS: &str =
    "our 5 ms and 2 ms are shorter than the 5 and 2 ticks of the recorded hosts";
/// The packets crossed on their way from the link into a slow host.
const SEEN_LATE: &str = "the module had not yet seen a packet that was on the link";
const GRANT_BATCHES: &str =
    "the module grants per batch of packets, we do in steps of 10,000 bytes";
const ACKS_TAKEN: &str = "acks went earlier, with the ACK for an earlier NEED_ACK";
const AGAIN_AFTER_END: &str = "sent again by the module's server, while the response had arrived";
const RESTART: &str = "the RESEND for a request that never arrived";
const GAVE_UP: &str = "the call fails, as it did in the recording";
/// A defect of the endpoint, not of the recording; see `LATE_TIMER` below.
const LATE_TIMER: &str = "KNOWN DEFECT: after a request was served for more than 5 ms, a timer that is alone \
    in the wheel makes shorter ones late by up to half a second, NEED_ACK here";

/// Counters that stand still while nothing is wrong.
const ERRORS: [&str; 17] = [
    "malformed_truncated",
    "malformed_type",
    "malformed_field",
    "wrong_port",
    "data_contradictory",
    "data_duplicate",
    "data_ungranted",
    "rpc_not_found",
    "duplicate_requests",
    "requests_unserved",
    "requests_refused",
    "messages_deferred",
    "rpcs_failed",
    "rpcs_cancelled",
    "rpcs_cancelled_by_client",
    "unknown_sent",
    "delivered_ids_evicted",
];

struct Replay {
    recording: Recording,
    we_are: Side,
    now: Instant,
    /// Ids (client's form) of all RPCs, by the first byte of the messages.
    ids: BTreeMap<u8, u64>,
    /// Our sockets, by port.
    sockets: BTreeMap<u16, Endpoint>,
    /// Port of the client of each RPC.
    client_ports: BTreeMap<u64, u16>,
    /// Our port and theirs, where the peer had told its cutoffs before the recording began.
    cutoffs_known: HashSet<(u16, u16)>,
    /// Ids (client's form) whose request or response has been issued, with its length.
    issued: BTreeMap<u64, usize>,
    /// Requests that wait for the time of their response, by id.
    open: BTreeMap<u64, (u16, RpcKey)>,
    answered: BTreeSet<u64>,
    /// Ids that our ACKs name besides their own.
    acked: Vec<u64>,
    outcomes: BTreeMap<u64, Result<(), RpcError>>,
    ours: Vec<Seen>,
    theirs: Vec<Seen>,
}

impl Replay {
    fn new(case: &Case) -> Self {
        let recording = recording::load(case.recording);
        let mut replay = Self {
            recording,
            we_are: case.we_are,
            now: Instant::ZERO,
            ids: BTreeMap::new(),
            sockets: BTreeMap::new(),
            client_ports: BTreeMap::new(),
            cutoffs_known: HashSet::new(),
            issued: BTreeMap::new(),
            open: BTreeMap::new(),
            answered: BTreeSet::new(),
            acked: Vec::new(),
            outcomes: BTreeMap::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
        };
        let mut peers = HashSet::new();
        for packet in &replay.recording.packets {
            let Content::Homa { bytes, .. } = &packet.content else {
                continue;
            };
            let (header, homa) = wire::parse(bytes).expect("the module's packets are well-formed");
            let (sport, dport) = (header.source_port, header.destination_port);
            let id = header.sender_id.client_form().value();
            let known = replay.ids.insert(recording::message(id, 0..1)[0], id);
            assert!(known.is_none_or(|known| known == id));
            let sent = packet.from == case.we_are;
            let client_port = if packet.from == Side::Client {
                sport
            } else {
                dport
            };
            replay.client_ports.insert(id, client_port);
            let (port, peer) = if sent { (sport, dport) } else { (dport, sport) };
            replay.sockets.entry(port).or_insert_with(|| {
                let seed = id - 2;
                let mut endpoint =
                    Endpoint::new(case.config.clone(), Wire::Native, port, seed).unwrap();
                endpoint.set_serving(case.we_are == Side::Server);
                endpoint
            });
            if let Packet::Data(data, _) = homa
                && sent
                && peers.insert((port, peer))
                && data.cutoff_version != 0
            {
                replay.cutoffs_known.insert((port, peer));
            }
        }
        replay
    }

    fn run(mut self, case: &Case) -> Self {
        let packets = std::mem::take(&mut self.recording.packets);
        for packet in &packets {
            self.timers_until(packet.at);
            self.now = packet.at;
            match &packet.content {
                Content::Homa { tos, bytes } if packet.from == case.we_are => {
                    self.sent_by_module(*tos, bytes);
                    self.issue(bytes);
                }
                Content::Homa { bytes, .. } => self.deliver(bytes),
                Content::PortUnreachable { port } if packet.from != case.we_are => {
                    let peer = SocketAddr::new(self.peer_host(), *port);
                    for endpoint in self.sockets.values_mut() {
                        endpoint.handle_unreachable(packet.at, peer, Unreachable::Port);
                    }
                }
                Content::PortUnreachable { .. } => panic!("packet {}: ours", packet.number),
            }
            self.flush();
        }
        self.timers_until(self.now + AFTERWARDS);
        self
    }

    fn peer_host(&self) -> std::net::IpAddr {
        match self.we_are {
            Side::Client => self.recording.server,
            Side::Server => self.recording.client,
        }
    }

    fn host(&self) -> std::net::IpAddr {
        match self.we_are {
            Side::Client => self.recording.client,
            Side::Server => self.recording.server,
        }
    }

    fn timers_until(&mut self, end: Instant) {
        let due = |sockets: &BTreeMap<u16, Endpoint>| {
            let timeouts = sockets.values().filter_map(Endpoint::poll_timeout);
            timeouts.min().filter(|at| *at < end)
        };
        while let Some(at) = due(&self.sockets) {
            self.now = at.max(self.now);
            for endpoint in self.sockets.values_mut() {
                endpoint.handle_timeout(self.now);
            }
            self.flush();
        }
    }

    /// The module keeps acks per host: it may owe some for RPCs of other sockets, or from before the
    /// recording, of which our socket knows nothing.
    fn sent_by_module(&mut self, tos: u8, bytes: &[u8]) {
        let mut seen = Seen::new(tos, bytes);
        if let (header, Packet::Data(data, _)) = wire::parse(bytes).unwrap()
            && let Some(ack) = data.ack
            && self.client_ports.get(&ack.id.value()) != Some(&header.source_port)
            && let Some(field) = seen.ack_mut()
        {
            field.fill(0);
        }
        self.theirs.push(seen);
    }

    /// The module's application issues a message with this packet: so does ours.
    fn issue(&mut self, bytes: &[u8]) {
        let (header, Packet::Data(data, _)) = wire::parse(bytes).unwrap() else {
            return;
        };
        let id = header.sender_id.client_form().value();
        let len = data.message_length as usize;
        if self.issued.insert(id, len).is_some() || self.we_are == Side::Server {
            return;
        }
        let (port, to) = (header.source_port, header.destination_port);
        let peer = SocketAddr::new(self.peer_host(), to);
        let request = recording::message(id, 0..len);
        let endpoint = self.sockets.get_mut(&port).unwrap();
        endpoint
            .send_request(self.now, peer, PACKET_BYTES, request.into(), id)
            .unwrap();
        self.tell_cutoffs(port, to);
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let (header, packet) = wire::parse(bytes).unwrap();
        let (from, port) = (header.source_port, header.destination_port);
        let (peer, local) = (SocketAddr::new(self.peer_host(), from), self.host());
        let endpoint = self.sockets.get_mut(&port).unwrap();
        endpoint.handle_packet(self.now, peer, local, bytes);
        if packet.packet_type() == PacketType::Data {
            self.tell_cutoffs(port, from);
        }
    }

    /// Makes up for a CUTOFFS that came before the recording began.
    fn tell_cutoffs(&mut self, port: u16, from: u16) {
        if !self.cutoffs_known.remove(&(port, from)) {
            return;
        }
        let header = Header {
            source_port: from,
            destination_port: port,
            sender_id: RpcId::new(1 << 40 | u64::from(self.we_are == Side::Client)),
        };
        let cutoffs = Cutoffs {
            unsched: [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200],
            version: 1,
        };
        let (peer, local) = (SocketAddr::new(self.peer_host(), from), self.host());
        let bytes = wire::emit(&header, &Packet::Cutoffs(cutoffs));
        let endpoint = self.sockets.get_mut(&port).unwrap();
        endpoint.handle_packet(self.now, peer, local, bytes.as_slice());
    }

    fn flush(&mut self) {
        let mut requests = Vec::new();
        for (port, endpoint) in &mut self.sockets {
            while let Some(event) = endpoint.poll_event() {
                match event {
                    Event::Request { rpc, message, .. } => requests.push((*port, rpc, message)),
                    Event::Response { cookie, message } => {
                        let echo = recording::message(cookie, 0..message.len());
                        assert!(message == echo, "RPC {cookie:x}: wrong bytes");
                        assert_eq!(message.len(), self.issued[&cookie], "RPC {cookie:x}");
                        assert_eq!(self.outcomes.insert(cookie, Ok(())), None);
                    }
                    Event::Failed { cookie, error } => {
                        assert_eq!(self.outcomes.insert(cookie, Err(error)), None);
                    }
                    Event::Frozen | Event::Cancelled { .. } => panic!("{event:?}"),
                }
            }
        }
        for (port, rpc, message) in requests {
            let id = self.id_of(&message);
            assert!(!self.answered.contains(&id), "RPC {id:x} delivered twice");
            assert_eq!(self.open.insert(id, (port, rpc)), None, "RPC {id:x}");
        }
        self.answer();
        self.transmit();
    }

    /// Whose request this is: RPCs of a recording differ in the first byte.
    fn id_of(&self, request: &[u8]) -> u64 {
        let id = self.ids[&request[0]];
        let sent = recording::message(id, 0..request.len());
        assert!(request == sent, "RPC {id:x}: wrong bytes");
        id
    }

    /// Answers the requests whose response the module's application has issued by now.
    fn answer(&mut self) {
        for (id, (port, rpc)) in std::mem::take(&mut self.open) {
            let Some(len) = self.issued.get(&id) else {
                self.open.insert(id, (port, rpc));
                continue;
            };
            let response = recording::message(id, 0..*len);
            let endpoint = self.sockets.get_mut(&port).unwrap();
            endpoint
                .send_response(self.now, rpc, PACKET_BYTES, response.into())
                .unwrap();
            self.answered.insert(id);
        }
    }

    fn transmit(&mut self) {
        for endpoint in self.sockets.values_mut() {
            while let Some(transmit) = endpoint.poll_transmit(self.now) {
                assert!(transmit.len() <= PACKET_BYTES);
                let bytes = transmit.to_vec();
                if bytes[11] == PacketType::Data as u8 {
                    // What reads only one of the two places finds the offset.
                    assert_eq!(bytes[4..8], bytes[52..56]);
                }
                let seen = Seen::new(transmit.priority.traffic_class(), &bytes);
                if let (_, Packet::Ack(acks)) = wire::parse(&bytes).unwrap() {
                    self.acked.extend(acks.iter().map(|ack| ack.id.value()));
                }
                self.ours.push(seen);
            }
        }
    }

    // ---- verdicts ----

    fn check_end(&self, case: &Case) {
        for (port, endpoint) in &self.sockets {
            assert!(endpoint.is_idle(), "port {port}: {:?}", endpoint.stats());
            assert_eq!(endpoint.incoming_bytes(), 0);
            assert_eq!(endpoint.inbound_bytes(), 0);
        }
        if case.end == End::NoRpc {
            assert!(self.answered.is_empty() && self.outcomes.is_empty());
            return;
        }
        let ids: BTreeSet<u64> = self.ids.values().copied().collect();
        if case.we_are == Side::Server {
            assert_eq!(self.answered, ids);
            assert_eq!(case.end, End::Echoed);
            return;
        }
        assert_eq!(self.outcomes.keys().copied().collect::<BTreeSet<_>>(), ids);
        for (id, outcome) in &self.outcomes {
            let end = match outcome {
                Ok(()) => End::Echoed,
                Err(RpcError::TimedOut { .. }) => End::TimedOut,
                Err(RpcError::Unreachable {
                    reason: Unreachable::Port,
                    ..
                }) => End::PortUnreachable,
                Err(error) => panic!("RPC {id:x}: {error}"),
            };
            assert_eq!(end, case.end, "RPC {id:x}");
        }
    }

    fn check_counters(&self, case: &Case) {
        let mut errors: BTreeMap<&str, u64> = ERRORS.iter().map(|name| (*name, 0)).collect();
        for endpoint in self.sockets.values() {
            for (name, _, value) in endpoint.stats().iter() {
                if let Some(total) = errors.get_mut(name) {
                    *total += value;
                }
            }
        }
        errors.retain(|_, total| *total > 0);
        let rises: BTreeSet<&str> = case.rises.iter().map(|(name, _)| *name).collect();
        let rose: BTreeSet<&str> = errors.keys().copied().collect();
        assert_eq!(
            rose, rises,
            "{} {:?}: {errors:?}",
            case.recording, case.we_are
        );
    }

    fn check_packets(&self, case: &Case) {
        let (ours, theirs) = (counts(&self.ours, case), counts(&self.theirs, case));
        let (mut more, mut fewer) = (BTreeSet::new(), BTreeSet::new());
        let mut differences = Vec::new();
        for seen in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let count = |packets: &BTreeMap<Seen, usize>| {
                let count = packets.get(seen).copied().unwrap_or(0);
                if seen.kind.is_counted() {
                    count
                } else {
                    count.min(1)
                }
            };
            let (we, they) = (count(&ours), count(&theirs));
            let (list, seen_in) = match we.cmp(&they) {
                std::cmp::Ordering::Equal => continue,
                std::cmp::Ordering::Greater => (case.more, &mut more),
                std::cmp::Ordering::Less => (case.fewer, &mut fewer),
            };
            seen_in.insert(seen.kind);
            if !list.iter().any(|(kind, _)| *kind == seen.kind) {
                differences.push(format!("{we} of ours, {they} of the module: {seen:x?}"));
            }
        }
        let name = case.recording;
        assert!(
            differences.is_empty(),
            "{name}:\n{}",
            differences.join("\n")
        );
        for (list, seen) in [(case.more, more), (case.fewer, fewer)] {
            let stated: BTreeSet<Kind> = list.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(stated, seen, "{name}: differences stated and seen");
        }
    }

    /// Grants rise, and end where the module's do.
    fn check_grants(&self) {
        let last = |packets: &[Seen]| {
            let mut last: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            for seen in packets.iter().filter(|seen| seen.kind == Kind::Grant) {
                let offset = u32::from_be_bytes(seen.header[28..32].try_into().unwrap());
                let before = last.insert(seen.header[20..28].to_vec(), offset);
                assert!(before <= Some(offset), "{}", seen.text);
            }
            last
        };
        assert_eq!(last(&self.ours), last(&self.theirs));
    }

    /// Every RPC that the client acknowledged to the server is one that is over.
    fn check_acks(&self) {
        for id in &self.acked {
            assert_eq!(self.outcomes.get(id), Some(&Ok(())), "RPC {id:x}");
        }
    }
}

fn counts(packets: &[Seen], case: &Case) -> BTreeMap<Seen, usize> {
    let mut counts = BTreeMap::new();
    for seen in packets {
        let mut seen = seen.clone();
        if let Some(ack) = seen.ack_mut().filter(|_| case.acks_move.is_some()) {
            ack.fill(0);
        }
        *counts.entry(seen).or_default() += 1;
    }
    counts
}

/// The settings of the hosts in the recordings of single long RPCs.
fn patient() -> Config {
    Config {
        adaptive_cutoffs: Some(false),
        resend_interval: Duration::from_millis(40),
        need_ack_delay: Duration::from_millis(10),
        ..Config::default()
    }
}

fn without_fifo_grants() -> Config {
    Config {
        grant_fifo_permille: 0,
        ..patient()
    }
}

fn kernel_timeout() -> Config {
    Config {
        adaptive_cutoffs: Some(false),
        timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

macro_rules! replays {
    ($($name:ident: $recording:literal as $side:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            #[test]
            fn $name() {
                #[allow(clippy::needless_update, reason = "some cases state everything")]
                let case = Case {
                    $($field: $value,)*
                    ..Case::new($recording, Side::$side)
                };
                case.run();
            }
        )*
    };
}

replays! {
    first_contact_as_client: "first-contact" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[(Kind::Resend, SLOW_TICKS)],
        acks_move: Some(ACKS_TAKEN),
    }
    first_contact_as_server: "first-contact" as Server { fewer: &[(Kind::NeedAck, LATE_TIMER)] }
    rpcs_of_100_bytes_as_client: "rpc-100" as Client {}
    rpcs_of_100_bytes_as_server: "rpc-100" as Server {}
    rpcs_of_5_kb_as_client: "rpc-5k" as Client {}
    rpcs_of_5_kb_as_server: "rpc-5k" as Server { more: &[(Kind::NeedAck, SLOW_TICKS)] }
    an_rpc_of_100_kb_as_client: "rpc-100k-clean" as Client { config: patient() }
    an_rpc_of_100_kb_as_server: "rpc-100k-clean" as Server { config: patient() }
    an_rpc_of_500_kb_as_client: "rpc-500k-nofifo" as Client {
        config: without_fifo_grants(),
        more: &[(Kind::Grant, GRANT_BATCHES)],
        fewer: &[(Kind::Grant, GRANT_BATCHES)],
    }
    an_rpc_of_500_kb_as_server: "rpc-500k-nofifo" as Server {
        config: without_fifo_grants(),
        more: &[(Kind::Grant, GRANT_BATCHES)],
        fewer: &[(Kind::Grant, GRANT_BATCHES)],
    }
    forty_rpcs_at_once_as_client: "multi40x2k" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[
            (Kind::Again, "the module had not sent it yet and said BUSY"),
            (Kind::Resend, SLOW_TICKS),
        ],
        fewer: &[
            (Kind::Busy, "we had sent the data, and send it again"),
            (Kind::Resend, SEEN_LATE),
        ],
        acks_move: Some(ACKS_TAKEN),
    }
    forty_rpcs_at_once_as_server: "multi40x2k" as Server {}
    segments_of_a_large_frame_as_client: "gso20000-swseg-10k" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
    }
    segments_of_a_large_frame_as_server: "gso20000-swseg-10k" as Server {
        more: &[(Kind::Busy, SEEN_LATE)],
        fewer: &[(Kind::Again, SEEN_LATE), (Kind::NeedAck, LATE_TIMER)],
    }
    a_lost_request_as_client: "loss-req1" as Client {}
    a_lost_request_as_server: "loss-req1-srv" as Server { rises: &[("unknown_sent", RESTART)] }
    a_lost_response_as_client: "loss-resp1" as Client {}
    a_lost_response_as_server: "loss-resp1-srv" as Server { fewer: &[(Kind::NeedAck, LATE_TIMER)] }
    a_gap_in_a_request_as_client: "loss-reqgap" as Client {}
    a_gap_in_a_request_as_server: "loss-reqgap-srv" as Server {}
    gaps_in_a_response_as_client: "loss-respgap" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[(Kind::Resend, SLOW_TICKS)],
    }
    gaps_in_a_response_as_server: "loss-respgap-srv" as Server {
        fewer: &[(Kind::NeedAck, LATE_TIMER)],
    }
    lost_grants_as_client: "loss-grant" as Client { more: &[(Kind::Resend, SLOW_TICKS)] }
    lost_grants_as_server: "loss-grant-srv" as Server {}
    lost_acks_as_client: "loss-ack" as Client {}
    lost_acks_as_server: "loss-ack-srv" as Server {}
    a_slow_server_as_client: "loss-busy" as Client {}
    a_slow_server_as_server: "loss-busy" as Server { fewer: &[(Kind::NeedAck, LATE_TIMER)] }
    a_silent_server_as_client: "loss-timeout" as Client {
        config: kernel_timeout(),
        rises: &[("rpcs_failed", GAVE_UP)],
        end: End::TimedOut,
    }
    resends_for_unknown_rpcs_as_server: "loss-timeout-srv" as Server {
        rises: &[("unknown_sent", RESTART)],
        end: End::NoRpc,
    }
    a_dead_client_as_server: "loss-deadclient-srv" as Server {}
    a_closed_port_as_client: "loss-noserver" as Client {
        rises: &[("rpcs_failed", GAVE_UP)],
        end: End::PortUnreachable,
    }
}
