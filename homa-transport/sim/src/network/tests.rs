use super::*;

fn one(network: &mut Network, from: usize, to: usize, len: usize) -> Duration {
    let begin = network.free_at(from) + Duration::from_millis(1);
    network.send(begin, from, to, Priority::HIGHEST, &mut vec![7; len]);
    while network.next_at().is_some() {
        if let Some(arrival) = network.advance() {
            assert_eq!((arrival.from, arrival.to), (from, to));
            assert_eq!(network.bytes(arrival.packet), vec![7; len]);
            network.release(arrival.packet);
            return arrival.at - begin;
        }
    }
    panic!("it did not arrive");
}

#[test]
fn a_round_trip_takes_what_the_paper_says() {
    let mut network = Network::new(Topology::sigcomm18(), PacketFaults::default(), 1);
    // A grant of 84 bytes on the wire out, a full packet of 1,538 back.
    let out = one(&mut network, 0, 143, 18);
    let back = one(&mut network, 143, 0, 1_472);
    // 7.744 us, and at most one nanosecond of rounding per link.
    assert!(
        (7_744..=7_752).contains(&(out + back).as_nanos()),
        "{:?}",
        out + back
    );
    let exact = network.transit(0, 143, 18) + network.transit(143, 0, 1_472);
    assert_eq!(exact.as_nanos(), 7_744);
    let near = one(&mut network, 0, 1, 18) - network.transit(0, 1, 18);
    assert!(near.as_nanos() <= 2, "{near:?}");
}

#[test]
fn packets_of_a_higher_level_overtake_at_a_busy_port() {
    let mut network = Network::new(
        Topology::single_switch(4, 10_000),
        PacketFaults::default(),
        1,
    );
    let now = Instant::from_nanos(1_000);
    for (from, level) in [(0, 0), (0, 0), (1, 0), (2, 7)] {
        network.send(
            now,
            from,
            3,
            Priority::saturating(level),
            &mut vec![level; 1_400],
        );
    }
    let mut levels = Vec::new();
    while network.next_at().is_some() {
        if let Some(arrival) = network.advance() {
            levels.push(network.bytes(arrival.packet).first().copied());
            network.release(arrival.packet);
        }
    }
    assert_eq!(levels, [Some(0), Some(7), Some(0), Some(0)]);
    assert_eq!(network.in_flight(), 0);
    assert!(network.buffer_peak() > 2 * 1_400);
}

#[test]
fn a_small_buffer_drops_and_a_partition_cuts() {
    let topology = Topology {
        buffer_bytes: Some(3_000),
        ..Topology::single_switch(8, 10_000)
    };
    let mut network = Network::new(topology, PacketFaults::default(), 1);
    for from in 0..7 {
        network.send(
            Instant::ZERO,
            from,
            7,
            Priority::LOWEST,
            &mut vec![0; 1_400],
        );
    }
    while network.next_at().is_some() {
        if let Some(arrival) = network.advance() {
            network.release(arrival.packet);
        }
    }
    let counts = network.counts();
    assert_eq!(
        (counts.sent, counts.delivered, counts.overflowed),
        (7, 3, 4)
    );
    network.cut(1, &[0, 1]);
    for (from, to) in [(0, 1), (0, 2), (3, 1), (3, 4)] {
        network.send(
            network.free_at(from),
            from,
            to,
            Priority::LOWEST,
            &mut vec![0; 10],
        );
    }
    assert_eq!(network.counts().cut_off, 2);
    network.heal(1);
    network.send(network.free_at(0), 0, 2, Priority::LOWEST, &mut vec![0; 10]);
    assert_eq!(network.counts().cut_off, 2);
}

#[test]
fn faults_happen_as_often_as_they_should() {
    let faults = PacketFaults {
        loss: 100_000,
        duplication: 50_000,
        reordering: 200_000,
        corruption: 50_000,
        hold_up_max: Duration::from_millis(1),
        damaged: Damaged::Dropped,
    };
    let mut network = Network::new(Topology::leaf_spine(2, 2, 2, 10_000), faults, 9);
    let mut now = Instant::ZERO;
    for _ in 0..10_000 {
        network.send(now, 0, 3, Priority::LOWEST, &mut vec![0; 100]);
        now = network.free_at(0);
    }
    while network.next_at().is_some() {
        if let Some(arrival) = network.advance() {
            network.release(arrival.packet);
        }
    }
    let counts = network.counts();
    assert!((900..1_100).contains(&counts.lost), "{counts:?}");
    assert!((400..600).contains(&counts.duplicated), "{counts:?}");
    assert!((400..600).contains(&counts.corrupted), "{counts:?}");
    assert!(counts.reordered > 1_000, "{counts:?}");
    assert_eq!(
        counts.delivered,
        10_000 - counts.lost + counts.duplicated - counts.corrupted
    );
    assert_eq!(network.in_flight(), 0);
}
