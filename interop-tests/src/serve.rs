//! `homa-interop serve`.

use std::future::poll_fn;
use std::io;

use homa_interop::echo::EchoServer;
use homa_interop::wire::Uri;
use homa_transport::Config;
use tokio::signal::unix::{SignalKind, signal};

use crate::{FAILED, GOOD, NOT_STARTED, print_stats};

/// Echoes until it is told to stop. Returns the exit status.
pub(crate) async fn run(uri: &Uri, stats: bool) -> u8 {
    let server = match EchoServer::open(uri, &Config::default()).await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("homa-interop: cannot listen on {uri}: {error}");
            return NOT_STARTED;
        }
    };
    println!("listening on {}", server.uri());
    let code = tokio::select! {
        reason = poll_fn(|cx| server.transport().poll_closed(cx)) => {
            eprintln!("homa-interop: {reason}");
            FAILED
        }
        result = told_to_stop() => match result {
            Ok(()) => GOOD,
            Err(error) => {
                eprintln!("homa-interop: cannot wait for signals: {error}");
                FAILED
            }
        }
    };
    let totals = server.totals();
    println!("{} requests, {} bytes", totals.requests, totals.bytes);
    if stats {
        print_stats(&server.transport().stats());
    }
    // Sends the acks that it owes: a server of the kernel module would ask for them for ever.
    server.stop();
    code
}

async fn told_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}
