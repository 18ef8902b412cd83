//! What is going to happen, in order of time; at one time, in the order in which it was set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use homa_protocol::units::Instant;

/// Nanoseconds ahead of the present for which every one has a list of its own: what a network sets
/// nearly always lies within.
const NEAR: u64 = 8_192;
const WORDS: usize = (NEAR / 64) as usize;
/// End of a list.
const NONE: u32 = u32::MAX;

/// Events to come. `E` is small: bulky things stay in tables of their own.
///
/// Setting and taking one costs O(1) if it lies within eight microseconds of the last one taken,
/// else the logarithm of their number.
#[derive(Debug)]
pub struct EventQueue<E> {
    /// Lists of the near events: first and last, by nanosecond.
    slots: Vec<(u32, u32)>,
    /// Which lists are not empty.
    occupied: [u64; WORDS],
    nodes: Vec<Node<E>>,
    /// First of the nodes to use again.
    free: u32,
    near: usize,
    /// Time of the first near event; the end of time if there is none.
    near_at: u64,
    far: BinaryHeap<Reverse<Entry<E>>>,
    /// Time of the last event taken; the near ones lie from here to `NEAR` ahead.
    now: u64,
    set: u64,
}

#[derive(Debug)]
struct Node<E> {
    number: u64,
    next: u32,
    /// `None` while the node is free.
    event: Option<E>,
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> EventQueue<E> {
    /// Nothing is going to happen.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: vec![(NONE, NONE); WORDS * 64],
            occupied: [0; WORDS],
            nodes: Vec::new(),
            free: NONE,
            near: 0,
            near_at: u64::MAX,
            far: BinaryHeap::new(),
            now: 0,
            set: 0,
        }
    }

    /// Sets an event.
    pub fn push(&mut self, at: Instant, event: E) {
        let at = at.as_nanos();
        let number = self.set;
        self.set += 1;
        if at < self.now || at - self.now >= NEAR {
            self.far.push(Reverse(Entry { at, number, event }));
            return;
        }
        let node = self.node(number, event);
        let slot = slot_of(at);
        let Some((first, last)) = self.slots.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(last, node);
        if before == NONE {
            *first = node;
            if let Some(word) = self.occupied.get_mut(slot / 64) {
                *word |= 1 << (slot % 64);
            }
        } else if let Some(before) = self.nodes.get_mut(before as usize) {
            before.next = node;
        }
        self.near += 1;
        self.near_at = self.near_at.min(at);
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let far = self.far.peek().map(|Reverse(entry)| entry.at);
        if self.near == 0 && far.is_none() {
            return None;
        }
        let at = far.map_or(self.near_at, |far| far.min(self.near_at));
        Some(Instant::from_nanos(at))
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Instant, E)> {
        let at = self.near_at;
        let far_first = match self.far.peek() {
            None => self.near == 0,
            Some(Reverse(far)) if far.at != at => far.at < at,
            Some(Reverse(far)) => far.number < self.first_number(at),
        };
        if far_first {
            let Reverse(entry) = self.far.pop()?;
            self.now = self.now.max(entry.at);
            return Some((Instant::from_nanos(entry.at), entry.event));
        }
        self.now = at;
        Some((Instant::from_nanos(at), self.take_first(at)?))
    }

    fn node(&mut self, number: u64, event: E) -> u32 {
        let node = Node {
            number,
            next: NONE,
            event: Some(event),
        };
        let at = self.free;
        if let Some(slot) = self.nodes.get_mut(at as usize) {
            self.free = slot.next;
            *slot = node;
            return at;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    /// Looks for the first near event.
    fn find_near(&self) -> u64 {
        if self.near == 0 {
            return u64::MAX;
        }
        let start = slot_of(self.now);
        let (word, bit) = (start / 64, start % 64);
        for step in 0..=WORDS {
            let index = (word + step) % WORDS;
            let mut bits = self.occupied.get(index).copied().unwrap_or(0);
            if step == 0 {
                bits &= u64::MAX << bit;
            }
            if bits != 0 {
                let slot = index as u64 * 64 + u64::from(bits.trailing_zeros());
                return self.now + (slot.wrapping_sub(start as u64)) % NEAR;
            }
        }
        u64::MAX
    }

    fn first_number(&self, at: u64) -> u64 {
        let first = self
            .slots
            .get(slot_of(at))
            .map_or(NONE, |(first, _)| *first);
        self.nodes
            .get(first as usize)
            .map_or(u64::MAX, |node| node.number)
    }

    fn take_first(&mut self, at: u64) -> Option<E> {
        let slot = slot_of(at);
        let (first, last) = self.slots.get_mut(slot)?;
        let taken = *first;
        let node = self.nodes.get_mut(taken as usize)?;
        let event = node.event.take();
        *first = std::mem::replace(&mut node.next, self.free);
        self.free = taken;
        self.near -= 1;
        if *first == NONE {
            *last = NONE;
            if let Some(word) = self.occupied.get_mut(slot / 64) {
                *word &= !(1 << (slot % 64));
            }
            self.near_at = self.find_near();
        }
        event
    }
}

fn slot_of(at: u64) -> usize {
    usize::try_from(at % NEAR).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn events_come_by_time_and_at_one_time_in_the_order_in_which_they_were_set() {
        let mut random = Random::new(5);
        let mut queue = EventQueue::new();
        let mut waiting: Vec<(u64, u32)> = Vec::new();
        let mut now = 0;
        for event in 0..50_000_u32 {
            // Near, at once, far, beyond the wheel's turn and in the past.
            let ahead = random.pick([0, 1, 63, 64, 700, 8_191, 8_192, 8_193, 1_000_000]);
            let at = if random.chance(10_000) {
                now / 2
            } else {
                now + random.below(ahead + 1)
            };
            queue.push(Instant::from_nanos(at), event);
            waiting.push((at, event));
            while waiting.len() > 50 || random.chance(300_000) {
                let Some(expected) = waiting.iter().copied().min() else {
                    break;
                };
                assert_eq!(queue.next_at(), Some(Instant::from_nanos(expected.0)));
                let (at, event) = queue.pop().unwrap();
                assert_eq!((at.as_nanos(), event), expected);
                waiting.retain(|entry| *entry != expected);
                now = now.max(expected.0);
            }
        }
        waiting.sort_unstable();
        let rest: Vec<(u64, u32)> =
            std::iter::from_fn(|| queue.pop().map(|(at, event)| (at.as_nanos(), event))).collect();
        assert_eq!(rest, waiting);
    }
}
