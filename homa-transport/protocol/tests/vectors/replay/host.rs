//! One of the two hosts of a recording, played by an endpoint.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_protocol::endpoint::{Event, RpcKey};
use homa_protocol::units::{Instant, RpcId};
use homa_protocol::wire::{self, Cutoffs, Header, Packet, PacketType};
use homa_protocol::{Config, Endpoint, Report, RpcError, Unreachable, Wire};

use super::seen::Seen;
use super::{Content, Recording, Side, load, message};

/// Packets of 1,500 bytes with an IPv4 header of 20.
const PACKET_BYTES: usize = 1_480;
/// How long the endpoint is watched after the last recorded packet.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// An endpoint in the place of one host, and what came of it.
pub(crate) struct Replay {
    recording: Recording,
    we_are: Side,
    now: Instant,
    /// Ids (client's form) of all RPCs, by the first byte of the messages.
    pub(crate) ids: BTreeMap<u8, u64>,
    /// Our sockets, by port.
    pub(crate) sockets: BTreeMap<u16, Endpoint>,
    /// Port of the client of each RPC.
    client_ports: BTreeMap<u64, u16>,
    /// Our port and theirs, where the module knew the peer's cutoffs before our first DATA to it: from
    /// before the recording began, or from another socket of that host. The module keeps cutoffs per
    /// host, we per address and port, so that `first-contact` as server (packets 56 and 72) needs this
    /// for the client's second port.
    cutoffs_known: HashSet<(u16, u16)>,
    /// Ids (client's form) whose request or response has been issued, with its length.
    issued: BTreeMap<u64, usize>,
    /// Requests that wait for the time of their response, by id.
    open: BTreeMap<u64, (u16, RpcKey)>,
    pub(crate) answered: BTreeSet<u64>,
    /// Ids that our ACKs name besides their own.
    pub(crate) acked: Vec<u64>,
    pub(crate) outcomes: BTreeMap<u64, Result<(), RpcError>>,
    pub(crate) ours: Vec<Seen>,
    pub(crate) theirs: Vec<Seen>,
}

impl Replay {
    pub(crate) fn new(name: &str, we_are: Side, config: &Config) -> Self {
        let recording = load(name);
        let mut replay = Self {
            recording,
            we_are,
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
            let known = replay.ids.insert(message(id, 0..1)[0], id);
            assert!(known.is_none_or(|known| known == id));
            let sent = packet.from == we_are;
            let client_port = if packet.from == Side::Client {
                sport
            } else {
                dport
            };
            replay.client_ports.insert(id, client_port);
            let (port, peer) = if sent { (sport, dport) } else { (dport, sport) };
            replay.sockets.entry(port).or_insert_with(|| {
                let seed = u128::from(id - 2);
                let mut endpoint = Endpoint::new(config.clone(), Wire::Native, port, seed).unwrap();
                endpoint.set_serving(we_are == Side::Server);
                endpoint
            });
            if let Packet::Data(data, _) = homa
                && sent
                && peers.insert(port)
                && data.cutoff_version != 0
            {
                replay.cutoffs_known.insert((port, peer));
            }
        }
        replay
    }

    /// Plays the whole recording.
    pub(crate) fn run(mut self) -> Self {
        let packets = std::mem::take(&mut self.recording.packets);
        for packet in &packets {
            self.timers_until(packet.at);
            self.now = packet.at;
            match &packet.content {
                Content::Homa { tos, bytes } if packet.from == self.we_are => {
                    self.sent_by_module(*tos, bytes);
                    self.issue(bytes);
                }
                Content::Homa { bytes, .. } => self.deliver(bytes),
                Content::PortUnreachable { port } if packet.from != self.we_are => {
                    let peer = SocketAddr::new(self.peer_host(), *port);
                    for endpoint in self.sockets.values_mut() {
                        endpoint.handle_unreachable(&Report {
                            peer,
                            reason: Unreachable::Port,
                            about: None,
                        });
                    }
                }
                Content::PortUnreachable { .. } => panic!("packet {}: ours", packet.number),
            }
            self.flush();
        }
        self.timers_until(self.now + AFTERWARDS);
        self
    }

    fn peer_host(&self) -> IpAddr {
        match self.we_are {
            Side::Client => self.recording.server,
            Side::Server => self.recording.client,
        }
    }

    fn host(&self) -> IpAddr {
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
        let request = message(id, 0..len);
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
                        let echo = super::message(cookie, 0..message.len());
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
        let sent = message(id, 0..request.len());
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
            let response = message(id, 0..*len);
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
}
