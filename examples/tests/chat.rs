//! The `chat` program, run as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use process::{ServerProcess, run};

const CHAT: &str = env!("CARGO_BIN_EXE_chat");

/// A client in a process of its own. Dropped, it is killed.
struct ClientProcess {
    child: Child,
    /// `None` once its stdin is closed.
    says: Option<ChildStdin>,
    hears: Lines<BufReader<ChildStdout>>,
}

impl ClientProcess {
    fn start(name: &str, uri: &str) -> Self {
        let mut child = Command::new(CHAT)
            .args(["client", name, uri])
            .env("RUST_LOG", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = child.stdin.take();
        let hears = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, says, hears }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.says.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        self.hears.next().unwrap().unwrap()
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_people_talk_and_leave() {
    let server = ServerProcess::start(CHAT);
    let mut ann = ClientProcess::start("Ann", &server.uri);
    assert_eq!(ann.hear(), "* nobody else is here");
    let mut ben = ClientProcess::start("Ben", &server.uri);
    assert_eq!(ben.hear(), "* here: Ann");
    assert_eq!(ann.hear(), "* Ben came");
    ann.say("hello");
    assert_eq!(ben.hear(), "Ann: hello");
    ben.say("good bye");
    assert_eq!(ann.hear(), "Ben: good bye");

    // The end of stdin is the end of the call.
    ben.says = None;
    assert_eq!(ben.child.wait().unwrap().code(), Some(0));
    assert_eq!(ann.hear(), "* Ben left");

    let taken = run(CHAT, &["client", "Ann", &server.uri]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("ALREADY_EXISTS"), "{taken:?}");
    drop(ann);
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn a_slow_reader_is_told_what_it_missed_and_nobody_else_misses_anything() {
    let ended = run(CHAT, &["demo"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    let numbers: Vec<u64> = ended
        .stdout
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [said, ben_heard, cid_heard, cid_missed] = numbers[..] else {
        panic!("{ended:?}");
    };
    assert_eq!(ben_heard, said);
    assert_eq!(cid_heard + cid_missed, said);
    assert!(cid_missed > 0, "{ended:?}");
}

#[test]
fn help_and_wrong_arguments_give_the_usage() {
    let ended = run(CHAT, &["--help"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.starts_with("usage: chat server"));
    for arguments in [&[][..], &["client"], &["demo", "x"]] {
        let ended = run(CHAT, arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("usage: chat "), "{ended:?}");
    }
}
