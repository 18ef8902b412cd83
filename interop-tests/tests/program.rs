//! The program `homa-interop`, as others run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use homa_interop::network::{Layout, Network, NetworkError};
use homa_interop::skip;
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_homa-interop");

/// A server, killed when the test is over.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    uri: String,
}

impl Server {
    fn start(mut command: Command, uri: &str) -> Self {
        let mut child = command
            .args(["serve", uri])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let uri = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        Self { child, output, uri }
    }

    /// Tells it to stop, and returns what else it printed and whether it ended well.
    fn stop(mut self) -> (String, bool) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(mut command: Command, uri: &str, options: &[&str]) -> Output {
    command.args(["check", uri]).args(options).output().unwrap()
}

#[test]
fn check_finds_nothing_wrong_with_serve() {
    let server = Server::start(Command::new(PROGRAM), "homa+udp://127.0.0.1:0");
    let options = [
        "--max-size",
        "30000",
        "--count",
        "100",
        "--concurrency",
        "10",
    ];
    let output = check(Command::new(PROGRAM), &server.uri, &options);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("100 calls"), "{text}");
    let (rest, success) = server.stop();
    assert!(success);
    // 15 sizes up to 10,001, the longest, and the 100.
    assert!(rest.contains("121 requests"), "{rest}");
}

#[test]
fn serve_and_check_work_between_hosts() {
    let test = "serve_and_check_work_between_hosts";
    let network = match Network::build(&Layout::default()) {
        Ok(network) => network,
        Err(NetworkError::Unavailable(reason)) => return skip::report(test, reason),
        Err(error) => panic!("{error}"),
    };
    let [server_host, client_host] = [network.host(0), network.host(1)];
    for ip in [server_host.v4(), server_host.v6()] {
        let uri = format!("homa+udp://{}", std::net::SocketAddr::new(ip, 4000));
        let server = Server::start(server_host.command(PROGRAM), &uri);
        assert_eq!(server.uri, uri);
        let output = check(client_host.command(PROGRAM), &uri, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(server.stop().1);
    }
}

#[test]
fn a_server_that_is_not_there_fails_the_check() {
    // Nobody listens on port 1 of this address.
    let output = check(Command::new(PROGRAM), "homa+udp://127.1.2.3:1", &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("FAILED") && text.contains("127.1.2.3:1"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_tried_is_told_from_what_fails() {
    for (uri, expected) in [
        ("homa+udp://127.0.0.1", "host:port"),
        ("homa+udp://127.0.0.1:x", "127.0.0.1:x"),
        ("homa+mem://name", "one process"),
    ] {
        let output = check(Command::new(PROGRAM), uri, &[]);
        assert_eq!(output.status.code(), Some(2), "{uri}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(expected), "{text}");
    }
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("exit status"));
}
