//! Every knob of the protocol: unit, default, the kernel module's sysctl of the same meaning, why.

use std::time::Duration;

use crate::error::ConfigError;
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
    /// buffer, so that what was asked for can be held.
    pub max_incoming_bytes: u32,
    /// Bytes granted beyond those received, per message; 0 shares `max_incoming_bytes` among the
    /// active messages.
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
    /// GRANT packets where data arrives one packet at a time.
    pub grant_increment_bytes: u32,
    /// Silence before the first RESEND; later ones follow at growing intervals.
    ///
    /// Default 5 ms. Kernel: `resend_ticks`, `resend_interval`.
    pub resend_interval: Duration,
    /// Silence of a peer after which its RPCs fail, once `timeout_resends` went unanswered.
    ///
    /// Default 1 s. Kernel: `timeout_ticks` (100 ms). Userspace processes stall for longer than
    /// kernels do.
    pub timeout: Duration,
    /// RESENDs that must have gone unanswered, each from a timer run of its own, before an RPC
    /// fails. A process that was stopped for a while thus asks again before it gives up.
    ///
    /// Default 10. Kernel: none in effect.
    pub timeout_resends: u32,
    /// Wait after a response has been sent before the client is asked for its ack.
    ///
    /// Default 2 ms. Kernel: `request_ack_ticks`.
    pub need_ack_delay: Duration,
    /// RPCs held at a time, client and server together.
    ///
    /// Default 131,072. Kernel: none.
    pub rpcs_max: usize,
    /// Bytes reserved for incoming messages at a time.
    ///
    /// Default 512 MiB. Kernel: the size of the receive buffer region.
    pub inbound_bytes_max: usize,
    /// Peers remembered at a time.
    ///
    /// Default 65,536. Kernel: `peer_net_max`.
    pub peers_max: usize,
    /// How long the ids of delivered requests are remembered at least, so that a late duplicate is
    /// not executed again.
    ///
    /// Default 1 s. Kernel: none (a duplicate that comes after the ack is executed again).
    pub delivered_memory: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unscheduled_bytes: 40_000,
            max_incoming_bytes: 400_000,
            window_bytes: 0,
            max_overcommit: 8,
            grant_increment_bytes: 10_000,
            resend_interval: Duration::from_millis(5),
            timeout: Duration::from_secs(1),
            timeout_resends: 10,
            need_ack_delay: Duration::from_millis(2),
            rpcs_max: 131_072,
            inbound_bytes_max: 512 << 20,
            peers_max: 65_536,
            delivered_memory: Duration::from_secs(1),
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
        let day = Duration::from_secs(86_400);
        let millisecond = Duration::from_millis(1);
        check(
            "unscheduled_bytes",
            self.unscheduled_bytes,
            1..=message_max,
            "1 to 1,000,000",
        )?;
        check(
            "max_incoming_bytes",
            self.max_incoming_bytes,
            10_000..=1 << 30,
            "10,000 to 2^30",
        )?;
        check("window_bytes", self.window_bytes, 0..=1 << 30, "0 to 2^30")?;
        check("max_overcommit", self.max_overcommit, 1..=8, "1 to 8")?;
        check(
            "grant_increment_bytes",
            self.grant_increment_bytes,
            1..=message_max,
            "1 to 1,000,000",
        )?;
        check(
            "timeout_resends",
            self.timeout_resends,
            1..=1000,
            "1 to 1,000",
        )?;
        check("rpcs_max", self.rpcs_max, 1..=1 << 30, "1 to 2^30")?;
        check("peers_max", self.peers_max, 1..=1 << 30, "1 to 2^30")?;
        check(
            "inbound_bytes_max",
            self.inbound_bytes_max,
            MESSAGE_BYTES_MAX..=1 << 44,
            "1,000,000 to 2^44",
        )?;
        for (field, value) in [
            ("resend_interval", self.resend_interval),
            ("timeout", self.timeout),
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
}

fn check<T: PartialOrd + ToString>(
    field: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(ConfigError {
            field,
            value: value.to_string(),
            allowed,
        })
    }
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
