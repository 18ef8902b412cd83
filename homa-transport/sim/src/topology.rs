//! What the network is made of: hosts, switches, links between them.

use std::time::Duration;

/// A network of one switch, or of leaf and spine switches.
///
/// Every host has one link to the switch of its rack; every rack's switch has one link to each
/// spine. Packets between racks go over a spine chosen at random, each packet anew. All links are
/// full duplex, all switches store a packet before they forward it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Racks, at least 1.
    pub racks: usize,
    /// Hosts in each rack.
    pub hosts_per_rack: usize,
    /// Spine switches; they matter only if there are several racks.
    pub spines: usize,
    /// Speed of the links of hosts, in Mbit/s.
    pub host_mbps: u64,
    /// Speed of the links between switches, in Mbit/s.
    pub fabric_mbps: u64,
    /// Time a signal takes along a link.
    pub propagation: Duration,
    /// Time a packet takes through a switch, besides waiting and serialisation.
    pub switch_delay: Duration,
    /// Time from the handing over of a packet to the start of its serialisation. Pipelined.
    pub send_delay: Duration,
    /// Time from the end of a packet on the wire to its handing over to the receiver. Pipelined.
    pub receive_delay: Duration,
    /// Bytes each switch can hold, over all its ports; `None`: no limit.
    pub buffer_bytes: Option<usize>,
    /// Bytes a packet costs on the wire beside those of Homa: IP, UDP and Ethernet headers, the gap
    /// between frames.
    pub overhead_bytes: usize,
    /// Shortest frame, gap included.
    pub frame_bytes_min: usize,
    /// Longest packet, Homa header included, that gets to another host; longer ones vanish without a
    /// word. `None`: all get there.
    pub packet_bytes_max: Option<usize>,
}

impl Topology {
    /// IPv4 and UDP headers (28), Ethernet header, checksum, preamble and gap (38).
    const UDP_OVERHEAD: usize = 66;
    /// Shortest Ethernet frame with preamble and gap.
    const FRAME_MIN: usize = 84;

    /// `hosts` on one switch with links of `mbps`, in one room.
    #[must_use]
    pub const fn single_switch(hosts: usize, mbps: u64) -> Self {
        Self {
            racks: 1,
            hosts_per_rack: hosts,
            spines: 0,
            host_mbps: mbps,
            fabric_mbps: mbps,
            propagation: Duration::from_nanos(100),
            switch_delay: Duration::from_nanos(250),
            send_delay: Duration::from_micros(1),
            receive_delay: Duration::from_micros(1),
            buffer_bytes: None,
            overhead_bytes: Self::UDP_OVERHEAD,
            frame_bytes_min: Self::FRAME_MIN,
            packet_bytes_max: None,
        }
    }

    /// `racks` of `hosts_per_rack`, joined by `spines` with links of four times the speed of the
    /// hosts'.
    #[must_use]
    pub const fn leaf_spine(racks: usize, hosts_per_rack: usize, spines: usize, mbps: u64) -> Self {
        Self {
            racks,
            spines,
            fabric_mbps: mbps * 4,
            ..Self::single_switch(hosts_per_rack, mbps)
        }
    }

    /// The network of the SIGCOMM 2018 paper's simulations: 144 hosts in 9 racks, 10 Gbit/s, four
    /// spines with 40 Gbit/s. Source: arXiv 1803.09615v2, figure 11 and section 5.2;
    /// PlatformLab/HomaSimulation, `DcnTopo.ned`.
    #[must_use]
    pub const fn sigcomm18() -> Self {
        Self {
            propagation: Duration::ZERO,
            send_delay: Duration::from_micros(1),
            receive_delay: Duration::from_nanos(500),
            ..Self::leaf_spine(9, 16, 4, 10_000)
        }
    }

    /// Number of hosts.
    #[must_use]
    pub const fn hosts(&self) -> usize {
        self.racks * self.hosts_per_rack
    }

    /// Rack of a host.
    #[must_use]
    pub const fn rack_of(&self, host: usize) -> usize {
        if self.hosts_per_rack == 0 {
            return 0;
        }
        host / self.hosts_per_rack
    }

    /// Bytes on the wire of a packet of `len` bytes, Homa header included.
    #[must_use]
    pub fn wire_bytes(&self, len: usize) -> usize {
        (len + self.overhead_bytes).max(self.frame_bytes_min)
    }
}
