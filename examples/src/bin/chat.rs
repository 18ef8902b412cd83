//! A room in which people talk, each over one stream in both directions. The service is in `src/room.rs`.

use std::{io::BufRead as _, process::ExitCode, time::Duration};

use homa_examples::{
    chat::{
        FromMember, ToMember, chat_client::ChatClient, chat_server::ChatServer, from_member,
        to_member::What,
    },
    cli::{self, WrongArguments},
    room::Room,
};
use homa_rpc::{BoundServer, Channel, Server, Streaming};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

const USAGE: &str = "\
usage: chat server [URI]        serve until Ctrl-C
       chat client NAME [URI]   say each line of stdin, and show what others say
       chat demo                three members in one process, one of whom does not listen for a while
URI is homa+udp://127.0.0.1:4005 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4005";
/// Members never end their calls by themselves.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// More bytes than are ever on their way to a member.
const DEMO_LINES: usize = 5_000;
const DEMO_LINE_BYTES: usize = 2_000;

fn bind(uri: &str) -> cli::Result<BoundServer> {
    let server = Server::builder()
        .add_service(ChatServer::new(Room::default()))
        .drain_timeout(DRAIN_TIMEOUT);
    Ok(server.bind(uri)?)
}

/// A member's two directions.
struct Member {
    says: mpsc::Sender<FromMember>,
    hears: Streaming<ToMember>,
}

impl Member {
    async fn join(uri: &str, name: &str) -> cli::Result<Self> {
        let client = ChatClient::new(Channel::new(uri)?);
        let (says, said) = mpsc::channel(16);
        let what = Some(from_member::What::Name(name.to_owned()));
        says.send(FromMember { what }).await?;
        let hears = client.talk(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { says, hears })
    }

    async fn say(&self, text: String) -> cli::Result {
        let what = Some(from_member::What::Text(text));
        Ok(self.says.send(FromMember { what }).await?)
    }

    /// `None` once the call is over.
    async fn hear(&mut self) -> cli::Result<Option<What>> {
        Ok(self.hears.message().await?.and_then(|told| told.what))
    }
}

fn show(what: What) {
    match what {
        What::Here(members) if members.names.is_empty() => println!("* nobody else is here"),
        What::Here(members) => println!("* here: {}", members.names.join(", ")),
        What::Came(name) => println!("* {name} came"),
        What::Left(name) => println!("* {name} left"),
        What::Line(line) => println!("{}: {}", line.name, line.text),
        What::Missed(count) => println!("* {count} messages missed"),
    }
}

async fn client(name: &str, uri: &str) -> cli::Result {
    let Member { says, mut hears } = Member::join(uri, name).await?;
    // Reading stdin blocks: a thread of its own, which ends with the process if not before.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let what = Some(from_member::What::Text(line));
            if says.blocking_send(FromMember { what }).is_err() {
                return;
            }
        }
    });
    while let Some(told) = hears.message().await? {
        if let Some(what) = told.what {
            show(what);
        }
    }
    Ok(())
}

async fn demo() -> cli::Result {
    let server = bind("homa+udp://127.0.0.1:0")?;
    let uris = server.local_uris();
    let uri = uris.first().ok_or("the server has no address")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));

    let ann = Member::join(uri, "Ann").await?;
    let mut ben = Member::join(uri, "Ben").await?;
    let mut cid = Member::join(uri, "Cid").await?;
    let mut heard = 0;
    for number in 1..=DEMO_LINES {
        ann.say(format!("{number:>DEMO_LINE_BYTES$}")).await?;
        loop {
            match ben.hear().await?.ok_or("Ben's call is over")? {
                What::Line(_) => break heard += 1,
                What::Missed(count) => return Err(format!("Ben missed {count}").into()),
                _ => {}
            }
        }
    }
    println!("Ann said {DEMO_LINES} lines, Ben heard {heard}");

    let (mut heard, mut missed) = (0, 0);
    loop {
        match cid.hear().await?.ok_or("Cid's call is over")? {
            What::Line(line) if line.text.ends_with(&DEMO_LINES.to_string()) => break heard += 1,
            What::Line(_) => heard += 1,
            What::Missed(count) => missed += count,
            _ => {}
        }
    }
    println!("Cid, who listens only now, heard {heard} and was told of {missed} that were missed");
    drop((ann, ben, cid, stop));
    serving.await??;
    Ok(())
}

async fn chat(words: &[&str]) -> cli::Result {
    match *words {
        ["server"] => cli::serve(bind(DEFAULT_URI)?).await,
        ["server", uri] => cli::serve(bind(uri)?).await,
        ["client", name] => client(name, DEFAULT_URI).await,
        ["client", name, uri] => client(name, uri).await,
        ["demo"] => demo().await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(chat, "chat", USAGE).await
}
