//! [`Statuses`]: what is known of all services.

use std::collections::BTreeMap;

use crate::health::ServingStatus;

/// The statuses of a server and its services, by their full names; the server's name is empty.
#[derive(Debug)]
pub(super) struct Statuses {
    set: BTreeMap<String, ServingStatus>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Statuses are as they were set.
    Open,
    /// All are [`ServingStatus::NotServing`], whatever is set.
    NotServing,
    /// That, and nobody need wait for another change.
    Ended,
}

impl Statuses {
    /// Those of a server that serves.
    pub(super) fn new() -> Self {
        Self {
            set: BTreeMap::from([(String::new(), ServingStatus::Serving)]),
            phase: Phase::Open,
        }
    }

    /// `None` if there is no such service.
    pub(super) fn of(&self, service: &str) -> Option<ServingStatus> {
        self.set.get(service).map(|set| self.shown(*set))
    }

    /// All that are known, in the order of the names.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = (&str, ServingStatus)> {
        let all = self.set.iter();
        all.map(|(name, set)| (name.as_str(), self.shown(*set)))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether anybody can see the difference.
    pub(super) fn set(&mut self, service: &str, status: ServingStatus) -> bool {
        let before = self.of(service);
        match self.set.get_mut(service) {
            Some(set) => *set = status,
            None => drop(self.set.insert(service.to_owned(), status)),
        }
        before != self.of(service)
    }

    /// Whether there was such a service.
    pub(super) fn clear(&mut self, service: &str) -> bool {
        self.set.remove(service).is_some()
    }

    /// Whether this is further than before; there is no way back.
    pub(super) fn advance(&mut self, phase: Phase) -> bool {
        let before = self.phase;
        self.phase = before.max(phase);
        before != self.phase
    }

    const fn shown(&self, set: ServingStatus) -> ServingStatus {
        match self.phase {
            Phase::Open => set,
            Phase::NotServing | Phase::Ended => ServingStatus::NotServing,
        }
    }
}
