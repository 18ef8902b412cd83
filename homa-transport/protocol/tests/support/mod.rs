//! Two endpoints joined by a network in virtual time, whose faults are scripted packet by packet.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a module of test binaries"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use homa_protocol::endpoint::{Event, Record, RpcKey};
use homa_protocol::units::{Instant, Priority, RpcId};
use homa_protocol::wire::{self, Header, Packet, PacketType, Resend, Tokens, emit};
use homa_protocol::{Config, Endpoint, Message, RpcError, Wire};

/// Time a packet takes from one host to the other.
pub const DELAY: Duration = Duration::from_micros(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test binary uses some")]
pub enum Fate {
    Deliver,
    Drop,
    Duplicate,
    /// Arrives later by this much.
    Delay(Duration),
}

/// A packet on its way.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each test binary uses some")]
pub struct Sent {
    pub from: Side,
    /// Number of this packet, from 0, over both directions.
    pub number: usize,
    pub packet_type: PacketType,
    /// What it says.
    pub text: String,
    /// Its length in bytes.
    pub len: usize,
    pub at: Instant,
    pub id: RpcId,
    pub fate: Fate,
}

pub struct Pair {
    pub now: Instant,
    pub client: Endpoint,
    pub server: Endpoint,
    pub fate: Box<dyn FnMut(&Sent) -> Fate>,
    /// Answers requests as they come; `None` leaves them open.
    pub answer: Box<dyn FnMut(&Bytes) -> Option<Message>>,
    pub packet_bytes: usize,
    pub log: Vec<Sent>,
    /// How often each request (by its bytes) was delivered.
    pub deliveries: HashMap<Bytes, usize>,
    pub open: Vec<RpcKey>,
    pub cancelled: Vec<RpcKey>,
    pub frozen: usize,
    pub outcomes: HashMap<u64, Result<Bytes, RpcError>>,
    in_flight: BinaryHeap<Reverse<(Instant, u64, Flight)>>,
    flights: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    to_server: bool,
    bytes: Vec<u8>,
}

pub fn client_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 40_000))
}

pub fn server_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4_000))
}

pub fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ salt).collect()
}

/// The token that an endpoint wants to see from `peer`, as it tells anybody who asks.
#[allow(dead_code, reason = "each test binary uses some")]
pub fn token_for(endpoint: &mut Endpoint, now: Instant, peer: SocketAddr) -> u64 {
    let header = Header {
        source_port: 0,
        destination_port: 0,
        sender_id: RpcId::new(0x7fff_0000),
    };
    let resend = Packet::Resend(Resend {
        offset: 0,
        length: None,
        priority: Priority::HIGHEST,
    });
    let packet = emit(&header, &resend).with_tokens(Tokens::default());
    endpoint.handle_packet(now, peer, peer.ip(), packet.as_slice());
    let answer = endpoint.poll_transmit(now).unwrap();
    Tokens::of(answer.header.as_slice()).own
}

#[allow(dead_code, reason = "each test binary uses some")]
impl Pair {
    pub fn new() -> Self {
        Self::with(Config::default(), Wire::Encapsulated)
    }

    pub fn with(config: Config, wire: Wire) -> Self {
        let client = Endpoint::new(config.clone(), wire, client_addr().port(), 0x1000).unwrap();
        let mut server = Endpoint::new(config, wire, server_addr().port(), 0x2000).unwrap();
        server.set_serving(true);
        // It has been there for a while.
        server.handle_timeout(Instant::ZERO);
        Self {
            now: Instant::from_nanos(1_000_000_000),
            client,
            server,
            fate: Box::new(|_| Fate::Deliver),
            answer: Box::new(|request| Some(Message::from(request.clone()))),
            packet_bytes: 1480,
            log: Vec::new(),
            deliveries: HashMap::new(),
            open: Vec::new(),
            cancelled: Vec::new(),
            frozen: 0,
            outcomes: HashMap::new(),
            in_flight: BinaryHeap::new(),
            flights: 0,
        }
    }

    /// Makes a call of one byte, after which each end knows that the other is where it says it is.
    pub fn acquaint(mut self) -> Self {
        self.call(vec![1], u64::MAX);
        self.run(Duration::from_secs(1));
        assert!(
            self.outcomes
                .remove(&u64::MAX)
                .is_some_and(|outcome| outcome.is_ok())
        );
        self.log.clear();
        self.deliveries.clear();
        self
    }

    pub fn call(&mut self, message: impl Into<Message>, cookie: u64) -> RpcKey {
        let (now, packet_bytes) = (self.now, self.packet_bytes);
        let key =
            self.client
                .send_request(now, server_addr(), packet_bytes, message.into(), cookie);
        self.flush();
        key.unwrap()
    }

    pub fn respond(&mut self, rpc: RpcKey, message: impl Into<Message>) -> Result<(), RpcError> {
        let (now, packet_bytes) = (self.now, self.packet_bytes);
        let result = self
            .server
            .send_response(now, rpc, packet_bytes, message.into());
        self.flush();
        result
    }

    /// Replaces the server by a new process on the same address.
    pub fn restart_server(&mut self) {
        let port = server_addr().port();
        self.server = Endpoint::new(Config::default(), Wire::Encapsulated, port, 0x9999).unwrap();
        self.server.set_serving(true);
        self.server.handle_timeout(self.now);
        self.open.clear();
    }

    /// The same on a wire.
    pub fn restart_client_of(&mut self, wire: Wire) {
        let port = client_addr().port();
        self.client = Endpoint::new(Config::default(), wire, port, 0x8888).unwrap();
    }

    /// Replaces the client by a new process on the same address.
    pub fn restart_client(&mut self) {
        let port = client_addr().port();
        self.client = Endpoint::new(Config::default(), Wire::Encapsulated, port, 0x8888).unwrap();
    }

    /// Runs until nothing is left to happen or `limit` has passed.
    pub fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        self.flush();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.step(at.max(self.now));
            if self.is_settled() {
                return;
            }
        }
        self.now = end;
    }

    /// Runs for exactly this long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.flush();
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.step(at.max(self.now));
        }
        self.now = end;
    }

    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.client.is_idle() && self.server.is_idle()
    }

    fn next_event(&self) -> Option<Instant> {
        let flight = self.in_flight.peek().map(|Reverse((at, _, _))| *at);
        [
            flight,
            self.client.poll_timeout(),
            self.server.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn step(&mut self, at: Instant) {
        self.now = at;
        while self
            .in_flight
            .peek()
            .is_some_and(|Reverse((when, _, _))| *when <= at)
        {
            let Some(Reverse((_, _, flight))) = self.in_flight.pop() else {
                break;
            };
            let (endpoint, from, local): (_, _, IpAddr) = if flight.to_server {
                (&mut self.server, client_addr(), server_addr().ip())
            } else {
                (&mut self.client, server_addr(), client_addr().ip())
            };
            endpoint.handle_packet(at, from, local, &flight.bytes);
        }
        for endpoint in [&mut self.client, &mut self.server] {
            if endpoint.poll_timeout().is_some_and(|due| due <= at) {
                endpoint.handle_timeout(at);
            }
        }
        self.flush();
    }

    pub fn flush(&mut self) {
        loop {
            self.events();
            let sent = self.transmit(Side::Client) + self.transmit(Side::Server);
            if sent == 0 {
                return;
            }
        }
    }

    fn transmit(&mut self, from: Side) -> usize {
        let mut count = 0;
        loop {
            let endpoint = if from == Side::Client {
                &mut self.client
            } else {
                &mut self.server
            };
            let Some(transmit) = endpoint.poll_transmit(self.now) else {
                return count;
            };
            count += 1;
            let bytes = transmit.to_vec();
            let (header, packet) = wire::parse(&bytes).expect("what we send is well-formed");
            let to = transmit.to;
            let record = Record::of(
                self.now,
                true,
                to,
                header.sender_id,
                &packet,
                transmit.payload.len(),
            );
            let mut sent = Sent {
                from,
                number: self.log.len(),
                packet_type: packet.packet_type(),
                text: record.to_string(),
                len: bytes.len(),
                at: self.now,
                id: header.sender_id,
                fate: Fate::Deliver,
            };
            let fate = (self.fate)(&sent);
            sent.fate = fate;
            self.log.push(sent);
            let arrivals: &[Duration] = match &fate {
                Fate::Deliver => &[DELAY],
                Fate::Drop => &[],
                Fate::Duplicate => &[DELAY, Duration::from_micros(300)],
                Fate::Delay(by) => &[*by],
            };
            for delay in arrivals {
                self.flights += 1;
                let flight = Flight {
                    to_server: from == Side::Client,
                    bytes: bytes.clone(),
                };
                self.in_flight
                    .push(Reverse((self.now + *delay, self.flights, flight)));
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Request { rpc, peer, message } => {
                    assert_eq!(peer, client_addr());
                    *self.deliveries.entry(message.clone()).or_default() += 1;
                    self.open.push(rpc);
                    if let Some(answer) = (self.answer)(&message) {
                        let _ = self
                            .server
                            .send_response(self.now, rpc, self.packet_bytes, answer);
                        self.open.pop();
                    }
                }
                Event::Cancelled { rpc } => self.cancelled.push(rpc),
                Event::Frozen => self.frozen += 1,
                Event::Response { .. } | Event::Failed { .. } => panic!("not a client: {event:?}"),
            }
        }
        while let Some(event) = self.client.poll_event() {
            let (cookie, outcome) = match event {
                Event::Response { cookie, message } => (cookie, Ok(message)),
                Event::Failed { cookie, error } => (cookie, Err(error)),
                Event::Frozen => continue,
                Event::Request { .. } | Event::Cancelled { .. } => panic!("not a server"),
            };
            assert!(
                self.outcomes.insert(cookie, outcome).is_none(),
                "one outcome per call"
            );
        }
    }
}
