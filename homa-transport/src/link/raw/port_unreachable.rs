//! ICMP "port unreachable" for packets to ports that nobody has.
//!
//! The kernel module answers such packets so, and its clients fail at once. With raw sockets nobody
//! knows by itself that a packet was for nobody: each process sees its own port. So one socket of the
//! network namespace is elected, by a name that only one can hold, to look at the packets of all. It
//! answers after a look at the reservations, and not at all when it cannot be sure.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{MsgHdr, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::super::address::canonical;
use super::super::cmsg::{self, SendCmsg};
use super::super::errno::SendError;
use super::super::reservation::{Held, PortReservation, probe, probe_native};
use super::super::{kernel_module, sys};
use super::port_filter;
use super::socket::{Family, IPPROTO_HOMA, homa_port, name};
use crate::units::Priority;
use crate::wire::PacketType;

/// The name that the elected one holds.
const LEADER_NAME: &str = "\0homa/port-unreachable";
/// How long to wait after something that stands in the way of an election, and how often the elected one
/// looks for the kernel module.
const PAUSE: Duration = Duration::from_secs(1);
/// Ports known to be held at most, whose packets the kernel does not even show.
const HELD_MAX: usize = port_filter::PORTS_MAX;
/// Answers at once at most, and per second. Source: Linux, `icmp_msgs_burst`, `icmp_msgs_per_sec`.
const BURST: u32 = 50;
const PER_SECOND: u32 = 1_000;
/// Bytes of a packet that are looked at and quoted: the longest IPv4 header, a common Homa header.
const QUOTE_BYTES: u32 = 60 + 28;

/// The candidacy of one link, until dropped.
#[derive(Debug)]
pub(super) struct Responder {
    task: AbortHandle,
}

impl Responder {
    /// Takes part in the election in the network namespace of the calling thread.
    pub(super) fn start(runtime: &Handle) -> Self {
        let task = runtime.spawn(elect(namespace()));
        Self {
            task: task.abort_handle(),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What tells one network namespace from another.
fn namespace() -> Option<PathBuf> {
    std::fs::read_link("/proc/thread-self/ns/net").ok()
}

/// True on a thread that is in the namespace `home`: the threads of a runtime may move.
fn is_at(home: Option<&PathBuf>) -> bool {
    home.is_some() && namespace().as_ref() == home
}

/// Tries to be elected, and serves when it is.
async fn elect(home: Option<PathBuf>) {
    loop {
        if is_at(home.as_ref()) && !kernel_module::is_loaded().unwrap_or(true) {
            if let Ok(_leadership) = PortReservation::hold(LEADER_NAME) {
                match Leader::open(home.clone()) {
                    Ok(mut leader) => leader.serve().await,
                    Err(error) => {
                        tracing::debug!(%error, "no packets to unserved ports are refused")
                    }
                }
            } else if let Held::Until(end) = probe(LEADER_NAME)
                && ended(end).await.is_ok()
            {
                continue;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a name is no longer held.
async fn ended(end: Socket) -> io::Result<()> {
    sys::register(end, Interest::READABLE)?
        .readable()
        .await
        .map(drop)
}

/// The elected one's sockets.
struct Leader {
    home: Option<PathBuf>,
    sockets: Vec<FamilySockets>,
    /// Ports that were held when a packet came for them, each with what tells the end of that.
    held: Vec<(u16, AsyncFd<Socket>)>,
    answers: TokenBucket,
}

/// Sees the packets of one family, and answers.
struct FamilySockets {
    family: Family,
    packets: AsyncFd<Socket>,
    icmp: Socket,
}

impl Leader {
    fn open(home: Option<PathBuf>) -> io::Result<Self> {
        let sockets: Vec<FamilySockets> = [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| match FamilySockets::open(family) {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
                result => Some(result),
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            home,
            sockets,
            held: Vec::new(),
            answers: TokenBucket::new(Instant::now()),
        })
    }

    /// Answers until the kernel module appears, or something fails.
    async fn serve(&mut self) {
        let mut look = interval(PAUSE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = poll_fn(|cx| {
            while look.poll_tick(cx).is_ready() {
                if kernel_module::is_loaded().unwrap_or(true) {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.cycle(cx)? {
                // Others first: this is the least urgent work of the process.
                cx.waker().wake_by_ref();
            }
            Poll::<io::Result<()>>::Pending
        });
        if let Err(error) = end.await {
            tracing::debug!(%error, "packets to unserved ports are no longer refused");
        }
    }

    /// Takes one packet from each socket. True: there may be more.
    fn cycle(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let before = self.held.len();
        // An error is an end too.
        self.held
            .retain(|(_, end)| end.poll_read_ready(cx).is_pending());
        let mut changed = self.held.len() != before;
        let mut more = false;
        for family in &self.sockets {
            let Poll::Ready(mut readable) = family.packets.poll_read_ready(cx)? else {
                continue;
            };
            more = true;
            let stray = match family.receive() {
                Ok(stray) => stray,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    readable.clear_ready();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(stray) = stray else { continue };
            if self.held.iter().any(|(port, _)| *port == stray.port) || !is_at(self.home.as_ref()) {
                continue;
            }
            match probe_native(stray.port) {
                Held::No if self.answers.take(Instant::now()) => family.answer(&stray)?,
                Held::No | Held::Unknown => {}
                // There are more than the filter can name: their packets are looked at one by one.
                Held::Until(_) if self.held.len() >= HELD_MAX => {}
                Held::Until(end) => {
                    let end = sys::register(end, Interest::READABLE)?;
                    self.held.push((stray.port, end));
                    changed = true;
                }
            }
        }
        if changed {
            self.set_filters()?;
        }
        // The ends registered in this cycle have no waker yet.
        Ok(more || changed)
    }

    fn set_filters(&self) -> io::Result<()> {
        let ports: Vec<u16> = self.held.iter().map(|(port, _)| *port).collect();
        for family in &self.sockets {
            let start = family.family.starts_with();
            let filter = port_filter::none_of(&ports, QUOTE_BYTES, start);
            family.packets.get_ref().attach_filter(&filter)?;
        }
        Ok(())
    }
}

/// A packet that may be for nobody.
struct Stray {
    /// Where it was to go.
    port: u16,
    from: SocketAddr,
    to: IpAddr,
    /// Its beginning, with its IP header.
    quote: Vec<u8>,
}

impl FamilySockets {
    fn open(family: Family) -> io::Result<Self> {
        let protocol = Protocol::from(IPPROTO_HOMA);
        let packets = Socket::new(family.domain(), Type::RAW, Some(protocol))?;
        packets.attach_filter(&port_filter::none_of(
            &[],
            QUOTE_BYTES,
            family.starts_with(),
        ))?;
        packets.set_nonblocking(true)?;
        // What does not fit was not worth an answer.
        packets.set_recv_buffer_size(64 * 1024)?;
        family.set(&packets, libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO, 1)?;
        let protocol = match family {
            Family::V4 => Protocol::ICMPV4,
            Family::V6 => Protocol::ICMPV6,
        };
        let icmp = Socket::new(family.domain(), Type::RAW, Some(protocol))?;
        icmp.attach_filter(&port_filter::nothing())?;
        icmp.set_nonblocking(true)?;
        Ok(Self {
            family,
            packets: sys::register(packets, Interest::READABLE)?,
            icmp,
        })
    }

    /// The next packet; `None` if it is not one to be answered.
    fn receive(&self) -> io::Result<Option<Stray>> {
        let mut quote = [0; QUOTE_BYTES as usize];
        let mut control = [0; cmsg::RECEIVE_BYTES];
        let received = sys::receive(self.packets.get_ref(), &mut quote, &mut control, 0)?;
        let quote = quote.get(..received.len).unwrap_or_default();
        let control = control.get(..received.control_len).unwrap_or_default();
        // Packets to many hosts get no errors. Source: RFC 1122, section 3.2.2.
        let local = cmsg::unicast_address(control);
        let (Some(from), Some(to)) = (received.address.map(canonical), local) else {
            return Ok(None);
        };
        let homa = match self.family {
            Family::V4 => {
                let len = quote
                    .first()
                    .map_or(0, |first| usize::from(first & 0xf) * 4);
                quote.get(len..).unwrap_or_default()
            }
            Family::V6 => quote,
        };
        let Some(port) = homa_port(homa, 2) else {
            return Ok(None);
        };
        if from.ip().is_unspecified() || from.ip().is_multicast() {
            return Ok(None);
        }
        // FREEZE is for the host, not for a socket. Source: homa_plumbing.c, homa_softirq.
        let is_for_a_socket = homa.len() >= 28 && homa.get(11) != Some(&(PacketType::Freeze as u8));
        if !is_for_a_socket {
            return Ok(None);
        }
        let quote = match (from, to) {
            (SocketAddr::V6(from), IpAddr::V6(to)) => {
                let mut whole = ipv6_header(*from.ip(), to, homa.len());
                whole.extend_from_slice(homa);
                whole
            }
            _ => quote.to_vec(),
        };
        Ok(Some(Stray {
            port,
            from,
            to,
            quote,
        }))
    }

    /// # Errors
    /// If nothing can ever be sent.
    fn answer(&self, stray: &Stray) -> io::Result<()> {
        let (kind, code) = match self.family {
            // RFC 792 and RFC 4443: destination unreachable, port unreachable
            Family::V4 => (3, 3),
            Family::V6 => (1, 4),
        };
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&stray.quote);
        if self.family == Family::V4 {
            // With ICMPv6 the kernel does it.
            let sum = internet_checksum(&message).to_be_bytes();
            if let Some(field) = message.get_mut(2..4) {
                field.copy_from_slice(&sum);
            }
        }
        let control = SendCmsg::new(stray.from, Some(stray.to), Priority::LOWEST);
        let to: SockAddr = name(stray.from);
        let slices = [io::IoSlice::new(&message)];
        let header = MsgHdr::new()
            .with_addr(&to)
            .with_buffers(&slices)
            .with_control(control.as_slice());
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if let Err(error) = self.icmp.sendmsg(&header, flags) {
            match SendError::of(&error) {
                SendError::Fatal => return Err(error),
                // The client finds out by the silence.
                failure => tracing::debug!(?failure, to = %stray.from, "cannot refuse a packet"),
            }
        }
        Ok(())
    }
}

/// An IPv6 header such as the packet had, which the system does not show. What is not known, traffic class,
/// flow and hops, is 0.
fn ipv6_header(from: Ipv6Addr, to: Ipv6Addr, content: usize) -> Vec<u8> {
    let content = u16::try_from(content).unwrap_or(u16::MAX).to_be_bytes();
    let protocol = u8::try_from(IPPROTO_HOMA).unwrap_or_default();
    let mut header = vec![0x60, 0, 0, 0, content[0], content[1], protocol, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

/// Source: RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let word = [pair.first(), pair.get(1)].map(|byte| byte.copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or_default()
}

/// A token bucket.
struct TokenBucket {
    left: u32,
    filled: Instant,
}

impl TokenBucket {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_millis();
        let more = u32::try_from(passed)
            .unwrap_or(u32::MAX)
            .saturating_mul(PER_SECOND / 1_000);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_internets() {
        // The example of RFC 1071, section 3: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&bytes), !0xddf2);
        let mut odd = vec![3, 3, 0, 0, 7];
        let sum = internet_checksum(&odd).to_be_bytes();
        odd[2..4].copy_from_slice(&sum);
        assert_eq!(internet_checksum(&odd), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_limited() {
        let mut bucket = TokenBucket::new(Instant::now());
        let taken = (0..1000).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(taken, 50);
        tokio::time::advance(Duration::from_millis(10)).await;
        let taken = (0..1000).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(taken, 10);
        tokio::time::advance(Duration::from_secs(1000)).await;
        let taken = (0..1000).filter(|_| bucket.take(Instant::now())).count();
        assert_eq!(taken, 50);
    }

    #[test]
    fn an_ipv6_quote_begins_with_a_header_that_names_both_ends() {
        let (from, to) = (Ipv6Addr::LOCALHOST, "2001:db8::1".parse().unwrap());
        let header = ipv6_header(from, to, 28);
        assert_eq!(header.len(), 40);
        assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 28, 146, 0]);
        assert_eq!(header[8..24], from.octets());
        assert_eq!(header[24..], to.octets());
    }
}
