//! A server process that is killed with SIGKILL while it works, and another one on its port.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use homa_rpc::{Channel, Code, Delivery, Request, Response, Server};
use support::{EchoClient, Msg, handler};
use tokio::task::JoinSet;

/// Where the server process is to listen.
const LISTEN: &str = "HOMA_TEST_LISTEN";
/// What it says when it does.
const LISTENING: &str = "listening on ";

/// Echoes; a message "hang" is never answered, "hanging" with the number of those.
#[test]
#[ignore = "the server process of the other tests, which start it"]
fn server_process() {
    let uri = std::env::var(LISTEN).expect("started by one of the other tests");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let hanging = Arc::new(AtomicUsize::new(0));
        let service = handler(move |request: Request<Msg>| {
            let hanging = Arc::clone(&hanging);
            async move {
                match request.get_ref().text() {
                    "hang" => {
                        hanging.fetch_add(1, Ordering::SeqCst);
                        pending().await
                    }
                    "hanging" => {
                        let number = hanging.load(Ordering::SeqCst).to_string();
                        Ok(Response::new(Msg::of(&number)))
                    }
                    _ => Ok(Response::new(request.into_inner())),
                }
            }
        });
        let bound = Server::builder().add_service(service).bind(uri).unwrap();
        println!("{LISTENING}{}", bound.local_uris()[0]);
        bound.serve().await.unwrap();
    });
}

/// A server in a process of its own. Dropped, it is killed.
struct ServerProcess {
    child: Child,
    uri: String,
}

impl ServerProcess {
    fn start(listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "server_process", "--nocapture"])
            .env(LISTEN, listen)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let uri = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once(LISTENING)?.1.to_owned()))
            .expect("the server ended before it said where it listens");
        Self { child, uri }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends another signal, by its name as an option of `kill`.
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let kill = Command::new("kill").args([name, &id]).status();
        assert!(kill.unwrap().success());
    }

    /// SIGSTOP, and waits until all of its threads have stopped: on a busy machine they go on for a while.
    fn suspend(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else {
                return true; // It has ended.
            };
            // The state follows the name, which is in parentheses. Source: proc_pid_stat(5).
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
            std::thread::yield_now();
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn within(text: &str, timeout: Duration) -> Request<Msg> {
    let mut request = Request::new(Msg::of(text));
    request.set_timeout(timeout);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_outlives_a_server_that_is_killed_under_load_and_each_gets_the_right_code() {
    const CALLERS: usize = 64;
    /// Far longer than it takes to notice that the server is gone.
    const TIMEOUT: Duration = Duration::from_secs(60);
    let mut server = ServerProcess::start("homa+udp://127.0.0.1:0");
    let echo = EchoClient::new(Channel::new(&server.uri).unwrap());
    let answered = Arc::new(AtomicUsize::new(0));

    // Each goes on until its first call after the kill has failed.
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (echo, answered) = (echo.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            loop {
                match echo.say(within("x", TIMEOUT)).await {
                    Ok(reply) => assert_eq!(reply.get_ref().text(), "x"),
                    Err(status) => return status,
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    // Some hang in their handlers, with little time or with much.
    let mut hanging = JoinSet::new();
    for number in 0..CALLERS {
        let timeout = if number % 2 == 0 {
            TIMEOUT
        } else {
            Duration::from_millis(1)
        };
        let call = echo.say(within("hang", timeout));
        hanging.spawn(async move { (timeout, call.await.unwrap_err()) });
    }
    while answered.load(Ordering::SeqCst) < 20 * CALLERS {
        assert!(callers.try_join_next().is_none(), "no call fails before");
        tokio::task::yield_now().await;
    }
    server.kill();

    while let Some(status) = callers.join_next().await {
        let status = status.unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    while let Some(ended) = hanging.join_next().await {
        let (timeout, status) = ended.unwrap();
        if timeout == TIMEOUT {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert_eq!(
                status.delivery(),
                Delivery::Unknown,
                "it was executed: {status}"
            );
        } else {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
    }
    let status = echo.say(within("x", TIMEOUT)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(status.delivery(), Delivery::NotSent, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_restarted_on_the_same_port_is_called_by_the_same_channel() {
    let mut first = ServerProcess::start("homa+udp://127.0.0.1:0");
    let echo = EchoClient::new(Channel::new(&first.uri).unwrap());
    assert!(echo.say(Msg::of("first")).await.is_ok());
    for _ in 0..3 {
        first.kill();
        let next = ServerProcess::start(&first.uri);
        let reply = echo.say(Msg::of("again")).await.unwrap();
        assert_eq!(reply.get_ref().text(), "again");
        first = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_server_is_restarted_fails_and_the_new_server_does_not_execute_it() {
    let mut server = ServerProcess::start("homa+udp://127.0.0.1:0");
    let channel = Channel::new(&server.uri).unwrap();
    let echo = EchoClient::new(channel.clone());
    let call = tokio::spawn(echo.say(Msg::of("hang")));
    while hanging(&echo).await != "1" {}
    // The client asks for the response and hears that the server has the request. One who had heard
    // nothing would send it again, to the new server.
    let packets = channel.stats().packets_received + 5;
    while channel.stats().packets_received < packets {
        tokio::task::yield_now().await;
    }
    server.kill();
    let _next = ServerProcess::start(&server.uri);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(status.delivery(), Delivery::Unknown, "{status}");
    assert_eq!(hanging(&echo).await, "0");
}

async fn hanging(echo: &EchoClient) -> String {
    let reply = echo.say(Msg::of("hanging")).await.unwrap();
    reply.get_ref().text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_server_that_is_stopped_end_at_their_deadlines_and_it_serves_when_continued() {
    let server = ServerProcess::start("homa+udp://127.0.0.1:0");
    let echo = EchoClient::new(Channel::new(&server.uri).unwrap());
    assert!(echo.say(Msg::of("before")).await.is_ok());
    server.suspend();
    let mut calls = JoinSet::new();
    for number in 0..200 {
        calls.spawn(echo.say(within("x", Duration::from_micros(100 * (number + 1)))));
    }
    while let Some(call) = calls.join_next().await {
        let status = call.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    server.signal("-CONT");
    let reply = echo.say(Msg::of("after")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "after");
}
