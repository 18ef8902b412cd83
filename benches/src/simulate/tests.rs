//! Short runs with few hosts.

use homa_transport::sim::Workload;

use super::experiment::{Outcome, Plan, run};
use super::report;
use super::settings::Mode;
use super::slowdown::ideal_nanos;

const PLAN: Plan = Plan {
    workload: Workload::W3,
    load: 0.5,
    mode: Mode::Overlay,
    seconds: 0.002,
    hosts: 32,
    seed: 1,
};

fn quietly(plan: Plan) -> Outcome {
    run(plan, |_| {})
}

#[test]
fn the_links_are_used_as_much_as_the_load_says() {
    // W1 has no messages of megabytes, whose arrival is a matter of chance in so short a time.
    for load in [0.5, 0.8] {
        let outcome = quietly(Plan {
            workload: Workload::W1,
            load,
            ..PLAN
        });
        let utilisation = outcome.utilisation;
        assert!((utilisation - load).abs() < 0.02, "{utilisation} at {load}");
        assert_eq!(outcome.objection(), None);
    }
}

#[test]
fn a_seed_repeats_exactly_and_another_one_does_not() {
    for mode in [Mode::Overlay, Mode::Ours] {
        let plan = Plan { mode, ..PLAN };
        let (one, again) = (quietly(plan), quietly(plan));
        assert_eq!(one.digest, again.digest);
        assert_eq!(one.packets, again.packets);
        assert_eq!(report::csv(&[one]), report::csv(&[again]));
        let other = quietly(Plan { seed: 2, ..plan });
        assert_ne!(other.digest, quietly(plan).digest);
    }
}

#[test]
fn no_message_is_faster_than_the_ideal() {
    // Where we cut a message into two packets and the ideal does not, a switch passes the first on
    // while it receives the second: that may be a little faster.
    let least_of = |size| if size <= 1_416 { 1.0 } else { 0.95 };
    for workload in Workload::ALL {
        for mode in [Mode::Overlay, Mode::Ours] {
            let outcome = quietly(Plan {
                workload,
                mode,
                ..PLAN
            });
            assert_eq!(outcome.failed, 0, "{workload:?} {mode:?}");
            assert!(outcome.slowdowns.messages() > 0);
            for bin in outcome
                .slowdowns
                .bins()
                .iter()
                .filter(|bin| bin.messages > 0)
            {
                let size = bin.published.size_max;
                assert!(
                    bin.least() >= least_of(size),
                    "{workload:?} up to {size}: {}",
                    bin.least()
                );
                assert!(bin.quantile(0.99) >= bin.quantile(0.5) * 0.999);
            }
        }
    }
}

#[test]
fn a_lone_message_takes_what_can_be_computed_by_hand() {
    // Hosts of one rack, hardly any load. A message of 11 bytes has 30 of header and 66 of frame: 107
    // bytes, twice at 0.8 ns, one switch of 250 ns, hosts of 1,500: 1,921.2 ns; the ideal, by its
    // definition without the switch and the header, is 1,500 + 2 * 84 * 0.8 = 1,634.4 ns.
    let near = (1_500.0 + 250.0 + 2.0 * 107.0 * 0.8) / 1_634.4;
    assert!((ideal_nanos(11, true) - 1_634.4).abs() < 1e-6);
    let lone = Plan {
        workload: Workload::W1,
        load: 0.01,
        hosts: 4,
        seconds: 0.02,
        ..PLAN
    };
    check_least(&quietly(lone), 11, near);
    // Two racks: the least is that of the other rack. Three switches, and two links of 0.2 ns a byte.
    let far = (1_500.0 + 750.0 + 2.0 * 107.0 * 0.8 + 2.0 * 107.0 * 0.2)
        / (1_500.0 + 750.0 + 2.0 * 84.0 * 0.8 + 2.0 * 84.0 * 0.2);
    assert!((1.0..1.02).contains(&far));
    check_least(&quietly(Plan { hosts: 32, ..lone }), 11, far);
}

fn check_least(outcome: &Outcome, size: u32, expected: f64) {
    let bins = outcome.slowdowns.bins();
    let bin = bins
        .iter()
        .find(|bin| bin.published.size_max == size)
        .unwrap();
    // Times are rounded up to whole nanoseconds at each of at most four links.
    let error = bin.least() / expected - 1.0;
    assert!(
        (0.0..0.003).contains(&error),
        "{} not {expected}",
        bin.least()
    );
    assert!(bin.quantile(0.5) < expected * 1.2);
}

#[test]
fn an_overloaded_network_is_no_evidence() {
    let outcome = quietly(Plan {
        workload: Workload::W1,
        load: 1.0,
        hosts: 16,
        ..PLAN
    });
    assert!(outcome.objection().is_some(), "{}", outcome.utilisation);
}

#[test]
fn results_are_written_in_every_form() {
    let outcomes = [quietly(Plan { load: 0.8, ..PLAN })];
    let json: serde_json::Value = serde_json::from_str(&report::json(&outcomes).unwrap()).unwrap();
    for key in [
        "workload",
        "mode",
        "nominal_load",
        "utilisation",
        "messages",
        "p99_slowdown_short_half",
    ] {
        assert!(!json[0][key].is_null(), "{key}");
    }
    let bins = outcomes[0].slowdowns.bins().iter();
    let filled = bins.filter(|bin| bin.messages > 0).count();
    assert_eq!(json[0]["bins"].as_array().unwrap().len(), filled);
    assert_eq!(report::csv(&outcomes).lines().count(), filled + 1);
    let table = report::table(&outcomes[0], std::time::Duration::from_secs(1));
    assert!(table.contains("published 2.146"), "{table}");
}
