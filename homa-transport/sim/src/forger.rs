//! Packets that somebody forges who is on no way between hosts: he knows the ids of their RPCs, writes any
//! address as the sender's, and has seen no token.

use super::addresses::AddressId;
use super::event::WorldEvent;
use super::fuzz::{Source, forge};
use super::invariant::{Breach, Invariant};
use super::ip::port;
use super::packet::PacketId;
use super::trace::{Record, Summary, What};
use super::world::World;
use homa_protocol::endpoint::Event;
use homa_protocol::units::RpcId;
use homa_protocol::wire::{self, Data, Header, Packet, PacketType, Tokens};

/// Of so many calls made last one is chosen.
const LATE_CALLS: usize = 40;
/// For how long after its beginning a call is sure to be remembered by the server that had it, in
/// nanoseconds: less than `delivered_memory`, by any clock.
const REMEMBERED: u64 = 4_000_000_000;
/// Bytes from which the fields of a packet are drawn.
const DRAWN_BYTES: usize = 200;

/// What is to be forged.
#[derive(Clone, Copy, Debug)]
struct Forgery {
    target: usize,
    from: AddressId,
    /// In the form of the pretended sender.
    id: RpcId,
    /// The call that has this id.
    call: Option<usize>,
}

/// What a host knows of an RPC and of an address: nothing of it may change.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    rpcs_live: usize,
    about: String,
}

impl World {
    pub(super) fn set_next_forgery(&mut self) {
        let Some(forgeries) = self.scenario.forgeries else {
            return;
        };
        if self.totals.forged < u64::from(forgeries.packets_max) && self.is_loaded() {
            let wait = self.random.exponential(forgeries.interval);
            self.at(self.now + wait, WorldEvent::Forge);
        }
    }

    /// Forges a packet and lets it arrive.
    pub(super) fn forge(&mut self) {
        if !self.is_loaded() {
            return;
        }
        self.totals.forged += 1;
        self.set_next_forgery();
        let Some(forgery) = self.choose_forgery() else {
            return;
        };
        let Some(mut bytes) = self.forged_packet(forgery) else {
            return;
        };
        if forgery.call.is_none() {
            self.oracle.on_forged_id(forgery.id);
        }
        let any = [0, self.random.next()];
        let [own, shown] = [any, any].map(|any| self.random.pick(any));
        Tokens { own, shown }.write(&mut bytes);
        let mark = forgery.from.0 << 1 | 1;
        self.network.inject(self.now, forgery.target, mark, &bytes);
    }

    fn choose_forgery(&mut self) -> Option<Forgery> {
        let calls = self.oracle.next_call();
        if calls > 0 && self.random.chance(700_000) {
            let number = calls - 1 - self.random.index(calls.min(LATE_CALLS));
            let call = self.oracle.call(number)?;
            let (id, client, server) = (call.id, call.client, call.server);
            let to_server = self.random.chance(500_000);
            let (target, other) = if to_server {
                (server, client)
            } else {
                (client, server)
            };
            return Some(Forgery {
                target,
                from: self.addresses.seen_as(other),
                id: if to_server { id } else { id.other_side() },
                call: Some(number),
            });
        }
        let target = self.random.index(self.hosts.len());
        let from = self.random.index(self.addresses.len());
        let from = AddressId(u32::try_from(from).ok()?);
        Some(Forgery {
            target,
            from: self.addresses.as_seen(from),
            id: RpcId::new(self.random.next() | 2).client_form(),
            call: None,
        })
    }

    /// The packet, if it is one that must change nothing. Nothing tells the first DATA of a request from a
    /// forged one, so there is none for a call that its server has not had.
    fn forged_packet(&mut self, forgery: Forgery) -> Option<Vec<u8>> {
        let whole = forgery.call.is_none() && self.random.chance(400_000);
        let bytes = if whole {
            self.forged_request(forgery.id)
        } else {
            let drawn: Vec<u8> = (0..DRAWN_BYTES.div_ceil(8))
                .flat_map(|_| self.random.next().to_le_bytes())
                .collect();
            let (_, bytes) =
                forge::packet(&mut Source::new(&drawn), (port(), port()), |_| forgery.id);
            bytes
        };
        let (_, packet) = wire::parse(&bytes).ok()?;
        let is_data = packet.packet_type() == PacketType::Data;
        let allowed = match forgery.call {
            Some(call) if is_data && forgery.id.is_client() => self.is_remembered(call),
            _ => packet.packet_type() != PacketType::Freeze,
        };
        (allowed && bytes.len() <= self.scenario.packet_bytes).then_some(bytes)
    }

    fn forged_request(&mut self, id: RpcId) -> Vec<u8> {
        let data = vec![7; self.random.index(500) + 1];
        let length = u32::try_from(data.len()).unwrap_or(1);
        let header = Header {
            source_port: port(),
            destination_port: port(),
            sender_id: id,
        };
        let first = Data {
            message_length: length,
            incoming: length,
            ack: None,
            cutoff_version: 0,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        forge::whole(&header, &Packet::Data(first, &data))
    }

    /// Whether the server of a call has had its request for certain, and will not have forgotten it.
    fn is_remembered(&self, number: usize) -> bool {
        let Some(call) = self.oracle.call(number) else {
            return false;
        };
        let age = self.now.saturating_since(call.begun).as_nanos();
        let server = self.hosts.get(call.server);
        age < u128::from(REMEMBERED)
            && server.is_some_and(|server| call.delivered_in == server.process)
    }

    /// Hands a forged packet to its target.
    pub(super) fn deliver_forged(&mut self, at: usize, packet: PacketId) -> Result<(), Breach> {
        self.take_events(at)?;
        let from = AddressId(self.network.mark_of(packet) >> 1);
        let bytes = self.network.bytes(packet).to_vec();
        self.network.release(packet);
        let (Some(peer), Ok(parsed)) = (self.addresses.addr(from), wire::parse(&bytes)) else {
            return Ok(());
        };
        let (id, party) = (parsed.0.sender_id, self.addresses.party(from));
        self.record_forged(at, party, &bytes);
        let before = self.standing(at, peer, id);
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        let (now, local) = (host.clock.local(self.now), host.addr.ip());
        host.endpoint.handle_packet(now, peer, local, &bytes);
        if self.addresses.is_never_called(from) {
            self.oracle.unproven.on_received(at, from, &bytes, true);
        }
        let begins = self.oracle.is_forged(id) && parsed.1.packet_type() == PacketType::Data;
        if begins {
            let Some(host) = self.hosts.get(at) else {
                return Ok(());
            };
            let (endpoint, addresses) = (&host.endpoint, &self.addresses);
            self.oracle.on_received(at, party, &Ok(parsed), |peer, id| {
                endpoint.find_rpc(addresses.addr_of(peer)?, local, id.other_side())
            });
            return self.take_events(at);
        }
        let after = self.standing(at, peer, id);
        let event = self
            .hosts
            .get_mut(at)
            .and_then(|host| host.endpoint.poll_event());
        if let Some(detail) = difference(&before, &after, event.as_ref()) {
            let invariant = Invariant::ForgeriesChangeNothing;
            return Err(Breach::new(invariant, at, Some(party), detail));
        }
        Ok(())
    }

    fn record_forged(&mut self, at: usize, party: usize, bytes: &[u8]) {
        let summary = Summary::of(party, &wire::parse(bytes), bytes.len());
        self.trace.add(Record {
            step: self.step,
            at: self.now,
            host: at,
            what: What::Forged(summary),
        });
    }

    fn standing(&self, at: usize, peer: std::net::SocketAddr, id: RpcId) -> Option<Standing> {
        let host = self.hosts.get(at)?;
        let rpc = host
            .endpoint
            .find_rpc(peer, host.addr.ip(), id.other_side());
        Some(Standing {
            rpcs_live: host.endpoint.rpcs_live(),
            about: host.endpoint.standing(peer, rpc),
        })
    }
}

/// What a forged packet has changed.
fn difference(
    before: &Option<Standing>,
    after: &Option<Standing>,
    event: Option<&Event>,
) -> Option<String> {
    if let Some(event) = event {
        return Some(format!("a forged packet brings about {event:?}"));
    }
    (before != after).then(|| format!("a forged packet changes {before:?} into {after:?}"))
}
