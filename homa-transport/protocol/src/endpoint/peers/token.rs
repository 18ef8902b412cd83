//! Tokens: numbers that only who gets the packets sent to an address can know.
//!
//! An endpoint makes one for each address by a keyed hash, so that it need not remember any. Every packet
//! over UDP says which token its sender wants to see, and shows the one that its receiver wants to see.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use crate::endpoint::peers::address::AddrKey;
use crate::units::Instant;

/// How long a token is made; for as long again it counts.
const EPOCH: Duration = Duration::from_secs(600);

/// Where the randomness of an endpoint comes from.
///
/// A real one must come from a random device: ids must not be used twice by one address, and nobody may
/// know the secret.
#[derive(Clone, Copy)]
pub struct Seed {
    /// Where the ids of its RPCs start.
    pub ids: u64,
    /// What tokens are made with.
    pub secret: [u64; 2],
}

impl From<u128> for Seed {
    /// The low half is where ids start, the high half is the secret: enough for tests and simulations.
    fn from(seed: u128) -> Self {
        let bytes = seed.to_le_bytes();
        let half = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let secret = half(bytes.last_chunk());
        Self {
            ids: half(bytes.first_chunk()),
            secret: [secret, !secret],
        }
    }
}

/// Makes tokens.
pub(in crate::endpoint) struct TokenKey {
    secret: [u64; 2],
    epoch: u64,
    epoch_end: Instant,
}

impl fmt::Debug for Seed {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The tokens for one address, until the next epoch.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct AddressTokens {
    epoch: u64,
    /// The one that is told.
    pub(in crate::endpoint) current: u64,
    previous: u64,
}

impl AddressTokens {
    /// Whether this token was told in this epoch or the last.
    pub(in crate::endpoint) const fn accept(&self, token: u64) -> bool {
        token != 0 && (token == self.current || token == self.previous)
    }
}

impl TokenKey {
    pub(in crate::endpoint) const fn new(secret: [u64; 2]) -> Self {
        Self {
            secret,
            epoch: 0,
            epoch_end: Instant::ZERO,
        }
    }

    /// Takes note of the time.
    pub(in crate::endpoint) fn advance(&mut self, now: Instant) {
        if now >= self.epoch_end {
            self.epoch = now.as_nanos() / nanos(EPOCH) + 1;
            self.epoch_end = Instant::from_nanos(self.epoch.saturating_mul(nanos(EPOCH)));
        }
    }

    /// The tokens for `peer`; `known` are those of the last time.
    pub(in crate::endpoint) fn of(
        &self,
        peer: SocketAddr,
        known: Option<AddressTokens>,
    ) -> AddressTokens {
        match known {
            Some(known) if known.epoch == self.epoch => known,
            _ => AddressTokens {
                epoch: self.epoch,
                current: self.make(peer, self.epoch),
                previous: self.make(peer, self.epoch.wrapping_sub(1)),
            },
        }
    }

    /// SipHash 2-4 of the epoch and the address, never 0.
    #[allow(
        deprecated,
        reason = "its key may be chosen, and it is a keyed hash by design; that of HashMap has fewer rounds"
    )]
    fn make(&self, peer: SocketAddr, epoch: u64) -> u64 {
        let [low, high] = self.secret;
        let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
        (epoch, AddrKey(peer)).hash(&mut hasher);
        hasher.finish().max(1)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn key(secret: u64, seconds: u64) -> TokenKey {
        let mut key = TokenKey::new([secret, 7]);
        key.advance(Instant::from_nanos(seconds * 1_000_000_000));
        key
    }

    #[test]
    fn tokens_differ_by_address_port_secret_and_epoch() {
        let here = addr("10.0.0.1:1");
        let tokens = [
            key(1, 0).of(here, None).current,
            key(1, 0).of(addr("10.0.0.2:1"), None).current,
            key(1, 0).of(addr("10.0.0.1:2"), None).current,
            key(1, 0).of(addr("[::ffff:10.0.0.1]:1"), None).current,
            key(2, 0).of(here, None).current,
            key(1, 600).of(here, None).current,
        ];
        for (at, token) in tokens.iter().enumerate() {
            assert!(*token != 0 && !tokens[at + 1..].contains(token));
        }
        assert_eq!(tokens[0], key(1, 599).of(here, None).current);
    }

    #[test]
    fn all_64_bits_of_a_token_vary() {
        let tokens = (1..1_000).map(|port| {
            let peer = SocketAddr::from(([10, 0, 0, 1], port));
            key(1, 0).of(peer, None).current
        });
        let (ones, zeros) = tokens.fold((0, 0), |(ones, zeros), token| {
            (ones | token, zeros | !token)
        });
        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_token_counts_in_its_epoch_and_the_next_one() {
        let here = addr("10.0.0.1:1");
        let told = key(1, 100).of(here, None);
        let later = |seconds| key(1, seconds).of(here, Some(told)).accept(told.current);
        assert!(later(100) && later(599) && later(600) && later(1_199));
        assert!(!later(1_200), "two epochs later it is void");
        assert!(!told.accept(0), "no token is none");
        assert!(!told.accept(told.current ^ 1 << 63));
    }
}
