//! One host of the experiment: an endpoint, its application and its network card.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use homa_transport::endpoint::{Endpoint, Event, Transmit};
use homa_transport::sim::{Arrival, Network, PacketId, Random, Sizes};
use homa_transport::units::Instant;
use homa_transport::wire::DATA_HEADER_BYTES;

use super::experiment::{Books, Delivered, Message, Plan, nanos};
use super::settings::{self, Mode};

const PORT: u16 = 4_000;
/// How often every endpoint looks at its timers, in nanoseconds.
const TICK: u64 = 1_000_000;
/// Longest packet with its header, and the two bytes behind the header (see `Host::pack`).
const PACKET_BYTES_MAX: usize = 2_048;
const NEVER: u64 = u64::MAX;

static ZEROS: [u8; settings::MESSAGE_BYTES_MAX] = [0; settings::MESSAGE_BYTES_MAX];

/// What all hosts send, and how.
#[derive(Debug)]
pub(super) struct Traffic {
    sizes: Sizes,
    /// Mean time between two messages of a host, in nanoseconds.
    interval: f64,
    /// Messages begin before this time.
    end: u64,
    hosts: usize,
    packet_bytes: usize,
}

impl Traffic {
    pub(super) fn new(plan: &Plan, end: u64) -> Self {
        let sizes = plan.workload.sizes_sigcomm18();
        let sizes = sizes.at_most(u32::try_from(ZEROS.len()).unwrap_or(u32::MAX));
        Self {
            interval: settings::interval_nanos(plan.workload, sizes.mean(), plan.load),
            sizes,
            end,
            hosts: plan.hosts,
            packet_bytes: settings::packet_bytes(plan.mode),
        }
    }
}

/// A host.
pub(super) struct Host {
    number: usize,
    mode: Mode,
    endpoint: Endpoint,
    random: Random,
    /// Begin of the next message, in nanoseconds, not rounded.
    next_message: f64,
    /// The same as a time, or never.
    begin_at: u64,
    /// The next packet goes when the link is free.
    sending: bool,
    /// When the link is free.
    free_at: Instant,
    /// When the endpoint wants to be called.
    wake_at: u64,
    messages: Vec<Message>,
    /// Places in `messages` to use again.
    free: Vec<usize>,
    scratch: Box<[u8; PACKET_BYTES_MAX]>,
    header: Vec<u8>,
}

impl Host {
    pub(super) fn new(
        plan: &Plan,
        number: usize,
        traffic: &Traffic,
        random: Random,
    ) -> Option<Self> {
        let (config, wire) = settings::endpoint(plan.mode, plan.workload);
        let mut endpoint = Endpoint::new(config, wire, PORT, 0).ok()?;
        endpoint.set_serving(true);
        let mut host = Self {
            number,
            mode: plan.mode,
            endpoint,
            random,
            next_message: 0.0,
            begin_at: NEVER,
            sending: false,
            free_at: Instant::ZERO,
            wake_at: TICK,
            messages: Vec::new(),
            free: Vec::new(),
            scratch: Box::new([0; PACKET_BYTES_MAX]),
            header: Vec::new(),
        };
        host.schedule_message(traffic);
        Some(host)
    }

    /// When it has something to do, besides taking packets.
    pub(super) fn next_at(&self) -> u64 {
        let link = if self.sending {
            self.free_at.as_nanos()
        } else {
            NEVER
        };
        self.begin_at.min(self.wake_at).min(link)
    }

    /// Does one of the things that are to be done at `at`.
    pub(super) fn act(
        &mut self,
        at: u64,
        traffic: &Traffic,
        network: &mut Network,
        books: &mut Books,
    ) {
        let now = Instant::from_nanos(at);
        if self.begin_at == at {
            self.begin_message(now, traffic, network, books);
            self.schedule_message(traffic);
        } else if self.sending && self.free_at == now {
            self.send(now, network);
            return;
        } else {
            if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
                self.endpoint.handle_timeout(now);
            }
            self.set_wake(at);
        }
        self.offer_link(now, network);
    }

    /// Sets the begin of the next message: a Poisson process.
    fn schedule_message(&mut self, traffic: &Traffic) {
        self.next_message -= (1.0 - self.random.unit()).ln() * traffic.interval;
        let at = nanos(self.next_message);
        self.begin_at = if at < traffic.end { at } else { NEVER };
    }

    fn begin_message(
        &mut self,
        now: Instant,
        traffic: &Traffic,
        network: &Network,
        books: &mut Books,
    ) {
        let size = traffic.sizes.sample(&mut self.random);
        let to = (self.number + 1 + self.random.index(traffic.hosts - 1)) % traffic.hosts;
        let topology = network.topology();
        let message = Message {
            begun: now.as_nanos(),
            size,
            same_rack: topology.rack_of(self.number) == topology.rack_of(to),
        };
        let place = self.free.pop().unwrap_or(self.messages.len());
        match self.messages.get_mut(place) {
            Some(slot) => *slot = message,
            None => self.messages.push(message),
        }
        let bytes = ZEROS.get(..size as usize).unwrap_or(&ZEROS).into();
        let peer = address(to);
        let cookie = place as u64;
        let sent = self
            .endpoint
            .send_request(now, peer, traffic.packet_bytes, bytes, cookie);
        if sent.is_err() {
            books.failed += 1;
            self.free.push(place);
            return;
        }
        books.on_begun(&message);
    }

    /// Takes a packet, and returns the message if it was its last one.
    pub(super) fn arrive(
        &mut self,
        arrival: Arrival,
        network: &mut Network,
        books: &mut Books,
    ) -> Option<Delivered> {
        let Arrival { packet, from, .. } = arrival;
        let now = arrival.at;
        books.on_arrival(now.as_nanos(), network.wire_bytes_of(packet));
        let len = self.unpack(packet, network);
        network.release(packet);
        let local = address(self.number).ip();
        let bytes = self.scratch.get(..len)?;
        self.endpoint
            .handle_packet(now, address(from), local, bytes);
        let mut delivered = None;
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { rpc, .. } => {
                    let id = self.endpoint.id_of(rpc)?;
                    self.endpoint.end_silently(rpc);
                    delivered = Some(Delivered {
                        id,
                        receiver: self.number,
                        at: now.as_nanos(),
                    });
                }
                Event::Failed { .. } => books.failed += 1,
                Event::Response { .. } | Event::Cancelled { .. } | Event::Frozen => {}
            }
        }
        self.offer_link(now, network);
        delivered
    }

    /// Ends the RPCs of messages that have arrived.
    pub(super) fn settle(&mut self, delivered: &mut Vec<Delivered>, books: &mut Books) {
        let local = address(self.number).ip();
        for Delivered { id, receiver, at } in delivered.drain(..) {
            let rpc = self
                .endpoint
                .find_rpc(address(receiver), local, id.client_form());
            let cookie = rpc.and_then(|rpc| self.endpoint.end_silently(rpc));
            let place = cookie.and_then(|cookie| usize::try_from(cookie).ok());
            let message = place.and_then(|place| self.messages.get(place));
            let (Some(place), Some(message)) = (place, message) else {
                books.failed += 1;
                continue;
            };
            books.on_delivered(at, message);
            self.free.push(place);
        }
    }

    /// An endpoint that has something to send gets its link, if that is free.
    fn offer_link(&mut self, now: Instant, network: &mut Network) {
        if self.sending {
            return;
        }
        if self.free_at <= now {
            self.send(now, network);
        } else if self.endpoint.may_transmit() {
            self.sending = true;
        } else {
            self.set_wake(now.as_nanos());
        }
    }

    /// The link is free: the next packet, if there is one.
    fn send(&mut self, now: Instant, network: &mut Network) {
        let Some(transmit) = self.endpoint.poll_transmit(now) else {
            self.sending = false;
            self.set_wake(now.as_nanos());
            return;
        };
        self.pack(&transmit);
        let counted = settings::counted_bytes(
            self.mode,
            transmit.header.as_slice().len(),
            transmit.payload.len(),
            data_offset(&transmit),
        );
        let wire_bytes = network.topology().wire_bytes(counted);
        let (to, level) = (number_of(transmit.to), transmit.priority);
        network.send_as(now, self.number, to, level, &mut self.header, wire_bytes);
        self.free_at = network.free_at(self.number);
        self.sending = self.endpoint.may_transmit();
        if !self.sending {
            self.set_wake(now.as_nanos());
        }
    }

    /// The endpoint is called at the next tick, or when it wants to be if its link is free then:
    /// while that is busy it could not do anything.
    fn set_wake(&mut self, now: u64) {
        let tick = now / TICK * TICK + TICK;
        let wanted = self.endpoint.poll_timeout();
        let wanted = wanted.map_or(NEVER, |at| at.max(self.free_at).as_nanos().max(now + 1));
        self.wake_at = tick.min(wanted);
    }

    /// Writes the header into `self.header`, and behind it how much data follow.
    fn pack(&mut self, transmit: &Transmit) {
        let length = u16::try_from(transmit.payload.len()).unwrap_or(u16::MAX);
        self.header.clear();
        self.header.extend_from_slice(transmit.header.as_slice());
        self.header.extend_from_slice(&length.to_le_bytes());
    }

    /// Puts a packet that has arrived together and returns its length. Its data are zeros, or what
    /// an earlier packet has left behind: nobody looks at them.
    fn unpack(&mut self, packet: PacketId, network: &Network) -> usize {
        let Some((header, length)) = network.bytes(packet).split_last_chunk::<2>() else {
            return 0;
        };
        if let Some(target) = self.scratch.get_mut(..header.len()) {
            target.copy_from_slice(header);
        }
        header.len() + usize::from(u16::from_le_bytes(*length))
    }
}

/// Where the data of a packet lie in their message, if it has any. It ends the header of DATA.
fn data_offset(transmit: &Transmit) -> Option<u32> {
    let header: &[u8; DATA_HEADER_BYTES] = transmit.header.as_slice().try_into().ok()?;
    header
        .last_chunk::<4>()
        .map(|offset| u32::from_be_bytes(*offset))
}

/// Address of host `number`: 10.0.0.1 and up.
fn address(number: usize) -> SocketAddr {
    let number = u32::try_from(number).unwrap_or(0);
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number);
    SocketAddr::new(ip.into(), PORT)
}

/// Number of the host with this address.
fn number_of(addr: SocketAddr) -> usize {
    match addr.ip() {
        IpAddr::V4(ip) => (ip.to_bits() - Ipv4Addr::new(10, 0, 0, 1).to_bits()) as usize,
        IpAddr::V6(_) => 0,
    }
}
