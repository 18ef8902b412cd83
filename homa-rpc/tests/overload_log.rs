//! What a server that turns calls away writes to the log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use homa_rpc::{Code, Request, Response, Server};
use support::{Msg, Wire, handler, run};
use tokio::sync::Notify;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines about refused calls.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains("calls refused"));
        lines.map(str::to_owned).collect()
    }
}

/// Runs on one thread, whose log this is, in virtual time.
#[tokio::test(start_paused = true)]
async fn calls_over_a_limit_are_one_line_with_their_number() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (go, come) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = handler({
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        move |request: Request<Msg>| {
            let (go, come) = (Arc::clone(&go), Arc::clone(&come));
            async move {
                come.notify_one();
                go.notified().await;
                Ok(Response::new(request.into_inner()))
            }
        }
    });
    let server = Server::builder().add_service(service).concurrency_limit(1);
    let running = run(server, Wire::Mem.pair());
    let only = tokio::spawn(running.echo().say(Msg::of("only")));
    come.notified().await;
    for _ in 0..5 {
        let status = running.echo().say(Msg::of("one more")).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
    go.notify_one();
    only.await.unwrap().unwrap();
    while log.lines().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines = log.lines();
    assert!(lines[0].contains("WARN"), "{lines:?}");
    assert!(lines[0].ends_with("concurrency_limit 5"), "{lines:?}");
    assert_eq!(lines.len(), 1);
}
