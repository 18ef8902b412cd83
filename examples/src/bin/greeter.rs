//! A greeting from a server to a client.

use std::{process::ExitCode, time::Duration};

use homa_examples::{
    cli::{self, WrongArguments},
    helloworld::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use homa_rpc::{Channel, Request, Response, Server, Status};
use tokio::{sync::oneshot, time::Instant};

const USAGE: &str = "\
usage: greeter server [URI]          serve until Ctrl-C
       greeter client [URI] [NAME]   ask for one greeting
       greeter both                  do both in one process, on a free port
URI is homa+udp://127.0.0.1:4000 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4000";
const TIMEOUT: Duration = Duration::from_secs(2);
const CALLS: usize = 100;

struct Polite;

#[homa_rpc::async_trait]
impl Greeter for Polite {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        if name.is_empty() {
            return Err(Status::invalid_argument("the name must not be empty"));
        }
        Ok(Response::new(HelloReply {
            message: format!("Hello {name}!"),
        }))
    }
}

async fn greet(client: &GreeterClient, name: &str) -> Result<String, Status> {
    let mut request = Request::new(HelloRequest {
        name: name.to_owned(),
    });
    request.set_timeout(TIMEOUT);
    Ok(client.say_hello(request).await?.into_inner().message)
}

async fn ask(uri: &str, name: &str) -> cli::Result {
    let client = GreeterClient::new(Channel::new(uri)?);
    println!("{}", greet(&client, name).await?);
    Ok(())
}

async fn both() -> cli::Result {
    let server = Server::builder().add_service(GreeterServer::new(Polite));
    let server = server.bind("homa+udp://127.0.0.1:0")?;
    let uri = server
        .local_uris()
        .into_iter()
        .next()
        .ok_or("the server has no address")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));

    let client = GreeterClient::new(Channel::new(&uri)?);
    println!("{} (over {uri})", greet(&client, "Homa").await?);
    let mut round_trips = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        greet(&client, "Homa").await?;
        round_trips.push(start.elapsed());
    }
    round_trips.sort_unstable();
    if let (Some(best), Some(median)) = (round_trips.first(), round_trips.get(CALLS / 2)) {
        println!("round trip: {median:.1?} median, {best:.1?} best of {CALLS} calls");
    }
    drop(stop);
    serving.await??;
    Ok(())
}

async fn greeter(words: &[&str]) -> cli::Result {
    let server = || Server::builder().add_service(GreeterServer::new(Polite));
    match *words {
        ["server"] => cli::serve(server().bind(DEFAULT_URI)?).await,
        ["server", uri] => cli::serve(server().bind(uri)?).await,
        ["client"] => ask(DEFAULT_URI, "world").await,
        ["client", uri] => ask(uri, "world").await,
        ["client", uri, name] => ask(uri, name).await,
        ["both"] => both().await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(greeter, "greeter", USAGE).await
}
