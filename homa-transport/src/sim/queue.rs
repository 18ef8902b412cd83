//! What is going to happen, in order of time; at one time, in the order in which it was set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::units::Instant;

/// Events to come. `E` is small: bulky things stay in tables of their own.
#[derive(Debug)]
pub(super) struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    set: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
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

impl<E> EventQueue<E> {
    pub(super) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            set: 0,
        }
    }

    pub(super) fn push(&mut self, at: Instant, event: E) {
        let number = self.set;
        self.set += 1;
        self.heap.push(Reverse(Entry { at, number, event }));
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, E)> {
        self.heap
            .pop()
            .map(|Reverse(entry)| (entry.at, entry.event))
    }
}
