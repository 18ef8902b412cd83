//! Where forged packets come from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::Wire;

/// IP protocol of Homa.
const HOMA: i32 = 146;
/// Loopback addresses that forged packets of protocol 146 come from, IPv4 only.
const ADDRESSES: u8 = 64;
/// First Homa port of forged packets; they share the upper half with clients, as real ones do.
const FIRST_PORT: u16 = 40_000;
/// Homa ports that they come from at most, with every address.
const PORTS: usize = 20_000;
/// Descriptors that a process needs besides those of sources.
const OTHER_FILES: u64 = 200;
/// Nobody reads what comes back.
const RECEIVE_BUFFER_BYTES: usize = 1;

/// Loopback address of the same family.
pub(super) const fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// A number of sources of forged packets to one server.
#[derive(Debug)]
pub(super) enum Sources {
    /// A socket for each port.
    Udp {
        server: SocketAddr,
        sockets: Vec<UdpSocket>,
        next: usize,
        /// The one port to send from that is closed right after, where there is one source only.
        closed: Option<SocketAddr>,
    },
    /// Ports are forged, addresses are those of the host.
    Raw {
        server: SocketAddr,
        sockets: Vec<Socket>,
        count: usize,
        next: usize,
    },
}

impl Sources {
    /// Opens `count` of them; over IPv6 those of protocol 146 have the address `strangers`.
    pub(super) fn open(
        wire: Wire,
        server: SocketAddr,
        count: usize,
        strangers: Option<IpAddr>,
    ) -> io::Result<Self> {
        if wire == Wire::Homa {
            let sockets = match server {
                SocketAddr::V6(_) => {
                    vec![raw(server, strangers.unwrap_or(loopback(server.ip())))?]
                }
                SocketAddr::V4(_) => (1..=ADDRESSES.min(u8::try_from(count).unwrap_or(u8::MAX)))
                    .map(|last| raw(server, Ipv4Addr::new(127, 0, 1, last).into()))
                    .collect::<io::Result<_>>()?,
            };
            return Ok(Self::Raw {
                server,
                sockets,
                count,
                next: 0,
            });
        }
        raise_file_limit(count)?;
        let any = SocketAddr::new(loopback(server.ip()), 0);
        let sockets: Vec<_> = (0..count).map(|_| udp(any)).collect::<io::Result<_>>()?;
        Ok(Self::Udp {
            server,
            sockets,
            next: 0,
            closed: (count == 1).then_some(any),
        })
    }

    /// Sends from the next source. Its replies are not read.
    pub(super) fn send(&mut self, packet: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Udp {
                server,
                sockets,
                next,
                ..
            } => {
                *next = (*next + 1) % sockets.len().max(1);
                let socket = sockets.get(*next).ok_or(io::ErrorKind::NotFound)?;
                socket.send_to(packet, *server).map(|_| ())
            }
            Self::Raw {
                server,
                sockets,
                count,
                next,
            } => {
                *next = (*next + 1) % (*count).max(1);
                let port = u16::try_from(*next / sockets.len().max(1) % PORTS).unwrap_or_default();
                set_source_port(packet, FIRST_PORT + port);
                let socket = sockets.get(*next % sockets.len().max(1));
                send_raw(socket.ok_or(io::ErrorKind::NotFound)?, packet, *server)
            }
        }
    }

    /// Sends from a port that nobody listens on when the reply comes, so that the system reports it to the
    /// server. On protocol 146 no forged port has a listener, and sockets of this host do the same.
    pub(super) fn send_and_close(&mut self, packet: &mut [u8]) -> io::Result<()> {
        let Self::Udp { server, closed, .. } = self else {
            return self.send(packet);
        };
        let any = SocketAddr::new(loopback(server.ip()), 0);
        let socket = match closed {
            // Somebody else may have taken the port meanwhile.
            Some(addr) => udp(*addr).or_else(|_| udp(any))?,
            None => udp(any)?,
        };
        if let Some(closed) = closed {
            *closed = socket.local_addr()?;
        }
        socket.send_to(packet, *server).map(|_| ())
    }
}

/// Sends a packet of protocol 146.
pub(super) fn send_raw(socket: &Socket, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    // The port of a raw IPv6 address would be a protocol.
    let to = SocketAddr::new(to.ip(), 0);
    socket.send_to(packet, &to.into()).map(|_| ())
}

/// A socket of protocol 146 that sends from `from`.
pub(super) fn raw(server: SocketAddr, from: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::RAW,
        Some(Protocol::from(HOMA)),
    )?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    Ok(socket)
}

fn udp(from: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(from), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&from.into())?;
    Ok(socket.into())
}

/// Writes the source port of a Homa header, as far as there is one.
pub(super) fn set_source_port(packet: &mut [u8], port: u16) {
    if let Some(field) = packet.first_chunk_mut() {
        *field = port.to_be_bytes();
    }
}

fn raise_file_limit(sockets: usize) -> io::Result<()> {
    let wanted = sockets as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        let reason = format!("{sockets} sources need {wanted} open files: {error}");
        io::Error::other(reason)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn packets_come_from_as_many_ports_as_there_are_sources() {
        for (from, sources) in [("127.0.0.1:0", 1), ("127.0.0.1:0", 7)] {
            let server = UdpSocket::bind(from).unwrap();
            let addr = server.local_addr().unwrap();
            let mut forging = Sources::open(Wire::Udp, addr, sources, None).unwrap();
            let mut ports = HashSet::new();
            for _ in 0..20 {
                forging.send(&mut [1, 2, 3]).unwrap();
                let mut buffer = [0; 8];
                let (len, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..len], [1, 2, 3]);
                ports.insert(from.port());
            }
            assert_eq!(ports.len(), sources);
        }
    }

    #[test]
    fn a_closed_source_has_no_listener() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        let mut forging = Sources::open(Wire::Udp, addr, 3, None).unwrap();
        let closed = (0..100).any(|_| {
            forging.send_and_close(&mut [0; 3]).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            // Somebody else may be faster at times.
            UdpSocket::bind(from).is_ok()
        });
        assert!(closed);
    }
}
