//! The service of the example `chat`, called directly.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use homa_examples::chat::{
    FromMember, ToMember, chat_client::ChatClient, chat_server::ChatServer, from_member,
    to_member::What,
};
use homa_examples::room::{LINES_KEPT, Room};
use homa_rpc::{Code, Status, Streaming};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Client = ChatClient<ChatServer<Room>>;

fn room() -> Client {
    ChatClient::new(ChatServer::new(Room::default()))
}

fn name(name: &str) -> from_member::What {
    from_member::What::Name(name.to_owned())
}

fn text(text: &str) -> from_member::What {
    from_member::What::Text(text.to_owned())
}

struct Member {
    says: mpsc::Sender<FromMember>,
    hears: Streaming<ToMember>,
}

impl Member {
    /// Joins by saying `first`.
    async fn begin(client: &Client, first: from_member::What) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(1);
        says.send(FromMember { what: Some(first) }).await.unwrap();
        let hears = client.talk(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { says, hears })
    }

    async fn join(client: &Client, called: &str) -> Self {
        Self::begin(client, name(called)).await.unwrap()
    }

    async fn say(&self, what: from_member::What) {
        self.says
            .send(FromMember { what: Some(what) })
            .await
            .unwrap();
    }

    /// What comes next, in one word or two.
    async fn hear(&mut self) -> String {
        match self.hears.message().await.unwrap().unwrap().what.unwrap() {
            What::Here(members) => format!("here {}", members.names.join(",")),
            What::Came(name) => format!("came {name}"),
            What::Left(name) => format!("left {name}"),
            What::Line(line) => format!("{} {}", line.name, line.text),
            What::Missed(count) => format!("missed {count}"),
        }
    }
}

#[tokio::test]
async fn members_hear_the_others_and_who_comes_and_goes() {
    let client = room();
    let mut ann = Member::join(&client, "Ann").await;
    assert_eq!(ann.hear().await, "here ");
    let mut ben = Member::join(&client, "Ben").await;
    assert_eq!(ben.hear().await, "here Ann");
    assert_eq!(ann.hear().await, "came Ben");
    let mut cid = Member::join(&client, "Cid").await;
    assert_eq!(cid.hear().await, "here Ann,Ben");

    ann.say(text("hello")).await;
    assert_eq!(cid.hear().await, "Ann hello");
    assert_eq!(ben.hear().await, "came Cid");
    assert_eq!(ben.hear().await, "Ann hello");
    ben.say(text("hi")).await;
    // Not her own words.
    assert_eq!(ann.hear().await, "came Cid");
    assert_eq!(ann.hear().await, "Ben hi");

    // One ends its side, and its call ends; the other is just gone.
    drop(ben.says);
    assert_eq!(ben.hears.message().await.unwrap(), None);
    assert_eq!(ann.hear().await, "left Ben");
    drop(cid);
    assert_eq!(ann.hear().await, "left Cid");
    let mut ben = Member::join(&client, "Ben").await;
    assert_eq!(ben.hear().await, "here Ann");
}

#[tokio::test]
async fn who_begins_wrong_is_not_let_in() {
    let client = room();
    let _ann = Member::join(&client, "Ann").await;
    for (first, code) in [
        (text("hello"), Code::InvalidArgument),
        (name(""), Code::InvalidArgument),
        (name(&"x".repeat(101)), Code::InvalidArgument),
        (name("Ann"), Code::AlreadyExists),
    ] {
        let status = Member::begin(&client, first.clone()).await.err().unwrap();
        assert_eq!(status.code(), code, "{first:?}: {status}");
    }
    let silent = client.talk(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(silent.code(), Code::InvalidArgument);
    let mut ben = Member::join(&client, &"x".repeat(100)).await;
    assert_eq!(ben.hear().await, "here Ann");
}

#[tokio::test]
async fn who_says_something_wrong_leaves() {
    let client = room();
    let mut ann = Member::join(&client, "Ann").await;
    assert_eq!(ann.hear().await, "here ");
    for wrong in [text(&"x".repeat(10_001)), name("Bob")] {
        let mut ben = Member::join(&client, "Ben").await;
        assert_eq!(ben.hear().await, "here Ann");
        assert_eq!(ann.hear().await, "came Ben");
        ben.say(text(&"x".repeat(10_000))).await;
        assert_eq!(ann.hear().await.len(), "Ben ".len() + 10_000);
        ben.say(wrong).await;
        let status = ben.hears.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(ann.hear().await, "left Ben");
    }
}

#[tokio::test]
async fn a_slow_reader_misses_lines_and_nobody_else_does() {
    const LINES: usize = 1_000;
    let client = room();
    let mut slow = Member::join(&client, "Slow").await;
    let mut ben = Member::join(&client, "Ben").await;
    assert_eq!(ben.hear().await, "here Slow");
    let ann = Member::join(&client, "Ann").await;
    assert_eq!(ben.hear().await, "came Ann");
    for line in 0..LINES {
        ann.say(text(&line.to_string())).await;
        assert_eq!(ben.hear().await, format!("Ann {line}"));
    }

    let (mut heard, mut missed) = (0, 0);
    let mut next = 0;
    assert_eq!(slow.hear().await, "here ");
    while next < LINES {
        let told = slow.hear().await;
        if let Some(count) = told.strip_prefix("missed ") {
            missed += count.parse::<usize>().unwrap();
        } else if let Some(line) = told.strip_prefix("Ann ") {
            // In order, whatever is missing.
            let line: usize = line.parse().unwrap();
            assert!(line >= next, "{line} after {next}");
            next = line + 1;
            heard += 1;
        } else {
            // "came Ben" and "came Ann", if they were not missed.
            heard += 1;
        }
    }
    assert_eq!(heard + missed, LINES + 2);
    assert!(
        missed >= LINES - 2 * LINES_KEPT,
        "only {missed} were missed"
    );
    // It has caught up.
    ann.say(text("the latest")).await;
    assert_eq!(slow.hear().await, "Ann the latest");
}
