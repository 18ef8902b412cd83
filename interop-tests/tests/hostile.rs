//! A server under attack, in small: `homa-interop hostile` judges what does not depend on the machine's mood.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use homa_interop::hostile::ATTACKS;
use homa_interop::skip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_homa-interop");
/// Few packets, from one source and from fifty.
const SMALL: &str = "--untimed --around 0.05 --seconds 0.2 --rate 1000 --burst 1500 --sources 1,50";
const RUNS: usize = 2 * ATTACKS.len();
const UDP_IPV4: &str = "--wire udp --ip 4";
/// The program's exit status if this machine cannot.
const NOT_STARTED: i32 = 2;

fn hostile(options: &str) -> Output {
    let mut program = Command::new(PROGRAM);
    program.arg("hostile").args(options.split(' '));
    program.output().unwrap()
}

/// Every attack: no good call fails, nothing panics, the server holds no RPC at the end.
fn every_attack_leaves_good_calls_alone(test: &str, place: &str) {
    let output = hostile(&format!("{SMALL} {place}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // Every machine has UDP and IPv4.
    if output.status.code() == Some(NOT_STARTED) && place != UDP_IPV4 {
        return skip::report(test, errors.trim());
    }
    assert!(output.status.success(), "{text}{errors}");
    let last = text.lines().next_back().unwrap();
    assert_eq!(last, format!("{RUNS} attacks, 0 with faults"));
}

#[test]
fn attacks_over_udp_and_ipv4() {
    every_attack_leaves_good_calls_alone("attacks_over_udp_and_ipv4", UDP_IPV4);
}

#[test]
fn attacks_over_udp_and_ipv6() {
    every_attack_leaves_good_calls_alone("attacks_over_udp_and_ipv6", "--wire udp --ip 6");
}

#[test]
fn attacks_over_protocol_146_and_ipv4() {
    let test = "attacks_over_protocol_146_and_ipv4";
    every_attack_leaves_good_calls_alone(test, "--wire raw --ip 4");
}

#[test]
fn attacks_over_protocol_146_and_ipv6() {
    let test = "attacks_over_protocol_146_and_ipv6";
    every_attack_leaves_good_calls_alone(test, "--wire raw --ip 6");
}
