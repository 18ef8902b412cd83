//! The rules of the published simulations.

use super::*;
use crate::endpoint::grants::priority::UnscheduledCutoffs;
use slotmap::SlotMap;

/// 1,230 ns: a full packet at 10 Gbit/s.
const PAUSE: u64 = 1_230;

struct Bench {
    keys: SlotMap<RpcKey, ()>,
    grants: GrantScheduler,
}

/// Two active senders on the levels 1 and 0; the last 5,000 bytes of a message on level 7.
fn bench() -> Bench {
    let paper = PaperGrants {
        packet: 1_456,
        window: 9_328,
        pause: Duration::from_nanos(PAUSE),
        tail: 5_000,
        cutoffs: UnscheduledCutoffs::heard([0, 0, 0, 0, 0, 0, 0, u32::MAX], 1),
    };
    Bench {
        keys: SlotMap::with_key(),
        grants: GrantScheduler::new(GrantLimits {
            max_incoming: 1 << 30,
            window: 0,
            max_overcommit: 2,
            increment: 1,
            fifo_permille: 0,
            fifo_increment: 50_000,
            fifo_priority: Priority::saturating(6),
            scheduled_max: 1,
            paper: Some(paper),
        }),
    }
}

impl Bench {
    /// A message of `length` bytes, `received` of the 9,328 unscheduled ones being there.
    fn add(&mut self, peer: u8, length: u32, received: u32) -> RpcKey {
        let rpc = self.keys.insert(());
        self.report(rpc, peer, length, received, 9_328);
        rpc
    }

    fn report(&mut self, rpc: RpcKey, peer: u8, length: u32, received: u32, granted: u32) {
        let progress = Progress {
            peer: IpAddr::from([10, 0, 0, peer]),
            birth: self.keys.len() as u64,
            length,
            received,
            granted,
            following: 0,
        };
        self.grants.on_progress(rpc, progress);
    }

    /// Grants at this time: message, offset, level.
    fn at(&mut self, nanos: u64) -> Vec<(RpcKey, u32, u8)> {
        let now = Instant::from_nanos(nanos);
        std::iter::from_fn(|| self.grants.next(now))
            .map(|grant| (grant.rpc, grant.offset, grant.priority.level()))
            .collect()
    }
}

#[test]
fn one_packet_is_granted_at_a_time_and_the_next_after_a_pause() {
    let mut bench = bench();
    let rpc = bench.add(1, 100_000, 4_000);
    assert_eq!(bench.at(1_000), [(rpc, 10_784, 0)]);
    // 4,000 of 10,784 bytes have come; the window has room for three more packets.
    assert_eq!(bench.at(1_000 + PAUSE - 1), []);
    let over = Instant::from_nanos(1_000 + PAUSE);
    assert_eq!(bench.grants.paused_until(), Some(over));
    assert_eq!(bench.at(1_000 + PAUSE), [(rpc, 12_240, 0)]);
    assert_eq!(bench.at(1_000 + 2 * PAUSE), [(rpc, 13_696, 0)]);
    assert_eq!(bench.at(1_000 + 9 * PAUSE), [], "9,696 bytes are granted");
    assert_eq!(bench.grants.paused_until(), None);
}

#[test]
fn a_sender_has_one_active_message_the_one_with_the_fewest_ungranted_bytes() {
    let mut bench = bench();
    let long = bench.add(1, 500_000, 5_000);
    let other = bench.add(2, 400_000, 5_000);
    let short = bench.add(1, 50_000, 5_000);
    // The short one has taken the place of the long one, not that of the other sender's.
    assert_eq!(bench.at(0), [(short, 10_784, 1), (other, 10_784, 0)]);
    // A third sender's message takes the place of the worst.
    let third = bench.add(3, 60_000, 5_000);
    assert_eq!(bench.at(0), [(third, 10_784, 0)]);
    // When a place is free, the sender with the best message gets it, if it has none.
    bench.grants.remove(short);
    assert_eq!(bench.at(PAUSE), [(third, 12_240, 1), (other, 12_240, 0)]);
    bench.grants.remove(third);
    assert_eq!(bench.at(2 * PAUSE), [(other, 13_696, 1), (long, 10_784, 0)]);
}

#[test]
fn the_end_of_a_message_uses_the_levels_of_unscheduled_bytes() {
    let mut bench = bench();
    // 4,800 bytes are to be granted: four packets, of which the last has 432.
    let rpc = bench.add(1, 14_128, 9_328);
    let mut granted = Vec::new();
    for i in 0..4 {
        granted.extend(bench.at(i * PAUSE));
    }
    assert_eq!(
        granted,
        [
            (rpc, 10_784, 7),
            (rpc, 12_240, 7),
            (rpc, 13_696, 7),
            (rpc, 14_128, 7)
        ]
    );
}

#[test]
fn what_is_granted_to_its_end_leaves_its_place_to_others() {
    let mut bench = bench();
    let shorts = [1, 2].map(|peer| bench.add(peer, 10_000, 5_000));
    let long = bench.add(3, 200_000, 5_000);
    let granted = bench.at(0);
    assert_eq!(
        granted,
        [
            (shorts[0], 10_000, 7),
            (shorts[1], 10_000, 7),
            (long, 10_784, 0)
        ]
    );
    assert!(!bench.grants.knows(shorts[0]) && bench.grants.knows(long));
    assert_eq!(bench.grants.incoming(), u64::from(10_784_u32 - 5_000));
}
