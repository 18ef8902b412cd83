//! Sizes of packets that the routes to peers take, as the system knows them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::super::clock::Clock;
use super::super::sys::batch;
use crate::units::Instant;

/// Taken for the MTU of a route that cannot be found.
const ETHERNET_MTU: u32 = 1500;
const V4_HEADER: u32 = 20;
const V6_HEADER: u32 = 40;
/// Longest content of an IP packet that its 16-bit length field can express; in IPv4 the header is part
/// of it.
const LENGTH_MAX: u32 = 65_535;
/// How long a route is taken to be as it was. A route that has become narrower is found out by the
/// packets that it does not take.
const FRESH: Duration = Duration::from_secs(1);
/// How long packets stay short after a route became narrower: for longer than an RPC lives, because a
/// message that began in short packets must not go on in long ones.
const NARROW: Duration = Duration::from_secs(60);
/// Addresses remembered. When there are more, all are forgotten and looked up anew.
const ADDRESSES_MAX: usize = 4096;

/// The routes' MTUs, asked of the system once a second.
#[derive(Debug)]
pub(super) struct RouteMtu {
    /// UDP sockets that the system tells the MTU of a route by, IPv4 and IPv6.
    probes: [Mutex<Option<Socket>>; 2],
    known: RwLock<HashMap<SocketAddr, Known>>,
    /// Some route has become narrower.
    any_narrow: AtomicBool,
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    mtu: u32,
    asked: Instant,
    /// What the route has been narrowed to, and when.
    narrow: Option<(u32, Instant)>,
}

impl Known {
    fn mtu_at(&self, now: Instant) -> u32 {
        self.narrow_at(now)
            .map_or(self.mtu, |mtu| mtu.min(self.mtu))
    }

    fn narrow_at(&self, now: Instant) -> Option<u32> {
        let recent = |(_, at): &(u32, Instant)| now.saturating_since(*at) < NARROW;
        self.narrow.filter(recent).map(|(mtu, _)| mtu)
    }
}

impl RouteMtu {
    /// For packets from `local`, in the network namespace of the calling thread.
    pub(super) fn new(mut local: SocketAddr) -> io::Result<Self> {
        local.set_port(0);
        let probe = |domain, any: bool| -> io::Result<Option<Socket>> {
            let Ok(socket) = Socket::new(domain, Type::DGRAM, None) else {
                // The machine lacks this family.
                return Ok(None);
            };
            if any && !local.ip().is_unspecified() {
                socket.bind(&local.into())?;
            }
            Ok(Some(socket))
        };
        Ok(Self {
            probes: [
                Mutex::new(probe(Domain::IPV4, local.is_ipv4())?),
                Mutex::new(probe(Domain::IPV6, local.is_ipv6())?),
            ],
            known: RwLock::default(),
            any_narrow: AtomicBool::new(false),
            clock: Clock::new(),
        })
    }

    /// Largest Homa packet that the route to `peer` takes, in bytes. IPv4 addresses come unmapped.
    pub(super) fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        let now = self.clock.now();
        let to = host(peer);
        let known = self.get(to);
        let fresh = known.filter(|known| now.saturating_since(known.asked) < FRESH);
        let known = fresh.unwrap_or_else(|| self.ask(to, now, false));
        packet_bytes(to, known.mtu_at(now))
    }

    /// What [`Self::packet_bytes_max`] is for a peer whose route has become narrower lately, so that packets
    /// cut before may be too long; `None` otherwise.
    pub(super) fn narrowed(&self, peer: SocketAddr) -> Option<usize> {
        if !self.any_narrow.load(Ordering::Relaxed) {
            return None;
        }
        let to = host(peer);
        let mtu = self.get(to)?.narrow_at(self.clock.now())?;
        Some(packet_bytes(to, mtu))
    }

    /// Takes the system's word that a packet was too long for the route to `peer`.
    pub(super) fn on_too_long(&self, peer: SocketAddr) {
        self.any_narrow.store(true, Ordering::Relaxed);
        self.ask(host(peer), self.clock.now(), true);
    }

    /// Makes the route to `peer` narrow.
    #[cfg(test)]
    pub(super) fn pretend_narrow(&self, peer: SocketAddr, mtu: u32) {
        self.on_too_long(peer);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let narrow = known
            .get_mut(&host(peer))
            .and_then(|known| known.narrow.as_mut());
        if let Some((narrow, _)) = narrow {
            *narrow = mtu;
        }
    }

    fn get(&self, to: SocketAddr) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&to).copied()
    }

    fn ask(&self, to: SocketAddr, now: Instant, narrower: bool) -> Known {
        let mtu = self.route(to).unwrap_or(ETHERNET_MTU);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(&to).copied();
        let narrow = match before.and_then(|before| before.narrow) {
            _ if narrower => {
                let still = before.and_then(|before| before.narrow_at(now));
                Some((still.map_or(mtu, |still| still.min(mtu)), now))
            }
            narrow => narrow,
        };
        if known.len() >= ADDRESSES_MAX && before.is_none() {
            known.clear();
        }
        let asked = Known {
            mtu,
            asked: now,
            narrow,
        };
        known.insert(to, asked);
        asked
    }

    fn route(&self, to: SocketAddr) -> io::Result<u32> {
        let [v4, v6] = &self.probes;
        let probe = if to.is_ipv4() { v4 } else { v6 };
        let probe = probe.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = probe.as_ref() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        batch::route_mtu(socket, to)
    }
}

/// The host of `peer`: its address and scope. Port 9 (discard) stands for all; nothing is sent there.
fn host(mut peer: SocketAddr) -> SocketAddr {
    peer.set_port(9);
    peer
}

fn packet_bytes(peer: SocketAddr, mtu: u32) -> usize {
    let bytes = match peer {
        SocketAddr::V4(_) => mtu.min(LENGTH_MAX).saturating_sub(V4_HEADER),
        SocketAddr::V6(_) => mtu.saturating_sub(V6_HEADER).min(LENGTH_MAX),
    };
    bytes as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_takes_what_an_ip_packet_can_be() {
        let routes = RouteMtu::new("0.0.0.0:0".parse().unwrap()).unwrap();
        let of = |peer: &str| routes.packet_bytes_max(peer.parse().unwrap());
        assert_eq!(of("127.0.0.1:1"), 65_515);
        assert_eq!(of("[::1]:1"), 65_496);
        assert_eq!(of("127.99.0.1:2"), 65_515);
        assert_eq!(routes.narrowed("127.0.0.1:1".parse().unwrap()), None);
    }

    #[tokio::test]
    async fn a_route_that_is_not_there_is_taken_for_ethernet() {
        let routes = RouteMtu::new("127.0.0.1:0".parse().unwrap()).unwrap();
        // From a loopback address there is no way out.
        assert_eq!(
            routes.packet_bytes_max("192.0.2.1:1".parse().unwrap()),
            1480
        );
    }

    #[tokio::test(start_paused = true)]
    async fn packets_stay_short_for_a_while_after_a_route_became_narrower() {
        let routes = RouteMtu::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer: SocketAddr = "127.0.0.1:7".parse().unwrap();
        routes.pretend_narrow(peer, 1500);
        assert_eq!(routes.narrowed(peer), Some(1480));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(routes.packet_bytes_max(peer), 1480);
        tokio::time::advance(NARROW).await;
        assert_eq!(routes.narrowed(peer), None);
        assert_eq!(routes.packet_bytes_max(peer), 65_515);
    }

    #[tokio::test]
    async fn addresses_remembered_are_bounded() {
        let routes = RouteMtu::new("127.0.0.1:0".parse().unwrap()).unwrap();
        for address in 0..5000u32 {
            let ip = std::net::Ipv4Addr::from(0x7f00_0001 + address);
            routes.packet_bytes_max((ip, 1).into());
        }
        assert!(routes.known.read().unwrap().len() <= ADDRESSES_MAX);
    }
}
