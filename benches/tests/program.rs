//! The program `homa-bench`, as others run it: its exit statuses and what it says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn run(line: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_homa-bench"));
    program.args(line.split_whitespace()).output().unwrap()
}

#[test]
fn help_is_no_error_and_names_units_and_ranges() {
    for (line, part) in [
        ("--help", "instructions"),
        ("rpc --help", "Length of a round in seconds, 0.01 to 600"),
        ("simulate --help", "0.00001 to 100 seconds"),
        ("instructions --help", "needs the program `valgrind`"),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(part), "{line}: {text}");
    }
}

#[test]
fn wrong_arguments_are_told_from_what_fails() {
    for (line, status, part) in [
        ("", 2, "Usage"),
        ("dance", 2, "dance"),
        ("rpc --rounds x", 2, "expected 1 to 1000"),
        ("instructions --calls 1", 2, "expected 100 to 10000000"),
        ("rpc --cores 5000,5000", 1, "core 5000 cannot be used"),
        (
            "simulate --hosts 2 --seconds 0.00001 --json /no/such/folder/x",
            1,
            "cannot write",
        ),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(status), "{line}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(part), "{line}: {text}");
    }
}

#[test]
fn without_valgrind_it_says_that_it_cannot_count() {
    let output = Command::new(env!("CARGO_BIN_EXE_homa-bench"))
        .arg("instructions")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("cannot count instructions here: the program `valgrind`"),
        "{text}"
    );
}
