//! A small store: errors by status, metadata, deadlines. The service is in `src/store.rs`.

use std::{process::ExitCode, time::Duration};

use homa_examples::{
    cli::{self, WrongArguments},
    keyvalue::{
        DeleteRequest, GetRequest, ListRequest, PutRequest, key_value_client::KeyValueClient,
        key_value_server::KeyValueServer,
    },
    store::{REQUEST_ID, Store, VERSION},
};
use homa_rpc::{Channel, Request, Response, Server};

const USAGE: &str = "\
usage: keyvalue server [URI]
       keyvalue client URI get KEY
       keyvalue client URI put KEY VALUE [EXPECTED_VERSION]
       keyvalue client URI delete KEY
       keyvalue client URI list [PREFIX [LIMIT]]
URI of the server is homa+udp://127.0.0.1:4001 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4001";
const TIMEOUT: Duration = Duration::from_secs(2);

/// A request with a time limit, and an id by which the server's answer can be recognised.
fn request<T>(message: T) -> cli::Result<Request<T>> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
        .metadata_mut()
        .insert(REQUEST_ID, &std::process::id().to_string())?;
    Ok(request)
}

fn version<T>(response: &Response<T>) -> &str {
    response.metadata().get(VERSION).unwrap_or("unknown")
}

async fn client(uri: &str, command: &[&str]) -> cli::Result {
    let client = KeyValueClient::new(Channel::new(uri)?);
    match *command {
        ["get", key] => {
            let response = client
                .get(request(GetRequest {
                    key: key.to_owned(),
                })?)
                .await?;
            let value = String::from_utf8_lossy(&response.get_ref().value);
            println!("{value} (version {})", version(&response));
        }
        ["put", key, value, ref expected @ ..] if expected.len() <= 1 => {
            let expected_version = expected
                .first()
                .map(|version| cli::parse(version, "a version, which is a whole number"))
                .transpose()?;
            let (key, value) = (key.to_owned(), value.as_bytes().to_vec());
            let put = PutRequest {
                key,
                value,
                expected_version,
            };
            println!("version {}", version(&client.put(request(put)?).await?));
        }
        ["delete", key] => {
            client
                .delete(request(DeleteRequest {
                    key: key.to_owned(),
                })?)
                .await?;
            println!("deleted");
        }
        ["list", ref arguments @ ..] if arguments.len() <= 2 => {
            let prefix = arguments.first().copied().unwrap_or_default().to_owned();
            let limit = arguments.get(1);
            let limit = limit.map_or(Ok(0), |limit| {
                cli::parse(limit, "a limit, which is a whole number")
            })?;
            let list = ListRequest {
                prefix,
                limit,
                ..ListRequest::default()
            };
            let reply = client.list(request(list)?).await?.into_inner();
            for entry in reply.entries {
                println!("{} = {}", entry.key, String::from_utf8_lossy(&entry.value));
            }
            if reply.more {
                println!("...");
            }
        }
        _ => return Err(WrongArguments.into()),
    }
    Ok(())
}

async fn keyvalue(words: &[&str]) -> cli::Result {
    let server = || Server::builder().add_service(KeyValueServer::new(Store::default()));
    match *words {
        ["server"] => cli::serve(server().bind(DEFAULT_URI)?).await,
        ["server", uri] => cli::serve(server().bind(uri)?).await,
        ["client", uri, ref command @ ..] => client(uri, command).await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(keyvalue, "keyvalue", USAGE).await
}
