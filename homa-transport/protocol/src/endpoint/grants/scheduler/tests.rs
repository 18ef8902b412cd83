use super::*;
use slotmap::{SecondaryMap, SlotMap};

struct Bench {
    keys: SlotMap<RpcKey, ()>,
    grants: GrantScheduler,
    progress: SecondaryMap<RpcKey, Progress>,
    births: u64,
}

fn limits() -> GrantLimits {
    GrantLimits {
        max_incoming: 400_000,
        window: 0,
        max_overcommit: 8,
        increment: 1,
        fifo_permille: 0,
        fifo_increment: 50_000,
        fifo_priority: Priority::saturating(6),
        scheduled_max: 3,
        paper: None,
    }
}

impl Bench {
    fn new(limits: GrantLimits) -> Self {
        let (keys, progress) = (SlotMap::with_key(), SecondaryMap::new());
        Self {
            keys,
            grants: GrantScheduler::new(limits),
            progress,
            births: 0,
        }
    }

    /// A message of which the first packet of 40,000 unscheduled bytes has come.
    fn add(&mut self, peer: u8, length: u32) -> RpcKey {
        self.add_with(peer, length, 1_424, 40_000)
    }

    fn add_with(&mut self, peer: u8, length: u32, received: u32, granted: u32) -> RpcKey {
        let rpc = self.keys.insert(());
        let peer = IpAddr::from([10, 0, 0, peer]);
        self.births += 1;
        let progress = Progress {
            peer,
            birth: self.births,
            length,
            received,
            granted,
            following: 0,
        };
        self.progress.insert(rpc, progress);
        self.grants.on_progress(rpc, progress);
        self.check();
        rpc
    }

    fn receive(&mut self, rpc: RpcKey, bytes: u32) {
        let progress = &mut self.progress[rpc];
        progress.received += bytes;
        let progress = *progress;
        if progress.received == progress.length {
            self.finish(rpc);
        } else {
            self.grants.on_progress(rpc, progress);
            self.check();
        }
    }

    /// A packet says that the message is a part of a longer whole.
    fn follow(&mut self, rpc: RpcKey, following: u32) {
        let progress = &mut self.progress[rpc];
        progress.following = following;
        let progress = *progress;
        self.grants.on_progress(rpc, progress);
        self.check();
    }

    fn finish(&mut self, rpc: RpcKey) {
        self.progress.remove(rpc);
        self.grants.remove(rpc);
        self.check();
    }

    fn drain(&mut self) -> Vec<Grant> {
        self.drain_at(Instant::ZERO)
    }

    fn drain_at(&mut self, now: Instant) -> Vec<Grant> {
        let given: Vec<Grant> = std::iter::from_fn(|| self.grants.next(now)).collect();
        for grant in &given {
            let progress = &mut self.progress[grant.rpc];
            assert!(grant.offset > progress.granted, "no grant is redundant");
            assert!(grant.offset <= progress.length);
            progress.granted = grant.offset;
        }
        self.check();
        given
    }

    /// The scheduler's books agree with each other and with ours.
    fn check(&self) {
        let grants = &self.grants;
        let incoming: u64 = self.progress.values().map(Progress::incoming).sum();
        assert_eq!(grants.incoming(), incoming);
        assert!(grants.active.len() <= grants.limits.max_overcommit);
        let waiting: usize = grants.peers.values().map(|queue| queue.waiting.len()).sum();
        assert_eq!(waiting + grants.active.len(), self.progress.len());
        if waiting > 0 {
            assert_eq!(
                grants.active.len(),
                grants.limits.max_overcommit,
                "no slot is left empty"
            );
        }
    }

    fn active(&self) -> Vec<RpcKey> {
        self.grants.active.clone()
    }
}

fn levels(grants: &[Grant]) -> Vec<u8> {
    grants.iter().map(|grant| grant.priority.level()).collect()
}

fn offsets(grants: &[Grant]) -> Vec<u32> {
    grants.iter().map(|grant| grant.offset).collect()
}

#[test]
fn one_message_gets_half_of_the_ceiling_at_the_lowest_level() {
    let mut bench = Bench::new(limits());
    let rpc = bench.add(1, 1_000_000);
    let given = bench.drain();
    assert_eq!(
        given,
        [Grant {
            rpc,
            offset: 201_424,
            priority: Priority::LOWEST
        }]
    );
    bench.receive(rpc, 14_240);
    assert_eq!(offsets(&bench.drain()), [215_664]);
    assert_eq!(bench.drain(), []);
}

#[test]
fn a_message_within_its_window_is_granted_to_its_end_once() {
    let mut bench = Bench::new(limits());
    let rpc = bench.add(1, 200_000);
    assert_eq!(offsets(&bench.drain()), [200_000]);
    bench.receive(rpc, 100_000);
    assert_eq!(bench.drain(), [], "there is nothing more to grant");
}

#[test]
fn two_messages_share_the_ceiling_by_thirds_and_have_distinct_levels() {
    let mut bench = Bench::new(limits());
    let long = bench.add(1, 900_000);
    let short = bench.add(2, 300_000);
    let given = bench.drain();
    // Window 400,000 / 3 = 133,333, counted from the 1,424 bytes received.
    assert_eq!(
        given.iter().map(|grant| grant.rpc).collect::<Vec<_>>(),
        [short, long]
    );
    assert_eq!(offsets(&given), [134_757, 134_757]);
    assert_eq!(levels(&given), [1, 0]);
}

#[test]
fn a_part_is_ranked_by_what_is_left_of_the_whole_and_absurd_numbers_put_it_last() {
    let mut bench = Bench::new(limits());
    let part = bench.add(1, 100_000);
    let message = bench.add(2, 300_000);
    assert_eq!(bench.active(), [part, message]);
    bench.follow(part, 3 * 65_536);
    assert_eq!(bench.active(), [part, message]);
    bench.follow(part, 4 * 65_536);
    assert_eq!(bench.active(), [message, part]);
    bench.follow(part, u32::MAX);
    let given = bench.drain();
    assert_eq!(given[1].rpc, part);
    assert_eq!(levels(&given), [1, 0]);
    bench.finish(message);
    assert_eq!(bench.active(), [part]);
}

#[test]
fn a_part_that_turns_out_to_be_one_leaves_its_slot_to_what_is_shorter() {
    let one = GrantLimits {
        max_overcommit: 1,
        ..limits()
    };
    let mut bench = Bench::new(one);
    let part = bench.add(1, 100_000);
    let message = bench.add(2, 300_000);
    assert_eq!(bench.active(), [part]);
    bench.follow(part, 1_000_000);
    assert_eq!(bench.active(), [message]);
    bench.finish(message);
    assert_eq!(bench.active(), [part]);
}

#[test]
fn eight_messages_of_one_peer_are_all_active() {
    let mut bench = Bench::new(limits());
    let all: Vec<RpcKey> = (0..8).map(|i| bench.add(1, 500_000 + i * 10_000)).collect();
    assert_eq!(bench.active(), all);
    let given = bench.drain();
    // Window 400,000 / 9 = 44,444.
    assert_eq!(offsets(&given), [45_868; 8]);
    assert_eq!(levels(&given), [3, 2, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn the_ninth_message_of_a_peer_waits_unless_it_is_shorter() {
    let mut bench = Bench::new(limits());
    let all: Vec<RpcKey> = (0..8).map(|i| bench.add(1, 500_000 + i * 10_000)).collect();
    let longer = bench.add(1, 900_000);
    assert!(!bench.active().contains(&longer));
    let shorter = bench.add(1, 100_000);
    assert_eq!(bench.active().first(), Some(&shorter));
    assert!(
        !bench.active().contains(&all[7]),
        "the worst-ranked one made room"
    );
    bench.finish(shorter);
    assert!(bench.active().contains(&all[7]), "and has its slot back");
}

#[test]
fn a_new_peer_takes_a_slot_from_the_peer_that_holds_most() {
    let mut bench = Bench::new(limits());
    let first: Vec<RpcKey> = (0..8).map(|i| bench.add(1, 100_000 + i * 10_000)).collect();
    let other = bench.add(2, 1_000_000);
    assert!(
        bench.active().contains(&other),
        "however long its message is"
    );
    assert!(!bench.active().contains(&first[7]));
    let third = bench.add(3, 1_000_000);
    assert!(bench.active().contains(&third));
    assert!(!bench.active().contains(&first[6]));
}

#[test]
fn fifty_messages_of_three_peers_share_the_slots_evenly() {
    let mut bench = Bench::new(limits());
    for i in 0..50_u32 {
        bench.add(u8::try_from(i % 3).unwrap(), 100_000 + i * 1_000);
    }
    let mut held = [0_usize; 3];
    for rpc in bench.active() {
        held[usize::from(match bench.progress[rpc].peer {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        })] += 1;
    }
    held.sort_unstable();
    assert_eq!(held, [2, 3, 3]);
}

#[test]
fn fifty_messages_of_fifty_peers_are_served_shortest_first() {
    let mut bench = Bench::new(limits());
    let all: Vec<RpcKey> = (0..50_u32)
        .map(|i| bench.add(u8::try_from(i).unwrap(), 900_000 - i * 1_000))
        .collect();
    let best: Vec<RpcKey> = all.iter().rev().take(8).copied().collect();
    assert_eq!(bench.active(), best);
    bench.finish(best[3]);
    assert!(bench.active().contains(&all[41]), "the ninth best moves up");
}

#[test]
fn nine_messages_of_nine_peers_leave_the_longest_waiting_until_a_slot_is_free() {
    let mut bench = Bench::new(limits());
    let all: Vec<RpcKey> = (0..9_u32)
        .map(|i| {
            bench.add_with(
                u8::try_from(i).unwrap(),
                900_000 - i * 1_000,
                30_000,
                40_000,
            )
        })
        .collect();
    let given = bench.drain();
    assert_eq!(given.len(), 8);
    assert!(given.iter().all(|grant| grant.rpc != all[0]));
    bench.finish(all[8]);
    assert_eq!(bench.drain().last().map(|grant| grant.rpc), Some(all[0]));
}

#[test]
fn a_short_message_finds_room_though_outranked_ones_keep_what_they_were_granted() {
    let mut bench = Bench::new(limits());
    for peer in 0..4 {
        bench.add_with(peer, 900_000, 40_000, 40_000);
    }
    assert_eq!(offsets(&bench.drain()), [120_000; 4], "a window is a fifth");
    for peer in 4..8 {
        bench.add_with(peer, 800_000, 40_000, 40_000);
    }
    // The windows, a ninth each, fill the 80,000 bytes that are left, and one goes beyond them.
    assert_eq!(offsets(&bench.drain()), [84_444, 75_556, 84_444]);
    assert_eq!(bench.grants.incoming(), 408_888);
    let short = bench.add_with(8, 60_000, 40_000, 40_000);
    let given = bench.drain();
    assert_eq!((given[0].rpc, given[0].offset), (short, 60_000));
    assert_eq!(given.len(), 1);
}

#[test]
fn beyond_the_ceiling_those_behind_the_first_in_rank_get_one_grant_in_fifty_microseconds() {
    let mut bench = Bench::new(limits());
    for peer in 0..8 {
        bench.add_with(peer, 900_000, 40_000, 40_000);
        bench.drain();
    }
    // A half, a third, and for the third message a quarter, with 33,333 bytes beyond the ceiling.
    assert_eq!(bench.grants.incoming(), 433_333);
    let at = |micros: u64| Instant::from_nanos(micros * 1_000);
    assert_eq!(bench.drain_at(at(49)), []);
    for next in 1..=5 {
        assert_eq!(bench.grants.paused_until(), Some(at(50 * next)));
        assert_eq!(offsets(&bench.drain_at(at(50 * next))), [84_444]);
    }
    assert_eq!(bench.grants.paused_until(), None, "all have their windows");
    assert_eq!(bench.grants.incoming(), 655_553);
}

#[test]
fn a_waiting_message_whose_remainder_shrinks_gets_its_turn() {
    let mut bench = Bench::new(limits());
    for peer in 0..8 {
        bench.add(peer, 300_000);
    }
    let late = bench.add_with(9, 320_000, 1_424, 40_000);
    assert!(!bench.active().contains(&late));
    bench.receive(late, 30_000);
    assert!(bench.active().contains(&late));
}

#[test]
fn freed_headroom_goes_to_the_best_ranked_which_may_go_beyond_the_ceiling() {
    let mut bench = Bench::new(GrantLimits {
        max_incoming: 100_000,
        ..limits()
    });
    let all: Vec<RpcKey> = (0..4_u32)
        .map(|i| bench.add_with(u8::try_from(i).unwrap(), 500_000, 0, 30_000))
        .collect();
    assert_eq!(bench.grants.incoming(), 120_000);
    assert_eq!(
        bench.drain(),
        [],
        "the announced bytes alone are over the ceiling"
    );
    bench.receive(all[3], 30_000);
    assert_eq!(bench.grants.incoming(), 90_000);
    let given = bench.drain();
    let to = |offset| Grant {
        rpc: all[3],
        offset,
        priority: Priority::saturating(3),
    };
    assert_eq!(given, [to(40_000), to(50_000)]);
    assert_eq!(bench.grants.incoming(), 110_000);
    for rpc in all {
        bench.finish(rpc);
    }
    assert_eq!(bench.grants.incoming(), 0);
    assert!(bench.grants.peers.is_empty() && bench.grants.ungranted.is_empty());
}

#[test]
fn steps_below_the_increment_wait_except_the_last() {
    let mut bench = Bench::new(GrantLimits {
        increment: 10_000,
        ..limits()
    });
    let rpc = bench.add(1, 300_000);
    assert_eq!(offsets(&bench.drain()), [201_424]);
    bench.receive(rpc, 9_000);
    assert_eq!(bench.drain(), []);
    bench.receive(rpc, 1_000);
    assert_eq!(offsets(&bench.drain()), [211_424]);
    bench.receive(rpc, 88_000);
    assert_eq!(offsets(&bench.drain()), [299_424]);
    bench.receive(rpc, 1_000);
    assert_eq!(
        offsets(&bench.drain()),
        [300_000],
        "576 bytes, the last ones"
    );
}

#[test]
fn the_oldest_message_gets_its_share_of_the_bytes_at_level_six() {
    let mut bench = Bench::new(GrantLimits {
        fifo_permille: 50,
        max_overcommit: 1,
        ..limits()
    });
    let oldest = bench.add_with(1, 1_000_000, 0, 0);
    let (mut by_age, mut by_rank) = (0_u64, 0_u64);
    // Shorter messages never end: without a share the oldest would get nothing.
    for _ in 0..1000 {
        let short = bench.add_with(2, 45_000, 1_424, 10_000);
        let before = bench.progress[short].granted;
        for grant in bench.drain() {
            if grant.rpc == oldest {
                assert_eq!(grant.priority.level(), 6);
                by_age += 50_000;
            } else {
                by_rank += u64::from(grant.offset - before);
            }
        }
        bench.finish(short);
        let left = bench.progress[oldest];
        if left.granted == left.length {
            break;
        }
        bench.receive(oldest, left.granted.saturating_sub(left.received));
    }
    assert_eq!(bench.progress[oldest].granted, 1_000_000);
    assert_eq!(by_age, 1_000_000, "rounded up to whole increments");
    let permille = by_age * 1000 / (by_age + by_rank);
    assert!((40..=60).contains(&permille), "{permille} thousandths");
}

#[test]
fn without_a_share_the_longest_message_waits_for_all_others() {
    let mut bench = Bench::new(GrantLimits {
        max_overcommit: 1,
        ..limits()
    });
    let short = bench.add(2, 300_000);
    let oldest = bench.add(1, 1_000_000);
    for _ in 0..50 {
        assert!(bench.drain().iter().all(|grant| grant.rpc != oldest));
        bench.receive(short, 1_000);
    }
}
