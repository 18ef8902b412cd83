//! What addresses get before they have shown that they are there.

use std::collections::HashMap;

use super::addresses::AddressId;
use super::invariant::{Breach, Invariant};
use homa_protocol::wire::Tokens;

/// Bytes sent to an address for each that came from it, at most. Source: RFC 9000, section 8.
const AMPLIFICATION_MAX: u64 = 3;

/// An address that nobody calls, as a host sees it.
#[derive(Debug, Default)]
struct Account {
    came: u64,
    sent: u64,
    /// Tokens that the host has told it.
    told: Vec<u64>,
    /// A packet that was not forged has shown one of them.
    proven: bool,
}

/// The accounts of all hosts.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    accounts: HashMap<(usize, AddressId), Account>,
}

impl Unproven {
    /// The process of `host` has died, and its tokens are void.
    pub(super) fn forget(&mut self, host: usize) {
        self.accounts.retain(|(at, _), _| *at != host);
    }

    pub(super) fn on_received(&mut self, host: usize, from: AddressId, bytes: &[u8], forged: bool) {
        let account = self.accounts.entry((host, from)).or_default();
        account.came += bytes.len() as u64;
        if !forged && account.told.contains(&Tokens::of(bytes).shown) {
            account.proven = true;
        }
    }

    pub(super) fn on_sent(
        &mut self,
        host: usize,
        to: AddressId,
        bytes: &[u8],
    ) -> Result<(), Breach> {
        let account = self.accounts.entry((host, to)).or_default();
        if account.proven {
            return Ok(());
        }
        let own = Tokens::of(bytes).own;
        if own != 0 && !account.told.contains(&own) {
            account.told.push(own);
        }
        account.sent += bytes.len() as u64;
        if account.sent <= AMPLIFICATION_MAX * account.came {
            return Ok(());
        }
        let detail = format!(
            "{} bytes were sent to an address that has shown no token, {} came from it",
            account.sent, account.came
        );
        Err(Breach::new(Invariant::NoAmplification, host, None, detail))
    }
}
