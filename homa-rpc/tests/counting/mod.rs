//! Counts the allocations of calls, client and server together, and the bytes that are held.
//!
//! The count is that of the whole process, so a file that uses this has one test only.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of a test")]

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
mod sys;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use self::sys::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Bytes of the heap of this process that are in use.
pub fn held() -> u64 {
    ALLOCATOR.held()
}

const ROUNDS: usize = 150;
/// Few, since the slots of timers, one for each millisecond, still grow now and then when calls become
/// faster: in most rounds none does.
const CALLS: u64 = 10;

/// The timers of the sockets go round twice in this time, and then have most of the room they need.
const WARM_UP: Duration = Duration::from_millis(2_200);

/// Mean number of allocations of one call, in the quietest of several rounds: what grows now and
/// then, and what a retransmission takes, doesn't belong to any one call.
pub async fn per_call<F: Future>(mut call: impl FnMut() -> F) -> f64 {
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP {
        call().await;
    }
    let mut fewest = u64::MAX;
    for _ in 0..ROUNDS {
        let before = ALLOCATOR.allocations();
        for _ in 0..CALLS {
            call().await;
        }
        fewest = fewest.min(ALLOCATOR.allocations() - before);
    }
    fewest as f64 / CALLS as f64
}
