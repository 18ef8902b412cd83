//! The `auth` program, run as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use process::{ServerProcess, run};

const AUTH: &str = env!("CARGO_BIN_EXE_auth");

#[test]
fn only_who_knows_a_token_is_greeted_and_the_handler_learns_who() {
    let server = ServerProcess::start(AUTH);
    let ended = run(AUTH, &["client", &server.uri, "sesame"]);
    assert_eq!(ended.stdout, "Hello world, says Ali!\n");
    assert_eq!(ended.code, Some(0));

    let ended = run(AUTH, &["client", &server.uri, "guess"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("UNAUTHENTICATED"), "{ended:?}");
    assert!(ended.stderr.contains("the token is not known"), "{ended:?}");

    let ended = run(AUTH, &["client", &server.uri]);
    assert!(ended.stderr.contains("a token is needed"), "{ended:?}");
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn a_token_that_no_metadata_can_hold_is_refused_before_the_call() {
    let ended = run(AUTH, &["client", "homa+udp://127.0.0.1:1", "two\nlines"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("INVALID_ARGUMENT"), "{ended:?}");
}
