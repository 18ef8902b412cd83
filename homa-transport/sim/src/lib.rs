//! A deterministic simulator: real endpoints on a simulated network, in virtual time.
//!
//! A [`World`] follows from one number, its seed: the topology of the network, what is lost,
//! repeated, overtaken and damaged in it, which hosts crash, stall or are cut off, which are behind a
//! NAT and when their ports change, which packets are forged, how much receive queues hold, and what the
//! applications call. An oracle compares everything the endpoints do with what they should do (see
//! [`Invariant`]), at every step, and asks at the end whether all that had begun has ended and
//! nothing is left behind.
//!
//! ```
//! use homa_sim::World;
//!
//! let report = World::of_seed(7).run().expect("every invariant holds");
//! let again = World::of_seed(7).run().expect("every invariant holds");
//! assert_eq!(report.digest, again.digest, "a seed repeats bit for bit");
//! ```
//!
//! The [`Network`] alone carries packets of any kind; it has the faults and no endpoints. The feature
//! `sim` of `homa-transport` lends it to sockets, so that whole applications run on it in tokio's time.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

mod addresses;
mod app;
mod call;
mod cause;
mod clock;
mod defect;
mod disturb;
mod event;
mod fault;
mod forger;
pub mod fuzz;
mod host;
mod invariant;
mod ip;
mod ledger;
mod network;
mod oracle;
mod packet;
mod queue;
mod random;
mod report;
mod scenario;
mod switch;
mod topology;
mod trace;
mod traffic;
mod unproven;
mod workload;
mod world;

pub use self::clock::Clock;
pub use self::defect::Defect;
pub use self::fault::{Damaged, Disturbance, DisturbanceKind, PacketFaults};
pub use self::host::RECEIVE_BUFFER_BYTES;
pub use self::invariant::{Invariant, Levels};
pub use self::ip::{ip_of, number_at};
pub use self::network::{Arrival, Network, NetworkCounts};
pub use self::packet::PacketId;
pub use self::queue::EventQueue;
pub use self::random::Random;
pub use self::report::{Report, Totals, Violation};
pub use self::scenario::hazard::{Burst, Forgeries, ReceiveQueue};
pub use self::scenario::{Load, Scenario};
pub use self::topology::Topology;
pub use self::trace::{Record, Summary, What};
pub use self::workload::{Arrivals, Sizes, Workload};
pub use self::world::{REPORT_DELAY, World};
