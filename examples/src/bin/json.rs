//! A service without a `.proto` file, whose messages are JSON. The codec is in `src/json.rs`, the
//! service is described in `build.rs`.

use std::process::ExitCode;

use homa_examples::{
    cli::{self, WrongArguments},
    json::{
        Arithmetic, Numbers,
        generated::{statistics_client::StatisticsClient, statistics_server::StatisticsServer},
    },
};
use homa_rpc::{Channel, Server};

const USAGE: &str = "\
usage: json server [URI]
       json client URI NUMBER...
URI of the server is homa+udp://127.0.0.1:4002 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4002";

async fn client(uri: &str, words: &[&str]) -> cli::Result {
    let numbers = words
        .iter()
        .map(|word| cli::parse(word, "a number"))
        .collect::<Result<_, _>>()?;
    let client = StatisticsClient::new(Channel::new(uri)?);
    let summary = client.summarize(Numbers { numbers }).await?.into_inner();
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

async fn json(words: &[&str]) -> cli::Result {
    let server = || Server::builder().add_service(StatisticsServer::new(Arithmetic));
    match *words {
        ["server"] => cli::serve(server().bind(DEFAULT_URI)?).await,
        ["server", uri] => cli::serve(server().bind(uri)?).await,
        ["client", uri, ref numbers @ ..] => client(uri, numbers).await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(json, "json", USAGE).await
}
