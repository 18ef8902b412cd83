//! Counters of a socket. Never reset; read by copy.

use std::fmt;

/// What carries the packets or messages of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// UDP datagrams (`homa+udp://`).
    Udp,
    /// Raw sockets of IP protocol 146 (`homa://`).
    Raw,
    /// The Homa kernel module (`homa://`).
    Kernel,
    /// Memory of this process (`homa+mem://`).
    Mem,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Raw => "raw",
            Self::Kernel => "kernel",
            Self::Mem => "mem",
        })
    }
}

macro_rules! stats {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// Counters since the socket was opened, and what it runs on.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $help])+ pub $name: u64,)+
            /// What carries the packets or messages, if it is known: not with a link or a protocol core
            /// of the application's own. Not a counter.
            pub backend: Option<Backend>,
        }

        impl Stats {
            /// Name, explanation and value of every counter, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($help),+).trim_ascii(), self.$name),)+].into_iter()
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)+
                self.backend = self.backend.or(other.backend);
            }
        }
    };
}

stats! {
    /// Packets received, malformed ones included.
    packets_received,
    /// Packets sent.
    packets_sent,
    /// Bytes received, headers included.
    bytes_received,
    /// Bytes sent, headers included.
    bytes_sent,
    /// Packets dropped because they are shorter than the header of their type.
    malformed_truncated,
    /// Packets dropped because their type is unknown.
    malformed_type,
    /// Packets dropped because a field has an impossible value.
    malformed_field,
    /// Packets dropped because they were sent to another port.
    wrong_port,
    /// DATA packets dropped because they contradict the message they belong to.
    data_contradictory,
    /// DATA packets dropped because all or part of their bytes had already arrived.
    data_duplicate,
    /// DATA packets dropped because they lie too far beyond what was granted.
    data_ungranted,
    /// Packets that did not show the token that their sender was told, so that they changed little. A few
    /// when two endpoints meet.
    packets_without_token,
    /// Those of them that showed another.
    tokens_wrong,
    /// Packets dropped because their RPC is not known.
    rpc_not_found,
    /// Requests dropped because their RPC had been delivered or cancelled before.
    duplicate_requests,
    /// Requests dropped because the socket does not serve.
    requests_unserved,
    /// Requests refused because too many RPCs or bytes were held.
    requests_refused,
    /// Requests that ended before all of their bytes had come, as server.
    requests_incomplete,
    /// Peers given up because nothing was heard of them though they were asked.
    peers_given_up,
    /// Messages that had to wait for room before their bytes were taken.
    messages_deferred,
    /// Requests begun, as client.
    requests_sent,
    /// Requests delivered to the application, as server.
    requests_received,
    /// Responses begun, as server.
    responses_sent,
    /// Times a response was held back until its client has shown that it is where it says it is.
    responses_held,
    /// Responses delivered to the application, as client.
    responses_received,
    /// RPCs that failed, as client.
    rpcs_failed,
    /// RPCs that the application gave up, as client.
    rpcs_cancelled,
    /// RPCs that the client gave up before they were answered, as server.
    rpcs_cancelled_by_client,
    /// RPCs whose client came to have another port, as server.
    rpcs_moved,
    /// RPCs in progress or kept until acknowledged: a level, not a count.
    rpcs_live,
    /// DATA packets sent, first transmissions.
    data_sent,
    /// DATA packets sent again.
    data_resent,
    /// GRANT packets sent.
    grants_sent,
    /// RESEND packets sent.
    resends_sent,
    /// BUSY packets sent.
    busy_sent,
    /// RPC_UNKNOWN packets sent.
    unknown_sent,
    /// NEED_ACK packets sent.
    need_acks_sent,
    /// Times that packets to an address were made shorter because long ones did not arrive.
    paths_narrowed,
    /// ACK packets sent.
    acks_sent,
    /// CUTOFFS packets sent.
    cutoffs_sent,
    /// Times our cutoffs were computed anew because traffic had changed.
    cutoffs_changed,
    /// Remembered ids of delivered requests given up before their time to bound memory.
    delivered_ids_evicted,
    /// Packets, or trains of them, that the system dropped because the receive buffer was full.
    receive_drops,
    /// System calls that sent packets.
    send_system_calls,
    /// System calls that received packets.
    receive_system_calls,
    /// Callers woken because their response had come or their call had failed.
    waiters_woken,
    /// Requests handed to the server application.
    requests_handed_over,
}

impl Stats {
    /// Mean number of packets per system call that sent any; 0 if none did, or if the link makes no
    /// system calls. Trains make it greater than 1.
    #[must_use]
    pub fn packets_per_send(&self) -> f64 {
        mean(self.packets_sent, self.send_system_calls)
    }

    /// Mean number of packets per system call that received any; 0 as above.
    #[must_use]
    pub fn packets_per_receive(&self) -> f64 {
        mean(self.packets_received, self.receive_system_calls)
    }
}

fn mean(packets: u64, calls: u64) -> f64 {
    if calls == 0 {
        return 0.0;
    }
    packets as f64 / calls as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_and_an_explanation_and_adds_up() {
        let mut total = Stats {
            packets_sent: 2,
            ..Stats::default()
        };
        total += Stats {
            packets_sent: 3,
            acks_sent: 1,
            ..Stats::default()
        };
        assert_eq!(total.packets_sent, 5);
        assert_eq!(total.acks_sent, 1);
        assert!(
            total
                .iter()
                .all(|(name, help, _)| !name.is_empty() && help.ends_with('.'))
        );
        assert!(
            total
                .iter()
                .any(|(name, _, value)| name == "packets_sent" && value == 5)
        );
    }
}
