//! What the simulations of the SIGCOMM 2018 paper were set to, by workload.
//!
//! Source: arXiv 1803.09615v2, sections 3 and 5.2; PlatformLab/HomaSimulation (ab09ecb),
//! `homaTransportConfig.ini` and `WorkloadSynthesizer`.

use std::time::Duration;

use homa_transport::config::{Config, Experiment, PaperRules, Wire};
use homa_transport::sim::{Topology, Workload};
use homa_transport::units::Priority;
use homa_transport::wire::DATA_HEADER_BYTES;

/// Two forms of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The rules, header sizes and static priorities of the paper, comparable with its figures
    Overlay,
    /// Our headers, default settings, priorities that follow the traffic
    Ours,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Ours => "ours",
        }
    }
}

/// Name of a workload, as on the command line.
pub(crate) const fn name(workload: Workload) -> &'static str {
    match workload {
        Workload::W1 => "w1",
        Workload::W2 => "w2",
        Workload::W3 => "w3",
        Workload::W4 => "w4",
        Workload::W5 => "w5",
    }
}

/// Longest message: W5 has some of 28.84 MB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Speed of the hosts' links, in 10⁶ bit/s.
pub(crate) const HOST_MBPS: u64 = 10_000;

/// Bytes of a message that need no grant: a packet and about a round trip.
const UNSCHEDULED_BYTES: u32 = 9_328;
/// Bytes of the paper's header in packets that need no grant, and in those that do and in grants.
const UNSCHEDULED_HEADER: usize = 30;
const SCHEDULED_HEADER: usize = 16;
/// Bytes of a message in a packet of 1,500 bytes, IP and UDP headers aside.
const UNSCHEDULED_SEGMENT: usize = IP_PACKET_BYTES - UNSCHEDULED_HEADER;
const SCHEDULED_SEGMENT: u32 = 1_456;
const IP_PACKET_BYTES: usize = 1_500 - 28;
/// Time a full packet takes on a host's link: 1,538 bytes at 10 Gbit/s.
const PACKET_TIME: Duration = Duration::from_nanos(1_230);
/// 10,000 bytes on the wire in scheduled packets: six full ones and one of 690 bytes.
const TAIL_BYTES: u32 = 6 * SCHEDULED_SEGMENT + 690;
/// How long ids of delivered messages are remembered in the workloads of millions of messages, to
/// save memory: without loss only a RESEND of our own makes duplicates.
const DELIVERED_MEMORY: Duration = Duration::from_millis(20);

/// The network of the paper for `hosts` hosts.
pub(crate) const fn topology(hosts: usize) -> Topology {
    let per_rack = if hosts < 16 { hosts } else { 16 };
    Topology {
        racks: hosts / per_rack,
        hosts_per_rack: per_rack,
        ..Topology::sigcomm18()
    }
}

/// Settings of every host's endpoint, and the wire they assume.
pub(crate) fn endpoint(mode: Mode, workload: Workload) -> (Config, Wire) {
    let experiment = |paper_rules| {
        Some(Experiment {
            message_bytes_max: u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX),
            paper_rules,
        })
    };
    let default = Config::default();
    let ours = Config {
        delivered_memory: match workload {
            Workload::W1 | Workload::W2 => DELIVERED_MEMORY,
            _ => default.delivered_memory,
        },
        rpcs_max: 1 << 30,
        rpcs_per_peer_max: 1 << 30,
        inbound_bytes_max: 1 << 44,
        inbound_bytes_per_peer_max: 1 << 44,
        outbound_bytes_max: 1 << 44,
        outbound_bytes_per_peer_max: 1 << 44,
        experiment: experiment(None),
        ..default
    };
    if mode == Mode::Ours {
        return (ours, Wire::Encapsulated);
    }
    let cutoffs = cutoffs(workload);
    let scheduled_levels = cutoffs.iter().filter(|cutoff| **cutoff == 0).count();
    let overlay = Config {
        unscheduled_bytes: UNSCHEDULED_BYTES,
        max_incoming_bytes: 1 << 30,
        max_overcommit: scheduled_levels,
        grant_fifo_permille: 0,
        pacer_fifo_permille: 0,
        adaptive_cutoffs: Some(false),
        experiment: experiment(Some(PaperRules {
            cutoffs,
            scheduled_segment_bytes: SCHEDULED_SEGMENT,
            window_bytes: UNSCHEDULED_BYTES,
            grant_pause: PACKET_TIME,
            tail_bytes: TAIL_BYTES,
        })),
        ..ours
    };
    (overlay, Wire::Native)
}

/// For each level the most bytes left of a message whose unscheduled packets use it; 0: for
/// scheduled packets. The published runs computed them from the size distributions.
const fn cutoffs(workload: Workload) -> [u32; Priority::LEVELS] {
    const ANY: u32 = u32::MAX;
    match workload {
        Workload::W1 => [0, ANY, 1_275, 764, 468, 273, 125, 11],
        Workload::W2 => [0, 0, 0, ANY, 1_463, 512, 366, 269],
        Workload::W3 => [0, 0, 0, 0, ANY, 6_756, 2_339, 433],
        Workload::W4 | Workload::W5 => [0, 0, 0, 0, 0, 0, 0, ANY],
    }
}

/// Packets of our own, header included, in those of 1,500 bytes.
pub(crate) const fn packet_bytes(mode: Mode) -> usize {
    match mode {
        Mode::Overlay => UNSCHEDULED_SEGMENT + DATA_HEADER_BYTES,
        Mode::Ours => IP_PACKET_BYTES,
    }
}

/// Length of a packet, header included, as it counts on the wire. `offset` is that of its data;
/// control packets have none.
pub(crate) const fn counted_bytes(
    mode: Mode,
    header: usize,
    payload: usize,
    offset: Option<u32>,
) -> usize {
    match (mode, offset) {
        (Mode::Ours, _) => header + payload,
        (Mode::Overlay, Some(offset)) if offset < UNSCHEDULED_BYTES => UNSCHEDULED_HEADER + payload,
        (Mode::Overlay, _) => SCHEDULED_HEADER + payload,
    }
}

/// Mean time between two messages of one host at `load`, in nanoseconds.
///
/// The published runs computed it from the share of message bytes in all bytes on the wire, which
/// they had measured before. Both forms of the experiment use theirs, so that they carry the same
/// messages.
pub(crate) fn interval_nanos(workload: Workload, mean_bytes: f64, load: f64) -> f64 {
    let message_share = match workload {
        Workload::W1 => 0.657,
        Workload::W2 => 0.796,
        Workload::W3 => 0.887,
        Workload::W4 | Workload::W5 => 0.898,
    };
    let bytes_per_nano = HOST_MBPS as f64 / 8_000.0;
    mean_bytes / (bytes_per_nano * message_share * load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_settings_is_valid() {
        for workload in Workload::ALL {
            for mode in [Mode::Overlay, Mode::Ours] {
                assert_eq!(endpoint(mode, workload).0.validate(), Ok(()));
            }
        }
    }

    #[test]
    fn message_rates_are_those_of_the_paper() {
        let published = [3.6e6, 1.81e6, 303e3, 7_028.0, 357.0];
        for (workload, rate) in Workload::ALL.into_iter().zip(published) {
            let mean = workload.sizes_sigcomm18().mean();
            let ours = 1e9 / interval_nanos(workload, mean, 0.8);
            assert!((ours / rate - 1.0).abs() < 0.02, "{workload:?}: {ours}");
        }
    }

    #[test]
    fn unscheduled_bytes_take_ten_thousand_on_the_wire_and_so_does_the_tail() {
        let topology = topology(144);
        let wire = |total: usize, segment: usize, header: usize| -> usize {
            let full = total / segment;
            let rest = total % segment;
            full * topology.wire_bytes(segment + header) + topology.wire_bytes(rest + header)
        };
        let unscheduled = UNSCHEDULED_BYTES as usize;
        assert_eq!(
            wire(unscheduled, UNSCHEDULED_SEGMENT, UNSCHEDULED_HEADER),
            10_000
        );
        let (tail, segment) = (TAIL_BYTES as usize, SCHEDULED_SEGMENT as usize);
        assert_eq!(segment, IP_PACKET_BYTES - SCHEDULED_HEADER);
        assert_eq!(wire(tail, segment, SCHEDULED_HEADER), 10_000);
    }
}
