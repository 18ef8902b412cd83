//! Every knob of the protocol: unit, default, the kernel module's sysctl of the same meaning, why.

use std::time::Duration;

use crate::error::ConfigError;
use crate::units::Priority;
use crate::wire::MESSAGE_BYTES_MAX;

/// Settings of an endpoint. The defaults suit a datacenter network and services whose processes
/// may sleep between calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a message that are sent before the first GRANT.
    ///
    /// Default 40,000. Kernel: `unsched_bytes`. About one round trip at line rate; more would only
    /// queue in the network.
    pub unscheduled_bytes: u32,
    /// Ceiling for the bytes granted but not received, over all messages that need grants.
    ///
    /// Default 400,000. Kernel: `max_incoming`. A socket lowers it to a third of its receive
    /// buffer, so that what was asked for can be held. While senders keep what they were granted for
    /// themselves, the message that should come first gets more, up to twice the ceiling in all.
    pub max_incoming_bytes: u32,
    /// Bytes granted beyond those received, per message; 0 shares `max_incoming_bytes` among the
    /// active messages, and more than that counts as that.
    ///
    /// Default 0. Kernel: `window`.
    pub window_bytes: u32,
    /// Messages granted to at a time, 1 to 8.
    ///
    /// Default 8. Kernel: `max_overcommit`. More keep the downlink busy when some senders are slow
    /// to react; fewer queue less in the network.
    pub max_overcommit: usize,
    /// Smallest increment of a GRANT, except for the last one of a message.
    ///
    /// Default 10,000 bytes. Kernel: none today (earlier modules had `grant_increment`). Saves
    /// GRANT packets where data arrives one packet at a time. A UDP socket raises it to 62,000, a
    /// train of packets, or half the message's window if that is less.
    pub grant_increment_bytes: u32,
    /// Share of the granted bytes that goes to the oldest message instead of the shortest ones, in
    /// thousandths, 0 to 500.
    ///
    /// Default 50. Kernel: `grant_fifo_fraction`. Keeps long messages from starving.
    pub grant_fifo_permille: u32,
    /// Size of one grant to the oldest message.
    ///
    /// Default 50,000 bytes. Kernel: `fifo_grant_increment`.
    pub fifo_grant_increment_bytes: u32,
    /// Priority levels to use, 1 to 8; control packets use the highest of them.
    ///
    /// Default 8. Kernel: `num_priorities`. For networks with fewer queues.
    pub num_priorities: u8,
    /// Speed of the uplink in 10⁶ bit/s, to be obeyed by the pacer; `None` sends as fast as the link
    /// takes packets.
    ///
    /// Default `None`. Kernel: `link_mbps` (25,000). Without the true speed pacing does harm; a
    /// loopback or in-process link has none.
    pub link_mbps: Option<u32>,
    /// How far ahead of the present the pacer fills the uplink.
    ///
    /// Default 5 µs. Kernel: `max_nic_est_backlog_usecs`. It must not be less than the error of the
    /// driver's timer, or the link runs dry; sockets raise it accordingly.
    pub nic_backlog: Duration,
    /// Messages with no more bytes left to send than this bypass the pacer.
    ///
    /// Default 1,000. Kernel: `defer_min_bytes`.
    pub defer_min_bytes: u32,
    /// Share of the sent bytes that goes to the oldest message instead of the shortest one, in
    /// thousandths, 0 to 500.
    ///
    /// Default 50. Kernel: `pacer_fifo_fraction`.
    pub pacer_fifo_permille: u32,
    /// Whether the priority levels that peers are told to use for unscheduled bytes follow the sizes
    /// of the messages that arrive; `None`: where only we speak the protocol.
    ///
    /// Default `None`. Kernel: none (a helper program, util/homa_prio.cc, does it). Several processes
    /// of one host that answered with different levels would make a module's sender alternate.
    pub adaptive_cutoffs: Option<bool>,
    /// Silence before the first RESEND; later ones follow at growing intervals.
    ///
    /// Default 5 ms. Kernel: `resend_ticks`, `resend_interval`.
    pub resend_interval: Duration,
    /// Silence of a peer after which its RPCs fail, once `timeout_resends` went unanswered. A peer of which
    /// nothing was ever heard is given at least 2.5 s, since the first packets may wait for address
    /// resolution.
    ///
    /// Default 1 s. Kernel: `timeout_ticks` (100 ms). Userspace processes stall for longer than
    /// kernels do: a server in userspace that stalls for more than 100 ms loses the calls of clients that
    /// use the kernel module, unless `timeout_ticks` is raised at those.
    ///
    /// An RPC that gets no nearer to its end in thirty times this ends, whatever is said of it, unless the
    /// server's application holds it. While it does, over UDP, its client hears of the server once in this
    /// time, and learns within twice this time of its death. On protocol 146 it asks about each call every
    /// 2.5 s, and learns of a death within that and this time.
    pub timeout: Duration,
    /// Silence of a client over UDP after which its RPCs end, requests in service among them, once
    /// `timeout_resends` went unanswered. Less than twice `timeout` counts as that: clients that merely wait
    /// are heard once in `timeout`. A client whose process ends is known to be gone when it is asked, after 1.25
    /// times `timeout`, if its host says so (ICMP).
    ///
    /// Default 2 s. Kernel: none (requests are never cancelled). A client that is stopped for longer than this
    /// less `timeout` may lose the calls that its servers work on. On protocol 146 it does not count: there
    /// `timeout` does, and requests in service end if their client asks nothing for ten times that.
    pub client_timeout: Duration,
    /// RESENDs that must have gone unanswered, each from a timer run of its own, before an RPC
    /// fails. A process that was stopped for a while thus asks again before it gives up.
    ///
    /// Default 10. Kernel: none in effect.
    pub timeout_resends: u32,
    /// Wait after a response has been sent before a client is asked for its ack whose delay is not known.
    ///
    /// Default 25 ms. Kernel: `request_ack_ticks` (2 ms). The ack of a call rides on the next request; one
    /// that none follows costs a NEED_ACK and an ACK. Where the delay was measured (from a GRANT to its
    /// DATA, from the first RESEND or NEED_ACK of an RPC to its answer) the wait is twice that, at least
    /// 2 ms (or this, if it is less) and at most 1 s.
    pub need_ack_delay: Duration,
    /// Whether a FREEZE packet of anyone writes the trace of recent packets to the log.
    ///
    /// Default no: whoever can send packets could fill the log. Kernel: `freeze_type`.
    pub freeze: bool,
    /// RPCs held at a time as client, and as many as server.
    ///
    /// Default 131,072. Kernel: none.
    pub rpcs_max: usize,
    /// RPCs of which one peer is the client, held at a time.
    ///
    /// Default 32,768. Kernel: none.
    pub rpcs_per_peer_max: usize,
    /// Bytes reserved for incoming messages of one peer at a time.
    ///
    /// Default 128 MiB. Kernel: none.
    pub inbound_bytes_per_peer_max: usize,
    /// RPCs in progress from which on a client asks for few unscheduled bytes in the responses, so
    /// that many of them at once do not overrun its downlink (incast).
    ///
    /// Default 64. Kernel: none. Source: Homa (SIGCOMM 2018), section 3.6.
    pub incast_threshold: usize,
    /// Unscheduled bytes of a response whose client asked for few.
    ///
    /// Default 500. Kernel: none.
    pub incast_unscheduled_bytes: u32,
    /// Bytes reserved for incoming messages at a time.
    ///
    /// Default 512 MiB. Kernel: the size of the receive buffer region.
    pub inbound_bytes_max: usize,
    /// Bytes of outgoing messages held at a time: until they are acknowledged or given up.
    ///
    /// Default 1 GiB. Kernel: `wmem_max`, per socket. A message of up to 4,096 bytes is always taken, so
    /// that there is room to say what went wrong.
    pub outbound_bytes_max: usize,
    /// Bytes of outgoing messages held for one peer at a time.
    ///
    /// Default 512 MiB. Kernel: none.
    pub outbound_bytes_per_peer_max: usize,
    /// Peers remembered at a time.
    ///
    /// Default 65,536. Kernel: `peer_net_max`.
    pub peers_max: usize,
    /// How long the ids of delivered requests are remembered at least, so that a late duplicate is
    /// not executed again.
    ///
    /// Default 5 s. Kernel: none (a duplicate that comes after the ack is executed again). A client
    /// that was told that its request is unknown relies on its server's memory being as long as its own.
    /// One that was stopped, and heard nothing for as long, does not send its request again.
    pub delivered_memory: Duration,
    /// How long a socket asks the system for packets, again and again, before it sleeps; zero: not
    /// at all.
    ///
    /// Default 100 µs. Kernel: none of its own (`net.core.busy_poll` is like it). Waking a sleeping
    /// thread costs tens of microseconds, many times the rest of a short call. The price is CPU
    /// time: up to this much after every packet that no other follows soon, so a socket with a
    /// thousand lone packets a second takes a tenth of a core more. When such waits bring nothing
    /// three times in a row they are left out, at first for 16 sleeps and finally for 8,192, until
    /// one of them brings a packet; an idle socket costs nothing. Other tasks of the runtime go
    /// first meanwhile.
    pub busy_poll: Duration,
    /// Endpoints that a socket over UDP or raw sockets works with side by side, each with a link, a lock
    /// and a task of its own, 1 to 64. Other sockets and an [`Endpoint`](crate::Endpoint) by itself are one.
    ///
    /// Default 1. Kernel: none (it spreads packets over cores by itself). Worth it when one core does not
    /// keep up; each costs 5 MB of buffers. The shards of a server share its port, those of a client
    /// have one each. They share `max_incoming_bytes` and the uplink; the limits for all RPCs, peers and
    /// bytes held are divided among them.
    pub shards: u32,
    /// What a simulated experiment changes; `None`: nothing.
    ///
    /// Default `None`. Kernel: none. Only for simulations: other endpoints would not understand it.
    #[cfg(feature = "sim")]
    pub experiment: Option<Experiment>,
}

/// Changes to an endpoint for a simulation in which message contents do not matter.
///
/// Incoming messages are counted and not kept; [`Event::Request`](crate::endpoint::Event::Request)
/// yields no bytes.
#[cfg(feature = "sim")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// Longest message, in bytes.
    pub message_bytes_max: u32,
    /// The rules of the SIGCOMM 2018 simulations in place of our own.
    pub paper_rules: Option<PaperRules>,
}

/// Rules that the simulations of the SIGCOMM 2018 paper had and no implementation has. With them
/// there are no RESENDs and no NEED_ACKs, and each peer has one active message.
///
/// Source: arXiv 1803.09615v2, sections 3.3 to 3.5; PlatformLab/HomaSimulation.
#[cfg(feature = "sim")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaperRules {
    /// For each level the most bytes a message may have left to send for its unscheduled packets
    /// to use it; 0: the level is not for them. The levels below theirs are for scheduled packets.
    pub cutoffs: [u32; Priority::LEVELS],
    /// Bytes of a message in a scheduled packet. One is granted at a time.
    pub scheduled_segment_bytes: u32,
    /// A message gets a grant while fewer bytes than this are granted and not received.
    pub window_bytes: u32,
    /// Time between two grants to one sender.
    pub grant_pause: Duration,
    /// With fewer bytes than this ungranted, `cutoffs` apply to granted packets too if they name a
    /// higher level.
    pub tail_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unscheduled_bytes: 40_000,
            max_incoming_bytes: 400_000,
            window_bytes: 0,
            max_overcommit: 8,
            grant_increment_bytes: 10_000,
            grant_fifo_permille: 50,
            fifo_grant_increment_bytes: 50_000,
            num_priorities: 8,
            link_mbps: None,
            nic_backlog: Duration::from_micros(5),
            defer_min_bytes: 1_000,
            pacer_fifo_permille: 50,
            adaptive_cutoffs: None,
            resend_interval: Duration::from_millis(5),
            timeout: Duration::from_secs(1),
            client_timeout: Duration::from_secs(2),
            timeout_resends: 10,
            need_ack_delay: Duration::from_millis(25),
            freeze: false,
            rpcs_max: 131_072,
            rpcs_per_peer_max: 32_768,
            inbound_bytes_per_peer_max: 128 << 20,
            incast_threshold: 64,
            incast_unscheduled_bytes: 500,
            inbound_bytes_max: 512 << 20,
            outbound_bytes_max: 1 << 30,
            outbound_bytes_per_peer_max: 512 << 20,
            peers_max: 65_536,
            delivered_memory: Duration::from_secs(5),
            busy_poll: Duration::from_micros(100),
            shards: 1,
            #[cfg(feature = "sim")]
            experiment: None,
        }
    }
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let message_max = u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX);
        let message = (1..=message_max, "1 to 1,000,000");
        let window = (0..=1 << 30, "0 to 2^30");
        let permille = (0..=500, "0 to 500");
        check("unscheduled_bytes", self.unscheduled_bytes, &message)?;
        check(
            "grant_increment_bytes",
            self.grant_increment_bytes,
            &message,
        )?;
        check(
            "fifo_grant_increment_bytes",
            self.fifo_grant_increment_bytes,
            &message,
        )?;
        check(
            "incast_unscheduled_bytes",
            self.incast_unscheduled_bytes,
            &message,
        )?;
        check(
            "defer_min_bytes",
            self.defer_min_bytes,
            &(0..=message_max, "0 to 1,000,000"),
        )?;
        check(
            "max_incoming_bytes",
            self.max_incoming_bytes,
            &(10_000..=1 << 30, "10,000 to 2^30"),
        )?;
        check("window_bytes", self.window_bytes, &window)?;
        check("grant_fifo_permille", self.grant_fifo_permille, &permille)?;
        check("pacer_fifo_permille", self.pacer_fifo_permille, &permille)?;
        check(
            "link_mbps",
            self.link_mbps.unwrap_or(1),
            &(1..=10_000_000, "1 to 10,000,000"),
        )?;
        check(
            "timeout_resends",
            self.timeout_resends,
            &(1..=1000, "1 to 1,000"),
        )?;
        check("num_priorities", self.num_priorities, &(1..=8, "1 to 8"))?;
        check("max_overcommit", self.max_overcommit, &(1..=8, "1 to 8"))?;
        check("shards", self.shards, &(1..=64, "1 to 64"))?;
        self.validate_bounds()?;
        self.validate_times()
    }
}

impl Config {
    fn validate_times(&self) -> Result<(), ConfigError> {
        let day = Duration::from_secs(86_400);
        let millisecond = Duration::from_millis(1);
        for (field, value) in [
            ("nic_backlog", self.nic_backlog),
            ("busy_poll", self.busy_poll),
        ] {
            if value > millisecond * 100 {
                let value = format!("{value:?}");
                return Err(ConfigError {
                    field,
                    value,
                    allowed: "0 to 100 ms",
                });
            }
        }
        for (field, value) in [
            ("resend_interval", self.resend_interval),
            ("timeout", self.timeout),
            ("client_timeout", self.client_timeout),
            ("need_ack_delay", self.need_ack_delay),
            ("delivered_memory", self.delivered_memory),
        ] {
            if value < millisecond || value > day {
                let value = format!("{value:?}");
                return Err(ConfigError {
                    field,
                    value,
                    allowed: "1 ms to 1 day",
                });
            }
        }
        Ok(())
    }

    fn validate_bounds(&self) -> Result<(), ConfigError> {
        let count = (1..=1 << 30, "1 to 2^30");
        check("rpcs_max", self.rpcs_max, &count)?;
        check("rpcs_per_peer_max", self.rpcs_per_peer_max, &count)?;
        check("peers_max", self.peers_max, &count)?;
        let bytes = (2 * MESSAGE_BYTES_MAX..=1 << 44, "2,000,000 to 2^44");
        check("inbound_bytes_max", self.inbound_bytes_max, &bytes)?;
        check(
            "inbound_bytes_per_peer_max",
            self.inbound_bytes_per_peer_max,
            &bytes,
        )?;
        check("outbound_bytes_max", self.outbound_bytes_max, &bytes)?;
        check(
            "outbound_bytes_per_peer_max",
            self.outbound_bytes_per_peer_max,
            &bytes,
        )?;
        Ok(())
    }

    /// The settings of one shard: limits for all of them are divided, so that none is exceeded whichever
    /// shards its RPCs are at.
    pub fn of_shard(self) -> Self {
        let shards = self.shards as usize;
        if shards <= 1 {
            return self;
        }
        let bytes = |all: usize| (all / shards).max(2 * MESSAGE_BYTES_MAX);
        Self {
            rpcs_max: (self.rpcs_max / shards).max(1),
            peers_max: (self.peers_max / shards).max(1),
            inbound_bytes_max: bytes(self.inbound_bytes_max),
            outbound_bytes_max: bytes(self.outbound_bytes_max),
            ..self
        }
    }

    /// The highest level in use: that of control packets.
    pub(crate) const fn highest_priority(&self) -> Priority {
        Priority::saturating(self.num_priorities.saturating_sub(1))
    }

    /// Level of grants to the oldest message. Source: homa_grant.c, `homa_grant_check_fifo`.
    pub(crate) const fn fifo_priority(&self) -> Priority {
        Priority::saturating(self.num_priorities.saturating_sub(2))
    }
}

fn check<T: PartialOrd + ToString>(
    field: &'static str,
    value: T,
    (range, allowed): &(std::ops::RangeInclusive<T>, &'static str),
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let value = value.to_string();
    Err(ConfigError {
        field,
        value,
        allowed,
    })
}

/// What a link lets the protocol do; set by the socket that joins the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// IP protocol 146, as the Linux module speaks it: a peer's RPCs are known by its address
    /// alone, the unscheduled part ends exactly where it should, nothing is padded.
    Native,
    /// The encapsulation that only we speak (UDP, in-process): a peer is an address and a port, the
    /// unscheduled part ends on a packet boundary, bytes after the end of a message are padding.
    Encapsulated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn every_number_has_its_range() {
        type Spoil = fn(&mut Config);
        let bad: [(&str, Spoil); 25] = [
            ("shards", |config| config.shards = 0),
            ("shards", |config| config.shards = 65),
            ("busy_poll", |config| {
                config.busy_poll = Duration::from_millis(101);
            }),
            ("unscheduled_bytes", |config| config.unscheduled_bytes = 0),
            ("grant_increment_bytes", |config| {
                config.grant_increment_bytes = 0
            }),
            ("fifo_grant_increment_bytes", |config| {
                config.fifo_grant_increment_bytes = 0
            }),
            ("incast_unscheduled_bytes", |config| {
                config.incast_unscheduled_bytes = 0
            }),
            ("defer_min_bytes", |config| {
                config.defer_min_bytes = 1_000_001
            }),
            ("max_incoming_bytes", |config| config.max_incoming_bytes = 0),
            ("window_bytes", |config| config.window_bytes = u32::MAX),
            ("grant_fifo_permille", |config| {
                config.grant_fifo_permille = 501
            }),
            ("pacer_fifo_permille", |config| {
                config.pacer_fifo_permille = 2000
            }),
            ("link_mbps", |config| config.link_mbps = Some(0)),
            ("timeout_resends", |config| config.timeout_resends = 0),
            ("num_priorities", |config| config.num_priorities = 0),
            ("num_priorities", |config| config.num_priorities = 200),
            ("max_overcommit", |config| config.max_overcommit = 0),
            ("rpcs_max", |config| config.rpcs_max = 0),
            ("rpcs_per_peer_max", |config| config.rpcs_per_peer_max = 0),
            ("peers_max", |config| config.peers_max = 0),
            ("inbound_bytes_max", |config| config.inbound_bytes_max = 1),
            ("outbound_bytes_max", |config| config.outbound_bytes_max = 1),
            ("nic_backlog", |config| {
                config.nic_backlog = Duration::from_secs(1)
            }),
            ("delivered_memory", |config| {
                config.delivered_memory = Duration::ZERO
            }),
            ("resend_interval", |config| {
                config.resend_interval = Duration::MAX
            }),
        ];
        for (field, spoil) in bad {
            let mut config = Config::default();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let config = Config {
            max_overcommit: 9,
            ..Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration field `max_overcommit` is 9, allowed is 1 to 8"
        );
        let config = Config {
            timeout: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.validate().unwrap_err().field, "timeout");
    }
}
