//! The Linux Homa module between two machines: an echo server and what checks it.
//!
//! ```text
//! kernel serve PORT                  answers every request with its own bytes
//! kernel check ADDRESS:PORT [CALLS]  runs the conformance suite, with CALLS (1000) at a time
//! kernel probe                       says whether the module is there and can be used
//! ```
//!
//! A program that runs anywhere: `cargo build --release -p homa-transport --example kernel --target
//! x86_64-unknown-linux-gnu` with `RUSTFLAGS="-C target-feature=+crt-static"`.

#[path = "../tests/conformance/mod.rs"]
mod conformance;

use std::error::Error;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use homa_transport::{Config, KernelSocket, Transport};

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["probe"] => {
            KernelSocket::probe()?;
            println!("the Linux Homa module is there and can be used");
            Ok(())
        }
        ["serve", port] => serve(port.parse()?).await,
        ["check", server] => check(server.parse()?, 1_000).await,
        ["check", server, calls] => check(server.parse()?, calls.parse()?).await,
        _ => Err("usage: kernel probe | serve PORT | check ADDRESS:PORT [CALLS]".into()),
    }
}

async fn serve(port: u16) -> Result<(), Failure> {
    let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let socket = KernelSocket::bind(addr, Config::default())?;
    socket.serve(Arc::new(conformance::echo))?;
    println!("serving on {}", socket.local_addr());
    let reason = std::future::poll_fn(|cx| socket.poll_closed(cx)).await;
    Err(reason.into())
}

async fn check(server: SocketAddr, calls: usize) -> Result<(), Failure> {
    let socket = KernelSocket::client(Config::default())?;
    println!("calling {server} from port {}", socket.local_addr().port());
    let client: Arc<dyn Transport> = Arc::new(socket);
    conformance::refusals(&client, server)?;
    println!("refusals: right");
    conformance::sizes(&client, server).await?;
    println!("sizes: exact");
    conformance::slices(&client, server).await?;
    println!("a message in 1500 slices: exact");
    conformance::concurrent(&client, server, calls).await?;
    println!("{calls} calls at a time: exact");
    conformance::given_up(&client, server).await?;
    println!("calls given up: others undisturbed");
    conformance::kept(&client, server, 8 << 20).await?;
    println!("answers kept: unchanged, others undisturbed");
    for (name, _, value) in client.stats().iter().filter(|(_, _, value)| *value > 0) {
        println!("  {name} {value}");
    }
    Ok(())
}
