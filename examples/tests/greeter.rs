//! The `greeter` program, run as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use std::net::UdpSocket;

use process::{Ended, ServerProcess, run, run_logging};

const GREETER: &str = env!("CARGO_BIN_EXE_greeter");

#[track_caller]
fn assert_failed(ended: &Ended, texts: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    for text in texts {
        assert!(ended.stderr.contains(text), "{text} is missing: {ended:?}");
    }
}

#[test]
fn both_prints_the_greeting_and_the_round_trip_time() {
    let ended = run(GREETER, &["both"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("Hello Homa! (over homa+udp://127.0.0.1:"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("\nround trip: "), "{ended:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn client_and_server_in_two_processes() {
    let server = ServerProcess::start(GREETER);
    let ended = run(GREETER, &["client", &server.uri, "Ada"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "Hello Ada!\n"),
        "{ended:?}"
    );
    let ended = run(GREETER, &["client", &server.uri]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "Hello world!\n"),
        "{ended:?}"
    );
    let refused = run(GREETER, &["client", &server.uri, ""]);
    assert_failed(
        &refused,
        &["INVALID_ARGUMENT", "the name must not be empty"],
    );
}

#[test]
fn server_ends_well_at_an_interrupt() {
    assert_eq!(ServerProcess::start(GREETER).interrupt(), Some(0));
    assert_eq!(ServerProcess::start(GREETER).signal("-TERM"), Some(0));
}

#[test]
fn every_program_helps_on_stdout() {
    for program in [
        GREETER,
        env!("CARGO_BIN_EXE_auth"),
        env!("CARGO_BIN_EXE_chat"),
        env!("CARGO_BIN_EXE_json"),
        env!("CARGO_BIN_EXE_keyvalue"),
        env!("CARGO_BIN_EXE_routeguide"),
    ] {
        for arguments in [&["--help"][..], &["-h"], &["server", "--help"]] {
            let ended = run(program, arguments);
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
            assert!(ended.stdout.starts_with("usage: "), "{ended:?}");
        }
    }
}

#[test]
fn rust_log_is_honoured_and_nonsense_in_it_is_named() {
    let ended = run_logging(GREETER, &["both"], "homa_rpc=debug");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the server shuts down"), "{ended:?}");
    assert!(!ended.stdout.contains("DEBUG"), "{ended:?}");
    let ended = run_logging(GREETER, &["both"], "homa_rpc=loud");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("homa_rpc=loud"), "{ended:?}");
}

#[test]
fn client_of_a_closed_port_fails_with_the_address() {
    // The port was free a moment ago. Should another program take it, it will not speak Homa, and
    // the call ends with the same code.
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ended = run(GREETER, &["client", &format!("homa+udp://{address}")]);
    assert_failed(&ended, &[&address.to_string()]);
    assert!(
        ended.stderr.contains("UNAVAILABLE") || ended.stderr.contains("DEADLINE_EXCEEDED"),
        "{ended:?}"
    );
}

#[test]
fn client_of_a_silent_port_fails_with_the_address() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let ended = run(GREETER, &["client", &format!("homa+udp://{address}")]);
    assert_failed(&ended, &[&address.to_string()]);
    assert!(
        ended.stderr.contains("UNAVAILABLE") || ended.stderr.contains("DEADLINE_EXCEEDED"),
        "{ended:?}"
    );
}

#[test]
fn second_server_on_a_port_fails_with_the_port() {
    let server = ServerProcess::start(GREETER);
    let second = run(GREETER, &["server", &server.uri]);
    let port = server.uri.rsplit(':').next().unwrap();
    assert_failed(&second, &[port]);
}

#[test]
fn wrong_uris_are_named() {
    for uri in [
        "nonsense",
        "http://127.0.0.1:1",
        "homa+udp://127.0.0.1:99999",
        "homa+udp://",
    ] {
        assert_failed(&run(GREETER, &["client", uri]), &[uri]);
        assert_failed(&run(GREETER, &["server", uri]), &[uri]);
    }
}

#[test]
fn wrong_arguments_give_the_usage() {
    for arguments in [
        &[][..],
        &["serve"],
        &["both", "x"],
        &["client", "a", "b", "c"],
    ] {
        let ended = run(GREETER, arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("usage: greeter "), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}
