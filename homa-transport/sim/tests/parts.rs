//! Messages beside the parts of a longer whole: who comes first where the link is narrow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use homa_protocol::endpoint::Event;
use homa_protocol::units::Instant;
use homa_protocol::{Config, Endpoint, Message, Wire};
use homa_sim::{Network, PacketFaults, Random, Topology, ip_of};

/// Length of the whole.
const WHOLE: usize = 1_000_000;
/// Length of its parts.
const PART: usize = 250_000;
/// Lengths of the messages beside it.
const BESIDE: [usize; 3] = [250_000, 400_000, 700_000];

const PACKET_BYTES: usize = 1_472;
const PORT: u16 = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    /// One message.
    Whole,
    /// Parts that say so, so many at a time.
    Parts(usize),
    /// Parts that do not.
    UnmarkedParts(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Narrow {
    /// All messages are of one host.
    Uplink,
    /// Each is of a host of its own.
    Downlink,
}

/// Hosts on one switch. The first is the server.
struct Lab {
    now: Instant,
    network: Network,
    hosts: Vec<Endpoint>,
    /// When each number was answered last.
    ends: BTreeMap<u64, Duration>,
    open: usize,
    /// Parts of the whole that wait for those before.
    waiting: VecDeque<Message>,
}

impl Lab {
    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn new(wire: Wire, seed: u64) -> Self {
        let topology = Topology::single_switch(5, 10_000);
        let host = |host: usize| {
            let seed = u128::from(seed) << 64 | (host as u128 + 1) << 20;
            let mut endpoint = Endpoint::new(Config::default(), wire, PORT, seed).unwrap();
            endpoint.set_serving(true);
            endpoint.handle_timeout(Instant::ZERO);
            endpoint
        };
        Self {
            now: Self::START,
            hosts: (0..topology.hosts()).map(host).collect(),
            network: Network::new(topology, PacketFaults::default(), seed),
            ends: BTreeMap::new(),
            open: 0,
            waiting: VecDeque::new(),
        }
    }

    fn call(&mut self, from: usize, number: u64, message: Message) {
        let server = SocketAddr::new(ip_of(0), PORT);
        let client = &mut self.hosts[from];
        client
            .send_request(self.now, server, PACKET_BYTES, message, number)
            .unwrap();
        self.open += 1;
    }

    /// What a host has to do now; returns when it has to do something again.
    fn serve(&mut self, at: usize) -> Option<Instant> {
        let mut again = None;
        let endpoint = &mut self.hosts[at];
        if endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
            endpoint.handle_timeout(self.now);
        }
        while let Some(event) = endpoint.poll_event() {
            match event {
                Event::Request { rpc, .. } => endpoint
                    .send_response(self.now, rpc, PACKET_BYTES, vec![1].into())
                    .unwrap(),
                Event::Response { cookie, .. } => {
                    self.ends.insert(cookie, self.now - Self::START);
                    self.open -= 1;
                    if cookie == 0 {
                        again = self.waiting.pop_front();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(part) = again {
            self.call(at, 0, part);
        }
        let endpoint = &mut self.hosts[at];
        loop {
            let free = self.network.free_at(at);
            if free > self.now {
                return Some(free);
            }
            let Some(packet) = endpoint.poll_transmit(self.now) else {
                return endpoint.poll_timeout();
            };
            let to = (0..5).find(|host| ip_of(*host) == packet.to.ip()).unwrap();
            let mut bytes = packet.to_vec();
            self.network
                .send(self.now, at, to, packet.priority, &mut bytes);
        }
    }

    /// Until all is answered; `later` calls are made at their times.
    fn run(&mut self, mut later: VecDeque<(Duration, usize, u64, Message)>) {
        while self.open > 0 || !later.is_empty() {
            let due = (0..self.hosts.len())
                .filter_map(|host| self.serve(host))
                .min();
            let arrival = self.network.next_at();
            let call = later.front().map(|(at, ..)| Self::START + *at);
            let next = [due, arrival, call].into_iter().flatten().min().unwrap();
            self.now = next.max(self.now);
            if call == Some(next)
                && let Some((_, from, number, message)) = later.pop_front()
            {
                self.call(from, number, message);
                continue;
            }
            if arrival == Some(next)
                && let Some(arrival) = self.network.advance()
            {
                let from = SocketAddr::new(ip_of(arrival.from), PORT);
                let bytes = self.network.bytes(arrival.packet);
                self.hosts[arrival.to].handle_packet(self.now, from, ip_of(arrival.to), bytes);
                self.network.release(arrival.packet);
            }
        }
    }
}

/// The whole as it is sent, and how many messages of it go side by side.
fn messages(sends: Sends) -> (usize, VecDeque<Message>) {
    let part = |at: usize| {
        let part = Message::from(vec![1; PART]);
        let left = (WHOLE - (at + 1) * PART) as u64;
        match sends {
            Sends::Whole | Sends::UnmarkedParts(_) => part,
            // Those beside it count as well.
            Sends::Parts(width) => {
                let beside = (width.min(at + 1) - 1) * PART;
                let part = part.with_following(left + beside as u64);
                if at == 0 { part } else { part.scheduled() }
            }
        }
    };
    match sends {
        Sends::Whole => (1, [Message::from(vec![1; WHOLE])].into()),
        Sends::Parts(width) | Sends::UnmarkedParts(width) => {
            (width, (0..WHOLE / PART).map(part).collect())
        }
    }
}

/// When the whole (0) and the messages beside it (1 to 3) had arrived, each with its number, in that order.
fn ends(sends: Sends, narrow: Narrow, wire: Wire, seed: u64) -> Vec<(Duration, u64)> {
    let mut lab = Lab::new(wire, seed);
    let (width, parts) = messages(sends);
    lab.waiting = parts;
    for _ in 0..width {
        let part = lab.waiting.pop_front().unwrap();
        lab.call(1, 0, part);
    }
    let mut random = Random::new(seed);
    let mut at = Duration::ZERO;
    let beside = (1..).zip(BESIDE).map(|(number, len)| {
        let from = match narrow {
            Narrow::Uplink => 1,
            Narrow::Downlink => 1 + usize::try_from(number).unwrap(),
        };
        at += random.duration(Duration::from_nanos(1), Duration::from_micros(150));
        (at, from, number, vec![2; len].into())
    });
    lab.run(beside.collect());
    let mut ends: Vec<_> = lab
        .ends
        .iter()
        .map(|(number, end)| (*end, *number))
        .collect();
    ends.sort_unstable();
    ends
}

const WIRES: [Wire; 2] = [Wire::Encapsulated, Wire::Native];

#[test]
fn on_a_narrow_uplink_shorter_messages_pass_parts_as_they_pass_one_long_message() {
    for (seed, wire) in (0..8).flat_map(|seed| WIRES.map(|wire| (seed, wire))) {
        let whole = ends(Sends::Whole, Narrow::Uplink, wire, seed);
        for width in [1, 2, 4] {
            let parts = ends(Sends::Parts(width), Narrow::Uplink, wire, seed);
            for ((as_whole, number), (as_parts, same)) in whole.iter().zip(&parts) {
                let slower = as_parts.as_secs_f64() / as_whole.as_secs_f64();
                assert_eq!(number, same, "{seed} {wire:?} {whole:?} {parts:?}");
                assert!(slower < 1.02, "{seed} {wire:?} {whole:?} {parts:?}");
            }
        }
    }
}

/// Who comes when on a downlink depends on levels granted before others came as well.
#[test]
fn on_a_narrow_downlink_shorter_messages_pass_parts_and_not_those_that_do_not_say_so() {
    let beside = |ends: &[(Duration, u64)]| {
        let beside = ends.iter().filter(|(_, number)| *number != 0);
        beside.map(|(end, _)| end.as_secs_f64()).sum::<f64>()
    };
    for (seed, wire) in (0..8).flat_map(|seed| WIRES.map(|wire| (seed, wire))) {
        let whole = ends(Sends::Whole, Narrow::Downlink, wire, seed);
        for width in [1, 2, 4] {
            let parts = ends(Sends::Parts(width), Narrow::Downlink, wire, seed);
            let slower = beside(&parts) / beside(&whole);
            let context = format!("{slower}: {seed} {wire:?} {width} {whole:?} {parts:?}");
            assert_eq!(parts.last().unwrap().1, 0, "{context}");
            assert!(slower < 1.25, "{context}");
        }
        let unmarked = ends(Sends::UnmarkedParts(4), Narrow::Downlink, wire, seed);
        assert_ne!(unmarked.last().unwrap().1, 0, "{unmarked:?}");
        let slower = beside(&unmarked) / beside(&whole);
        assert!(slower > 1.5, "{slower}: {seed} {wire:?} {unmarked:?}");
    }
}

/// Packets of a grant at a higher level overtake all that was granted before, more than could be missing in
/// front of a packet without room for the whole message.
#[test]
fn what_overtakes_the_whole_window_is_kept() {
    let [(end, _), ..] = ends(Sends::Whole, Narrow::Downlink, Wire::Encapsulated, 0)[3..] else {
        panic!("four messages")
    };
    // 2.35 MB at 10 Gbit/s take 2 ms; a RESEND would come after 5 ms.
    assert!(end < Duration::from_millis(3), "{end:?}");
}
