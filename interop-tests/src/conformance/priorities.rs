//! Packets carry the priority that the length of their message asks for.

use super::messages::{echo, next_id};
use super::{Ends, Failure};
use crate::network::{Network, PortCounters};

/// Messages of one length, and the levels that their packets have to use: those of the module's default
/// cutoffs, which all start with. Source: homa_utils.c, `homa_init` (`unsched_cutoffs`).
#[derive(Clone, Copy)]
struct Expectation {
    len: usize,
    calls: u64,
    /// Level of what is sent without a grant.
    unscheduled: usize,
    /// Whether some is left, which goes below the unscheduled levels.
    scheduled: bool,
}

const EXPECTED: [Expectation; 4] = [
    Expectation {
        len: 100,
        calls: 40,
        unscheduled: 7,
        scheduled: false,
    },
    Expectation {
        len: 1_000,
        calls: 40,
        unscheduled: 6,
        scheduled: false,
    },
    Expectation {
        len: 10_000,
        calls: 20,
        unscheduled: 5,
        scheduled: false,
    },
    Expectation {
        len: 200_000,
        calls: 10,
        unscheduled: 4,
        scheduled: true,
    },
];
/// Highest level of granted bytes with the default cutoffs.
const SCHEDULED_MAX: usize = 3;

/// Messages of several lengths cross the switch at the levels that the default cutoffs name, in both
/// directions.
///
/// # Errors
/// If they do not.
pub async fn priorities(
    ends: &Ends,
    network: &Network,
    server_host: usize,
    client_host: usize,
) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    // Until they have heard each other's cutoffs, all goes at one level.
    for _ in 0..3 {
        let client = client.clone();
        ends.at_client(async move { echo(&client, next_id(), 5_000).await })
            .await?;
    }
    for expectation in EXPECTED {
        let before = [server_host, client_host].map(|host| network.port_counters(host));
        let (client, Expectation { len, calls, .. }) = (client.clone(), expectation);
        ends.at_client(async move {
            for _ in 0..calls {
                echo(&client, next_id(), len).await?;
            }
            Ok::<_, Failure>(())
        })
        .await?;
        for (host, before) in [server_host, client_host].into_iter().zip(before) {
            let sent = network.port_counters(host)?.since(&before?);
            expectation.check(&sent)?;
        }
    }
    Ok(())
}

impl Expectation {
    fn check(&self, sent: &PortCounters) -> Result<(), Failure> {
        let bytes = |level: usize| sent.bytes.get(level).copied().unwrap_or_default();
        let scheduled: u64 = (0..=SCHEDULED_MAX).map(bytes).sum();
        // What is sent without a grant is at least 10,000 bytes (the module's default today) or the
        // message, and headers are counted too.
        let unscheduled_min = self.calls * self.len.min(10_000) as u64;
        let right = bytes(self.unscheduled) >= unscheduled_min
            && (scheduled >= unscheduled_min) == self.scheduled;
        if right {
            return Ok(());
        }
        Err(Failure::unexpected(
            format!(
                "{} messages of {} bytes with their first bytes at level {}{}",
                self.calls,
                self.len,
                self.unscheduled,
                if self.scheduled {
                    " and granted ones below 4"
                } else {
                    ""
                }
            ),
            format!("{sent:?}"),
        ))
    }
}
