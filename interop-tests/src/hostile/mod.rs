//! A server under attack, while a good client calls it.
//!
//! Each attack of [`ATTACKS`] is run by three processes: a server (`homa-rpc` and all below), the attacker,
//! and the good client here. The attacker also runs a client by the rules that it listens to, on whose
//! calls it forges packets. What is judged, see [`Figures`]: no good call fails, nothing panics, nothing is
//! left of the attack at the server; and if the machine is quiet, times and memory ([`Plan::timed`]).

mod attacker;
mod attacks;
mod forge;
mod frames;
mod meter;
mod observed;
mod plain_udp;
mod plan;
mod process;
mod random;
mod report;
mod run;
mod server;
mod sources;
mod tape;

use std::time::Duration;

pub use attacker::{Orders, Sent, attack};
pub use attacks::{ATTACKS, Attack};
pub use meter::Calls;
pub use plan::{Attacks, Plan};
pub use report::{Figures, Judge};
pub use run::RunError;
pub use server::serve;

/// What a part of a run failed of.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Limit of all good calls.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The service that is attacked.
#[allow(missing_docs, unreachable_pub, dead_code, reason = "generated code")]
mod messages {
    homa_rpc::include_proto!("bench");
}
