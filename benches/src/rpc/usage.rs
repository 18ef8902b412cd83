//! What a process has used up.

use std::ops::{AddAssign, Sub};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::homa::Counters;

/// Totals of a process, or the difference of two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU time of all threads, in seconds.
    pub(crate) cpu_s: f64,
    pub(crate) packets_sent: f64,
    pub(crate) send_calls: f64,
    pub(crate) packets_received: f64,
    pub(crate) receive_calls: f64,
}

impl Usage {
    /// That of this process; packets only of a socket whose counters are known.
    pub(crate) fn now(counters: &Counters) -> Self {
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        let stats = counters
            .as_ref()
            .map(|socket| socket.stats())
            .unwrap_or_default();
        Self {
            cpu_s: cpu.map_or(0.0, |time| {
                time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
            }),
            packets_sent: stats.packets_sent as f64,
            send_calls: stats.send_system_calls as f64,
            packets_received: stats.packets_received as f64,
            receive_calls: stats.receive_system_calls as f64,
        }
    }

    const fn fields(self) -> [f64; 5] {
        [
            self.cpu_s,
            self.packets_sent,
            self.send_calls,
            self.packets_received,
            self.receive_calls,
        ]
    }

    pub(crate) const fn of(fields: [f64; 5]) -> Self {
        let [
            cpu_s,
            packets_sent,
            send_calls,
            packets_received,
            receive_calls,
        ] = fields;
        Self {
            cpu_s,
            packets_sent,
            send_calls,
            packets_received,
            receive_calls,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let mut fields = self.fields();
        for (field, before) in fields.iter_mut().zip(earlier.fields()) {
            *field -= before;
        }
        Self::of(fields)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        let mut fields = self.fields();
        for (field, more) in fields.iter_mut().zip(other.fields()) {
            *field += more;
        }
        *self = Self::of(fields);
    }
}
