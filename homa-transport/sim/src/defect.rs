//! Defects put between an endpoint and its world, to see that the oracle notices them.

use std::fmt;

use super::invariant::Levels;
use homa_protocol::endpoint::{Event, Rule};
use homa_protocol::units::Priority;

/// Changes what an endpoint does on its way to the world. Every method does nothing by default.
pub trait Defect: fmt::Debug {
    /// A rule that the endpoints of `host` do not keep.
    fn breaks(&self, host: usize) -> Option<Rule> {
        let _ = host;
        None
    }

    /// An event of the endpoint of `host`: pushes what the application is to see.
    fn on_event(&mut self, host: usize, event: Event, seen: &mut Vec<Event>) {
        let _ = host;
        seen.push(event);
    }

    /// A packet that the endpoint of `host` sends.
    fn on_packet(&mut self, host: usize, packet: &mut Vec<u8>, level: &mut Priority) {
        let _ = (host, packet, level);
    }

    /// The levels that the endpoint of `host` shows.
    fn on_levels(&mut self, host: usize, levels: &mut Levels) {
        let _ = (host, levels);
    }
}
