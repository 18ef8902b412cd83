//! The `routeguide` program, run as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use process::{ServerProcess, run};

const ROUTEGUIDE: &str = env!("CARGO_BIN_EXE_routeguide");

#[track_caller]
fn output(arguments: &[&str]) -> String {
    let ended = run(ROUTEGUIDE, arguments);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    ended.stdout
}

#[test]
fn calls_of_all_four_kinds_between_two_processes() {
    let server = ServerProcess::start(ROUTEGUIDE);
    let text = output(&["client", &server.uri]);
    for part in [
        "one feature:\n  Old Wood (40.2, -74.7)\n  nothing known (0.0, 0.0)\n",
        "rectangle:\n  Upper Mill (40.0, -75.0)\n  Upper Ford (40.0, -74.9)\n",
        "\n  Lower Bridge (40.1, -74.8)\na route of 10 points passed 10 features and was 125.8 km long\n",
        "made ours:\n  first note\n  first note\n  third note\n",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    // The notes are still there.
    let again = output(&["client", &server.uri]);
    let first = "made ours:\n  first note\n  third note\n  fourth note\n  second note\n";
    assert!(again.contains(first), "{again}");
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn the_server_tells_its_services_and_how_they_are() {
    let server = ServerProcess::start(ROUTEGUIDE);
    assert_eq!(
        output(&["health", &server.uri]),
        "the server: SERVING\nrouteguide.RouteGuide: SERVING\n"
    );
    assert_eq!(
        output(&["services", &server.uri]),
        "routeguide.RouteGuide\ngrpc.health.v1.Health\ngrpc.reflection.v1.ServerReflection\n"
    );
    assert_eq!(server.signal("-TERM"), Some(0));
}

#[test]
fn both_does_all_in_one_process() {
    let text = output(&["both"]);
    for part in ["one feature:", "routeguide.RouteGuide: SERVING\n"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn help_and_wrong_arguments_give_the_usage() {
    assert!(output(&["--help"]).starts_with("usage: routeguide server"));
    for arguments in [&[][..], &["serve"], &["both", "x"], &["client", "a", "b"]] {
        let ended = run(ROUTEGUIDE, arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("usage: routeguide "), "{ended:?}");
    }
}
