//! The calls that two endpoints make, and what may become of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::Random;
use homa_protocol::units::RpcId;
use homa_protocol::wire::MESSAGE_BYTES_MAX;

/// All calls of a case, by their cookie.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    by_id: HashMap<(SocketAddr, RpcId), usize>,
    /// Packets may say anything, so that contents and outcomes prove nothing.
    pub(super) forged: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    request_len: usize,
    response_len: Option<usize>,
    delivered: u32,
    pub(super) open: bool,
}

impl Calls {
    pub(super) fn new(forged: bool) -> Self {
        Self {
            forged,
            ..Self::default()
        }
    }

    /// Cookie of the next call.
    pub(super) const fn next(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn begin(&mut self, client: SocketAddr, server: SocketAddr, id: RpcId, len: usize) {
        let again = self.by_id.insert((client, id), self.calls.len());
        assert_eq!(again, None, "the id {id:?} is used twice");
        self.calls.push(Call {
            client,
            server,
            request_len: len,
            response_len: None,
            delivered: 0,
            open: true,
        });
    }

    /// The call `number` was given up: nothing more is heard of it.
    pub(super) fn give_up(&mut self, number: usize) {
        if let Some(call) = self.calls.get_mut(number) {
            call.open = false;
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &Call)> {
        self.calls.iter().enumerate().filter(|(_, call)| call.open)
    }

    /// The client's ids of all calls, in no certain order.
    pub(super) fn ids(&self) -> Vec<RpcId> {
        let mut ids: Vec<RpcId> = self.by_id.keys().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// `server` delivers a request; its call is the result, if it is one.
    pub(super) fn on_request(
        &mut self,
        server: SocketAddr,
        client: SocketAddr,
        id: RpcId,
        message: &Bytes,
    ) -> Option<usize> {
        assert!((1..=MESSAGE_BYTES_MAX).contains(&message.len()));
        let number = self.by_id.get(&(client, id.client_form())).copied();
        if self.forged {
            return number;
        }
        let number = number.unwrap_or_else(|| panic!("nobody made the request {id:?}"));
        let call = &mut self.calls[number];
        assert_eq!(call.server, server, "call {number} went elsewhere");
        let sent = request(number, call.request_len);
        assert!(*message == sent, "call {number} came with other bytes");
        call.delivered += 1;
        assert_eq!(call.delivered, 1, "call {number} is delivered again");
        Some(number)
    }

    /// The server answers with so many bytes.
    pub(super) fn on_answer(&mut self, number: Option<usize>, len: usize) {
        if let Some(call) = number.and_then(|number| self.calls.get_mut(number)) {
            call.response_len = Some(len);
        }
    }

    pub(super) fn on_response(&mut self, client: SocketAddr, cookie: u64, message: &Bytes) {
        let number = self.end(client, cookie);
        assert!((1..=MESSAGE_BYTES_MAX).contains(&message.len()));
        if self.forged {
            return;
        }
        let len = self.calls[number].response_len;
        let len = len.unwrap_or_else(|| panic!("call {number} was not answered yet"));
        let sent = response(number, len);
        assert!(*message == sent, "call {number} got other bytes");
    }

    /// The outcome of a call has come; its number is the result.
    pub(super) fn end(&mut self, client: SocketAddr, cookie: u64) -> usize {
        let number = usize::try_from(cookie).unwrap_or(usize::MAX);
        let call = self.calls.get_mut(number);
        let call = call.unwrap_or_else(|| panic!("nobody made the call {number}"));
        assert_eq!(call.client, client, "call {number} ends elsewhere");
        assert!(call.open, "call {number} has a second outcome");
        call.open = false;
        number
    }
}

/// The request of a call.
pub(super) fn request(number: usize, len: usize) -> Bytes {
    text(number * 2, len)
}

/// The response to a call.
pub(super) fn response(number: usize, len: usize) -> Bytes {
    text(number * 2 + 1, len)
}

/// Places of the text at which messages begin.
const STARTS: usize = 65_536;

/// `len` random bytes, others for every `number`.
fn text(number: usize, len: usize) -> Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let mut random = Random::new(1);
        let words = (STARTS + MESSAGE_BYTES_MAX) / 8 + 1;
        let bytes = (0..words).flat_map(|_| random.next().to_ne_bytes());
        bytes.collect::<Vec<u8>>().into()
    });
    let start = number * 61 % STARTS;
    text.slice(start..start + len)
}
