//! Which message sends next, and when: fewest bytes left first (SRPT), against the uplink. Of a message that
//! is a part of a longer whole the bytes of the whole count, or its parts would overtake what is shorter.
//!
//! With a known link speed the pacer keeps an estimate of when the uplink will be idle and holds
//! messages back while more than a small backlog is on its way: what waits in the network card can
//! no longer be overtaken by a shorter message. Short messages, packets sent again and control packets
//! are charged to that estimate but never held back. A share of the bytes goes to the oldest message,
//! or equal ones would starve. Without a link speed only the order counts.
//!
//! Source: Homa (SIGCOMM 2018), section 3.2; homa_pacer.c.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::RpcKey;
use crate::endpoint::grants::budget::{LinkBudget, Uplink};
use crate::units::Instant;

/// Bytes a packet takes on the wire besides itself: Ethernet header, checksum, preamble and gap, and
/// the smaller IP header. Source: homa_wire.h, `HOMA_ETH_OVERHEAD`.
const FRAME_BYTES: u64 = 42 + 20;
/// The link is taken to be this much slower than it is, in hundredths, so that the estimate errs on
/// the safe side. Source: homa_pacer.c, `homa_pacer_update_sysctl_deps`.
const SLOWNESS_PERCENT: u64 = 101;

/// Settings of a pacer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacerLimits {
    /// Speed of the uplink in 10⁶ bit/s, if it is to be obeyed.
    pub(crate) link_mbps: Option<u32>,
    /// How far ahead of the present the uplink may be filled.
    pub(crate) backlog: Duration,
    /// Messages with no more bytes left than this are never held back.
    pub(crate) defer_min: u32,
    /// Thousandths of the bytes that go to the oldest message.
    pub(crate) fifo_permille: u64,
}

/// Place of a message in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// Bytes left, of a part of a longer whole those of the whole.
    pub(crate) remaining: u32,
    pub(crate) birth: u64,
}

/// The messages that have something to send, and the state of the uplink.
#[derive(Debug)]
pub(crate) struct Pacer {
    limits: PacerLimits,
    by_rank: BTreeSet<(u32, u64, RpcKey)>,
    /// Empty if the oldest message has no share.
    by_age: BTreeSet<(u64, RpcKey)>,
    uplink: Uplink,
    /// What the oldest message has coming, in thousandths of bytes.
    fifo_credit: u64,
    /// The message that was chosen last was the oldest, out of turn.
    chose_oldest: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A packet of this message may go.
    Send(RpcKey),
    /// Nothing may go before this time.
    Wait(Instant),
    /// Nothing is waiting.
    Nothing,
}

impl Pacer {
    pub(crate) const fn new(limits: PacerLimits) -> Self {
        Self {
            limits,
            by_rank: BTreeSet::new(),
            by_age: BTreeSet::new(),
            uplink: Uplink::new(),
            fifo_credit: 0,
            chose_oldest: false,
        }
    }

    /// Shares the uplink with other endpoints. Only at first.
    pub(crate) fn share_link(&mut self, budget: Arc<LinkBudget>) {
        self.uplink.share(budget);
    }

    pub(crate) fn insert(&mut self, rpc: RpcKey, rank: Rank) {
        self.by_rank.insert((rank.remaining, rank.birth, rpc));
        if self.limits.fifo_permille > 0 {
            self.by_age.insert((rank.birth, rpc));
        }
    }

    pub(crate) fn remove(&mut self, rpc: RpcKey, rank: Rank) {
        self.by_rank.remove(&(rank.remaining, rank.birth, rpc));
        if self.limits.fifo_permille > 0 {
            self.by_age.remove(&(rank.birth, rpc));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// The message whose packet goes next.
    pub(crate) fn next(&mut self, now: Instant) -> Choice {
        let Some((remaining, _, shortest)) = self.by_rank.first().copied() else {
            return Choice::Nothing;
        };
        self.chose_oldest = false;
        if remaining <= self.limits.defer_min {
            return Choice::Send(shortest);
        }
        if self.limits.link_mbps.is_some() {
            let idle = self.uplink.idle();
            if idle > now + self.limits.backlog {
                return Choice::Wait(idle.before(self.limits.backlog));
            }
        }
        let owed = self.fifo_credit >= PACKET_CREDIT * (1000 - self.limits.fifo_permille);
        match self.by_age.first() {
            Some((_, oldest)) if owed => {
                self.chose_oldest = true;
                Choice::Send(*oldest)
            }
            _ => Choice::Send(shortest),
        }
    }

    /// A packet of `bytes` has been handed to the link. `chosen`: because [`Pacer::next`] said so.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: usize, chosen: bool) {
        let bytes = bytes as u64;
        if let Some(mbps) = self.limits.link_mbps {
            let nanos = (bytes + FRAME_BYTES) * 80 * SLOWNESS_PERCENT / u64::from(mbps.max(1));
            self.uplink.occupy(now, Duration::from_nanos(nanos));
        }
        if !chosen {
            return;
        }
        if self.chose_oldest {
            let cost = bytes * (1000 - self.limits.fifo_permille);
            self.fifo_credit = self.fifo_credit.saturating_sub(cost);
        } else if self.by_age.len() > 1 {
            let most = 2 * PACKET_CREDIT * 1000;
            self.fifo_credit = (self.fifo_credit + bytes * self.limits.fifo_permille).min(most);
        }
    }
}

/// Bytes of credit for which the oldest message gets a packet.
const PACKET_CREDIT: u64 = 1_500;

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn limits(link_mbps: Option<u32>, fifo_permille: u64) -> PacerLimits {
        PacerLimits {
            link_mbps,
            backlog: Duration::from_micros(5),
            defer_min: 1_000,
            fifo_permille,
        }
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(1_000_000 + nanos)
    }

    #[test]
    fn the_shortest_remainder_goes_first_and_the_older_on_a_tie() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut pacer = Pacer::new(limits(None, 0));
        let ranks = [(5_000, 3), (2_000, 2), (2_000, 1), (7, 9), (0, 12)];
        let all = ranks.map(|(remaining, birth)| {
            let key = keys.insert(());
            pacer.insert(key, Rank { remaining, birth });
            key
        });
        let mut order = Vec::new();
        while let Choice::Send(key) = pacer.next(at(0)) {
            let index = all.iter().position(|k| *k == key).unwrap();
            pacer.remove(
                key,
                Rank {
                    remaining: ranks[index].0,
                    birth: ranks[index].1,
                },
            );
            order.push(index);
        }
        assert_eq!(order, [4, 3, 2, 1, 0]);
        assert!(pacer.is_empty());
    }

    #[test]
    fn packets_leave_when_the_backlog_is_down_to_the_nanosecond() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut pacer = Pacer::new(limits(Some(10_000), 0));
        let key = keys.insert(());
        pacer.insert(
            key,
            Rank {
                remaining: 1_000_000,
                birth: 0,
            },
        );
        let (mut now, mut departures) = (at(0), Vec::new());
        while departures.len() < 9 {
            match pacer.next(now) {
                Choice::Send(_) => {
                    departures.push(now - at(0));
                    pacer.on_sent(now, 1_480, true);
                }
                Choice::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Choice::Nothing => panic!("one message is waiting"),
            }
        }
        // 1,480 + 62 bytes at 10 Gbit/s, plus 1 %: 1,245 ns (of 1,245.936) a packet. The fifth
        // packet fills 4,980 of 5,000 ns; the sixth waits until the backlog is 5 µs again.
        let expected = [0, 0, 0, 0, 0, 1_225, 2_470, 3_715, 4_960].map(Duration::from_nanos);
        assert_eq!(departures, expected);
    }

    #[test]
    fn the_time_per_byte_is_the_modules() {
        let mut pacer = Pacer::new(limits(Some(25_000), 0));
        pacer.on_sent(at(0), 1_000_000 - 62, false);
        assert_eq!(pacer.uplink.idle(), at(323_200));
    }

    #[test]
    fn short_messages_and_what_is_sent_again_are_never_held_back() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut pacer = Pacer::new(limits(Some(1_000), 50));
        pacer.on_sent(at(0), 60_000, true);
        let long = keys.insert(());
        pacer.insert(
            long,
            Rank {
                remaining: 1_001,
                birth: 0,
            },
        );
        assert!(matches!(pacer.next(at(0)), Choice::Wait(until) if until > at(400_000)));
        let short = keys.insert(());
        pacer.insert(
            short,
            Rank {
                remaining: 1_000,
                birth: 1,
            },
        );
        assert_eq!(pacer.next(at(0)), Choice::Send(short));
        let again = keys.insert(());
        pacer.insert(
            again,
            Rank {
                remaining: 0,
                birth: 2,
            },
        );
        assert_eq!(pacer.next(at(0)), Choice::Send(again));
    }

    #[test]
    fn the_oldest_message_gets_its_share_of_the_bytes() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut pacer = Pacer::new(limits(None, 50));
        let oldest = keys.insert(());
        pacer.insert(
            oldest,
            Rank {
                remaining: 900_000,
                birth: 0,
            },
        );
        pacer.insert(
            keys.insert(()),
            Rank {
                remaining: 500_000,
                birth: 1,
            },
        );
        let mut sent_of_oldest = 0;
        for _ in 0..10_000 {
            let Choice::Send(key) = pacer.next(at(0)) else {
                panic!("two messages are waiting")
            };
            sent_of_oldest += usize::from(key == oldest);
            pacer.on_sent(at(0), 1_480, true);
        }
        assert!(
            (490..=510).contains(&sent_of_oldest),
            "{sent_of_oldest} of 10,000"
        );
    }

    #[test]
    fn without_a_link_speed_nothing_waits() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut pacer = Pacer::new(limits(None, 50));
        let key = keys.insert(());
        pacer.insert(
            key,
            Rank {
                remaining: 1_000_000,
                birth: 0,
            },
        );
        for _ in 0..1000 {
            assert_eq!(pacer.next(at(0)), Choice::Send(key));
            pacer.on_sent(at(0), 65_000, true);
        }
    }
}
