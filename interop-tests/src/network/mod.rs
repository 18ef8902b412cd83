//! A network in a box: hosts that are network namespaces, joined by a switch with slow ports and eight
//! strict-priority queues each.
//!
//! ```text
//!  host 0          switch                         host 1
//!  eth0 ─────────► port0 ═ bridge ═ port1 ──────► eth0
//!                  each port: loss, copies, then the queues, then the speed of the link
//! ```
//!
//! Only the direction from the switch to a host is slow, as where several hosts send to one: a host's
//! packets reach the switch at once. Everything is made by `ip` and `tc`, with what most kernels have:
//! veth, bridge, HTB, classic BPF; neither netem nor the prio qdisc is needed.

mod command;
mod counters;
mod host;
mod name;
mod queues;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use command::NetworkError;
pub use counters::PortCounters;
pub use host::Host;

use command::{ip, tc};
use name::BoxName;

/// Priority levels of a switch port.
pub const LEVELS: usize = 8;
/// Hosts of a network at most: their number is part of an address.
const HOSTS_MAX: usize = 200;

/// What a network is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Hosts, 2 to 200.
    pub hosts: usize,
    /// Speed of the link from the switch to each host, in 10⁶ bit/s.
    ///
    /// Up to a few hundred the queues of the switch fill as those of a real one would; above, the
    /// processors of a small machine are the bottleneck.
    pub mbit: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// What the ports do with the priority of packets.
    pub queues: Queues,
    /// What happens at random to packets on their way to each host, the first one's first. Nothing
    /// happens to those for hosts beyond.
    pub disturbances: Vec<Disturbance>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            hosts: 2,
            mbit: 200,
            mtu: 1500,
            queues: Queues::Priority,
            disturbances: Vec::new(),
        }
    }
}

/// How a switch port orders packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// Eight strict priorities, by the upper three bits of TOS or traffic class.
    Priority,
    /// First come, first served.
    Fifo,
}

/// What happens at random to the packets of a switch port, in thousandths of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Packets lost.
    pub lost_permille: u32,
    /// Packets that come twice (a copy may be copied again).
    pub doubled_permille: u32,
    /// Packets that take a slow lane and come up to 200 ms later, behind others.
    pub late_permille: u32,
}

/// A network in a box. Dropped, it is gone.
///
/// What a process that was killed has left behind is removed when the next network is made.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    layout: Layout,
    /// Last: the namespaces go when their hosts' threads have ended.
    name: BoxName,
}

impl Network {
    /// Builds the network.
    ///
    /// # Errors
    /// [`NetworkError::Unavailable`] where this machine cannot have one (not root, no `tc`, a kernel
    /// without HTB), with the reason; else what went wrong.
    pub fn build(layout: &Layout) -> Result<Self, NetworkError> {
        command::check_available()?;
        if !(2..=HOSTS_MAX).contains(&layout.hosts) {
            return Err(NetworkError::Hosts {
                got: layout.hosts,
                max: HOSTS_MAX,
            });
        }
        name::remove_leftovers();
        let mut network = Self {
            hosts: Vec::new(),
            layout: layout.clone(),
            name: BoxName::unique(),
        };
        network.build_switch()?;
        for index in 0..layout.hosts {
            let host = network.build_host(index)?;
            network.hosts.push(host);
        }
        network.introduce_hosts()?;
        Ok(network)
    }

    /// What it was built as.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A host.
    ///
    /// # Panics
    /// If there are no more than `index` hosts.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        match self.hosts.get(index) {
            Some(host) => host,
            None => panic!(
                "a network of {} hosts has no host {index}",
                self.hosts.len()
            ),
        }
    }

    /// Counters of the switch port that sends to a host.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn port_counters(&self, index: usize) -> Result<PortCounters, NetworkError> {
        let switch = self.name.switch();
        let port = port(index);
        let classes = tc(&switch, &["-s", "class", "show", "dev", &port])?;
        let disciplines = tc(&switch, &["-s", "qdisc", "show", "dev", &port])?;
        Ok(PortCounters::parse(&classes, &disciplines))
    }

    /// Cuts a host off, in both directions, without a word to anybody.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn cut(&self, index: usize) -> Result<(), NetworkError> {
        self.attach(index, false)
    }

    /// Undoes [`Network::cut`].
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn mend(&self, index: usize) -> Result<(), NetworkError> {
        self.attach(index, true)
    }

    /// A port without the bridge takes packets and drops them, so the hosts notice nothing. (A link
    /// that is down would be reported to them.)
    fn attach(&self, index: usize, joined: bool) -> Result<(), NetworkError> {
        let port = port(index);
        let change = if joined {
            format!("link set {port} master bridge")
        } else {
            format!("link set {port} nomaster")
        };
        ip(Some(&self.name.switch()), &[change])
    }

    fn build_switch(&self) -> Result<(), NetworkError> {
        let switch = self.name.switch();
        ip(None, &[format!("netns add {switch}")])?;
        // The switch speaks to nobody.
        host::write_sysctl(&switch, "net/ipv6/conf/default/disable_ipv6", "1")?;
        ip(
            Some(&switch),
            &[
                "link add bridge type bridge mcast_snooping 0".to_owned(),
                format!("link set bridge mtu {} up", self.layout.mtu),
            ],
        )
    }

    fn build_host(&self, index: usize) -> Result<Host, NetworkError> {
        let (switch, namespace) = (self.name.switch(), self.name.host(index));
        let (mtu, port) = (self.layout.mtu, port(index));
        ip(None, &[format!("netns add {namespace}")])?;
        // Packets of routers and address conflicts would be counted.
        host::write_sysctl(
            &namespace,
            "net/ipv6/conf/default/router_solicitations",
            "0",
        )?;
        host::write_sysctl(&namespace, "net/ipv6/conf/default/accept_dad", "0")?;
        ip(
            Some(&switch),
            &[
                format!(
                    "link add {port} mtu {mtu} type veth \
                     peer name eth0 mtu {mtu} address {} netns {namespace}",
                    mac(index)
                ),
                format!("link set {port} master bridge up"),
            ],
        )?;
        ip(
            Some(&namespace),
            &[
                "link set lo up".to_owned(),
                // Trains are cut here, else they would cross the switch as one packet each.
                "link set eth0 gso_max_segs 1 up".to_owned(),
                format!("address add {}/24 dev eth0", v4(index)),
                format!("address add {}/64 dev eth0 nodad", v6(index)),
            ],
        )?;
        let disturbance = self.layout.disturbances.get(index).copied();
        queues::build(
            &switch,
            &port,
            &self.layout,
            disturbance.unwrap_or_default(),
        )?;
        Host::start(namespace, v4(index), v6(index))
    }

    /// Fixed neighbours, so that nobody asks for them at low priority.
    fn introduce_hosts(&self) -> Result<(), NetworkError> {
        for index in 0..self.layout.hosts {
            let others = (0..self.layout.hosts).filter(|other| *other != index);
            let neighbours: Vec<_> = others
                .flat_map(|other| [IpAddr::V4(v4(other)), v6(other).into()].map(|ip| (other, ip)))
                .map(|(other, ip)| {
                    let mac = mac(other);
                    format!("neighbour add {ip} lladdr {mac} nud permanent dev eth0")
                })
                .collect();
            ip(Some(&self.name.host(index)), &neighbours)?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            host.stop();
        }
        self.name.remove();
    }
}

fn port(index: usize) -> String {
    format!("port{index}")
}

fn number(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap_or(u8::MAX)
}

/// From the block for benchmarks. Source: RFC 2544.
fn v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, number(index))
}

/// From the block for private networks. Source: RFC 4193.
fn v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, u16::from(number(index)))
}

fn mac(index: usize) -> String {
    format!("02:00:00:00:00:{:02x}", number(index))
}
