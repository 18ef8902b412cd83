//! Runs the example programs as processes of their own.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A server in a process of its own, on a port it chose. Dropped, it is killed.
pub(crate) struct ServerProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) uri: String,
}

impl ServerProcess {
    /// Starts `program server homa+udp://127.0.0.1:0` and reads its address from what it prints.
    pub(crate) fn start(program: &str) -> Self {
        let mut child = Command::new(program)
            .args(["server", "homa+udp://127.0.0.1:0"])
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .next()
            .expect("the server ended before it printed its address")
            .unwrap();
        let uri = line.strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, lines, uri }
    }

    /// Sends what Ctrl-C sends, waits, and gives the exit code. The server must print nothing more.
    pub(crate) fn interrupt(self) -> Option<i32> {
        self.signal("-INT")
    }

    /// The same with another signal.
    pub(crate) fn signal(mut self, signal: &str) -> Option<i32> {
        let kill = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let code = self.child.wait().unwrap().code();
        assert!(self.lines.next().is_none());
        code
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program that has ended left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `program` to its end, without logs.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Ended {
    run_logging(program, arguments, "off")
}

/// Runs `program` to its end with this `RUST_LOG`.
pub(crate) fn run_logging(program: &str, arguments: &[&str], filter: &str) -> Ended {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("RUST_LOG", filter).output();
    let output = output.unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
