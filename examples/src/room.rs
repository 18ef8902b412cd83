//! [`Room`]: the service of the example `chat`.
//!
//! What is said goes into one ring of [`LINES_KEPT`] messages, from which each member's task reads at its own
//! pace. So a member that reads slowly holds up nobody and costs no memory: it is told how many messages it
//! has missed, and goes on with the latest.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homa_rpc::{BoxStream, Request, Response, Status, Streaming};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::chat::chat_server::Chat;
use crate::chat::{FromMember, Line, Members, ToMember, from_member, to_member::What};

/// Messages that a member may be behind.
pub const LINES_KEPT: usize = 128;
const NAME_BYTES_MAX: usize = 100;
const TEXT_BYTES_MAX: usize = 10_000;

/// A room in which people talk. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Room {
    /// The lock is held while members come and go, so that each sees the others in order.
    members: Arc<Mutex<BTreeSet<String>>>,
    said: broadcast::Sender<Said>,
}

/// Something for all members but one.
#[derive(Clone, Debug)]
struct Said {
    by: Arc<str>,
    what: What,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            members: Arc::default(),
            said: broadcast::Sender::new(LINES_KEPT),
        }
    }
}

impl Room {
    /// No method panics while it holds the lock, so what is in there is whole.
    fn members(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, by: &Arc<str>, what: What) {
        let by = Arc::clone(by);
        // It fails if nobody is there.
        let _nobody = self.said.send(Said { by, what });
    }

    /// Lets a member in, who is told of the others.
    fn enter(&self, name: String) -> Result<(Member, What), Status> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            let text = format!("a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len());
            return Err(Status::invalid_argument(text));
        }
        let mut members = self.members();
        let names: Vec<String> = members.iter().cloned().collect();
        if !members.insert(name.clone()) {
            return Err(Status::already_exists(format!("{name:?} is here already")));
        }
        let by = Arc::from(name.as_str());
        self.say(&by, What::Came(name));
        let member = Member {
            room: self.clone(),
            hears: self.said.subscribe(),
            name: by,
        };
        Ok((member, What::Here(Members { names })))
    }
}

#[homa_rpc::async_trait]
impl Chat for Room {
    type TalkStream = BoxStream<ToMember>;

    async fn talk(
        &self,
        request: Request<Streaming<FromMember>>,
    ) -> Result<Response<Self::TalkStream>, Status> {
        let mut says = request.into_inner();
        let first = says.message().await?.and_then(|first| first.what);
        let Some(from_member::What::Name(name)) = first else {
            return Err(Status::invalid_argument("expected a name first"));
        };
        let (member, here) = self.enter(name)?;
        // What is on its way to the member; all else waits in the ring.
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(member.stay(says, here, tell));
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

/// Somebody in the room. Dropped, it has left.
struct Member {
    room: Room,
    name: Arc<str>,
    hears: broadcast::Receiver<Said>,
}

impl Member {
    /// Until the member ends its side, says something wrong, or is gone.
    async fn stay(
        mut self,
        mut says: Streaming<FromMember>,
        here: What,
        tell: mpsc::Sender<Result<ToMember, Status>>,
    ) {
        let mut next = Some(Ok(here));
        loop {
            if let Some(what) = next.take() {
                let failed = what.is_err();
                let message = what.map(|what| ToMember { what: Some(what) });
                if tell.send(message).await.is_err() || failed {
                    return;
                }
            }
            tokio::select! {
                said = says.message() => match said {
                    Ok(Some(said)) => next = self.takes(said).err().map(Err),
                    Ok(None) | Err(_) => return,
                },
                heard = self.hears.recv() => match heard {
                    Ok(said) if said.by == self.name => {}
                    Ok(said) => next = Some(Ok(said.what)),
                    Err(RecvError::Lagged(missed)) => next = Some(Ok(What::Missed(missed))),
                    Err(RecvError::Closed) => return,
                },
                () = tell.closed() => return,
            }
        }
    }

    /// Passes on what the member says.
    fn takes(&self, said: FromMember) -> Result<(), Status> {
        let Some(from_member::What::Text(text)) = said.what else {
            return Err(Status::invalid_argument("expected a text after the name"));
        };
        if text.len() > TEXT_BYTES_MAX {
            let bytes = text.len();
            let text = format!("a text has at most {TEXT_BYTES_MAX} bytes, not {bytes}");
            return Err(Status::invalid_argument(text));
        }
        let name = self.name.to_string();
        self.room.say(&self.name, What::Line(Line { name, text }));
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.room.members();
        members.remove(&*self.name);
        self.room.say(&self.name, What::Left(self.name.to_string()));
    }
}
