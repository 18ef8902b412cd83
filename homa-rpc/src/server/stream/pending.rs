//! Bytes of requests that came in several frames, and who may keep them.
//!
//! Half of the room is kept for messages that can finish: a message whose whole length fits into that half beside
//! the others there will get all of it. Otherwise partial messages could fill the room so that none ever is
//! whole. All else shares the other half; when that is full, the partial message that progressed least recently
//! goes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

/// A call, as the server names it.
pub(super) type Key = (SocketAddr, u64);

/// What is held for calls.
#[derive(Debug)]
pub(super) struct Pending {
    limit: usize,
    accounts: HashMap<Key, Account>,
    of_client: HashMap<IpAddr, usize>,
    /// Partial messages that have no room of their own, the one that progressed least recently first.
    partial: BTreeMap<u64, Key>,
    progressed: u64,
    /// Lengths of the messages that have.
    promised: usize,
    /// Bytes held beyond these.
    shared: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    held: usize,
    message: Message,
}

/// The message of which a part is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Message {
    /// There is none.
    #[default]
    None,
    /// One that will get all of its room: its length.
    Promised(usize),
    /// Another one: its place in the order of progress.
    Partial(u64),
}

impl Pending {
    /// Room for `limit` bytes, half of them for one client.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            accounts: HashMap::new(),
            of_client: HashMap::new(),
            partial: BTreeMap::new(),
            progressed: 0,
            promised: 0,
            shared: 0,
        }
    }

    /// A call holds `held` bytes now; `total` is the length of a message of which it has a part. Returns the
    /// calls for which there is no room any more, which are forgotten.
    pub(super) fn hold(&mut self, key: Key, held: usize, total: Option<usize>) -> Vec<Key> {
        let before = self.close(key);
        let message = self.place(key, before, total);
        self.accounts.insert(key, Account { held, message });
        *self.of_client.entry(key.0.ip()).or_default() += held;
        if !matches!(message, Message::Promised(_)) {
            self.shared += held;
        }
        let mut without_room = Vec::new();
        if self.of_client(key) > self.limit / 2 {
            self.close(key);
            without_room.push(key);
        }
        while self.shared > self.limit / 2 {
            let oldest = self.partial.first_key_value().map(|(_, key)| *key);
            let out = oldest.unwrap_or(key);
            self.close(out);
            without_room.push(out);
            if oldest.is_none() {
                break;
            }
        }
        without_room
    }

    /// A call is over. Returns the message of which it had a part.
    pub(super) fn close(&mut self, key: Key) -> Message {
        let Some(Account { held, message }) = self.accounts.remove(&key) else {
            return Message::None;
        };
        shrink(&mut self.accounts);
        if let Some(of_client) = self.of_client.get_mut(&key.0.ip()) {
            *of_client -= held;
            if *of_client == 0 {
                self.of_client.remove(&key.0.ip());
                shrink(&mut self.of_client);
            }
        }
        match message {
            Message::Promised(total) => self.promised -= total,
            Message::None => self.shared -= held,
            Message::Partial(order) => {
                self.partial.remove(&order);
                self.shared -= held;
            }
        }
        message
    }

    /// Where a message of this length belongs, after a step of progress.
    fn place(&mut self, key: Key, before: Message, total: Option<usize>) -> Message {
        let Some(total) = total else {
            return Message::None;
        };
        let had_promise = matches!(before, Message::Promised(promised) if promised == total);
        if had_promise || self.promised.saturating_add(total) <= self.limit / 2 {
            self.promised += total;
            return Message::Promised(total);
        }
        self.progressed += 1;
        self.partial.insert(self.progressed, key);
        Message::Partial(self.progressed)
    }

    fn of_client(&self, key: Key) -> usize {
        self.of_client.get(&key.0.ip()).copied().unwrap_or_default()
    }
}

/// Gives room back that a burst has left.
fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > 4 * table.len() + 64 {
        table.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: u8, call: u64) -> Key {
        (SocketAddr::from(([10, 0, 0, client], 1)), call)
    }

    #[test]
    fn a_message_that_was_promised_its_room_gets_all_of_it() {
        let mut pending = Pending::new(1_000);
        assert!(pending.hold(key(1, 1), 10, Some(400)).is_empty());
        // These get no promise and fill the other half.
        for call in 0..10 {
            assert!(
                pending
                    .hold(key(2 + u8::try_from(call).unwrap(), call), 50, Some(400))
                    .is_empty()
            );
        }
        assert!(pending.hold(key(1, 1), 400, Some(400)).is_empty());
    }

    #[test]
    fn the_message_that_progressed_least_recently_goes_first() {
        let mut pending = Pending::new(1_000);
        let _promised = pending.hold(key(9, 9), 1, Some(500));
        for call in 1..=5 {
            assert!(pending.hold(key(call, 0), 100, Some(400)).is_empty());
        }
        assert!(pending.hold(key(1, 0), 90, Some(400)).is_empty());
        assert_eq!(pending.hold(key(3, 0), 150, Some(400)), [key(2, 0)]);
        assert_eq!(pending.hold(key(5, 0), 161, Some(400)), [key(4, 0)]);
    }

    #[test]
    fn one_client_gets_half() {
        let mut pending = Pending::new(1_000);
        assert!(pending.hold(key(1, 1), 300, None).is_empty());
        assert_eq!(pending.hold(key(1, 2), 201, None), [key(1, 2)]);
        assert!(pending.hold(key(2, 2), 200, None).is_empty());
    }

    #[test]
    fn what_is_no_partial_message_goes_by_itself_when_there_is_no_room() {
        let mut pending = Pending::new(1_000);
        assert!(pending.hold(key(1, 1), 300, None).is_empty());
        assert_eq!(pending.hold(key(2, 1), 300, None), [key(2, 1)]);
    }

    #[test]
    fn nothing_is_left_of_calls_that_are_over() {
        let mut pending = Pending::new(10_000);
        for call in 0..1_000_u64 {
            let client = u8::try_from(call % 7).unwrap();
            let total = (call % 3 != 0).then_some(usize::try_from(call * 10).unwrap());
            let _gone = pending.hold(key(client, call), usize::try_from(call).unwrap(), total);
            let _gone = pending.hold(key(client, call / 2), 10, None);
        }
        for call in 0..1_000_u64 {
            for client in 0..7 {
                pending.close(key(client, call));
            }
        }
        assert_eq!((pending.promised, pending.shared), (0, 0));
        assert!(pending.partial.is_empty() && pending.of_client.is_empty());
        assert!(pending.accounts.is_empty());
        assert!(pending.accounts.capacity() <= 100 && pending.of_client.capacity() <= 100);
    }
}
