//! A token in the metadata of each call: the client's interceptor adds it, the server's asks for it.
//!
//! Nothing is encrypted: whoever sees the packets can read the token.

use std::process::ExitCode;

use homa_examples::{
    cli::{self, WrongArguments},
    helloworld::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use homa_rpc::{Channel, Request, Response, Server, Status};

const USAGE: &str = "\
usage: auth server [URI]         serve users who know a token: until Ctrl-C
       auth client URI [TOKEN]   ask for one greeting
URI of the server is homa+udp://127.0.0.1:4003 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4003";
const AUTHORIZATION: &str = "authorization";
/// Who may call, by token. A real server would ask somebody.
const USERS: [(&str, &str); 2] = [
    ("Bearer sesame", "Ali"),
    ("Bearer rumpelstiltskin", "Queen"),
];

/// Who calls: the interceptor finds it out, the handler reads it.
#[derive(Clone, Copy, Debug)]
struct User(&'static str);

/// Runs before every call of the server.
fn check(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = request
        .metadata()
        .get(AUTHORIZATION)
        .ok_or_else(|| Status::unauthenticated("a token is needed"))?;
    let user = USERS
        .iter()
        .find(|&&(known, _)| known == token)
        .ok_or_else(|| Status::unauthenticated("the token is not known"))?;
    request.extensions_mut().insert(User(user.1));
    Ok(request)
}

struct Personal;

#[homa_rpc::async_trait]
impl Greeter for Personal {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let user = request.extensions().get::<User>();
        let User(user) = user.ok_or_else(|| Status::internal("no interceptor"))?;
        let message = format!("Hello {}, says {user}!", request.get_ref().name);
        Ok(Response::new(HelloReply { message }))
    }
}

async fn client(uri: &str, token: Option<&str>) -> cli::Result {
    let token = token.map(|token| format!("Bearer {token}"));
    let add_token = move |mut request: Request<()>| {
        if let Some(token) = &token {
            let added = request.metadata_mut().insert(AUTHORIZATION, token);
            added.map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        Ok(request)
    };
    let client = GreeterClient::with_interceptor(Channel::new(uri)?, add_token);
    let request = HelloRequest {
        name: "world".to_owned(),
    };
    println!("{}", client.say_hello(request).await?.into_inner().message);
    Ok(())
}

async fn auth(words: &[&str]) -> cli::Result {
    let server = || Server::builder().add_service(GreeterServer::with_interceptor(Personal, check));
    match *words {
        ["server"] => cli::serve(server().bind(DEFAULT_URI)?).await,
        ["server", uri] => cli::serve(server().bind(uri)?).await,
        ["client", uri] => client(uri, None).await,
        ["client", uri, token] => client(uri, Some(token)).await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(auth, "auth", USAGE).await
}
