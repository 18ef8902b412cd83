//! The process that attacks.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::BoxError;
use super::attacks::{Attack, Scene, Sender, Shot, burst_shot};
use super::forge::Target;
use super::observed::Observed;
use super::random::Random;
use super::sources::Sources;
use crate::wire::Uri;

/// Packets are sent in groups of those that are due, this often.
const TICK: Duration = Duration::from_millis(1);
/// Share of a second's packets that are sent together at most, when the process was held up.
const CATCH_UP: usize = 50;
/// Packets per second of a burst: 24 MB in two seconds.
const BURST_RATE: usize = 67_296;

/// What an attacker is told, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The server.
    pub uri: String,
    /// Name of the attack.
    pub attack: String,
    /// Packets per second, the burst aside.
    pub rate: usize,
    /// Packets in all, the burst aside.
    pub count: usize,
    /// Packets of a burst.
    pub burst: usize,
    /// Ports or addresses to send from.
    pub sources: usize,
    /// Address of strangers on protocol 146 over IPv6; else the loopback interface has enough.
    pub strangers: Option<IpAddr>,
    /// The same packets for the same number, as far as they do not repeat what was heard.
    pub seed: u64,
    /// The core to run on.
    pub core: Option<usize>,
}

/// What an attacker has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Packets sent.
    pub packets: u64,
    /// Packets and messages that the system or the client in whose name they go did not take.
    pub refused: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds it took.
    pub millis: u64,
    /// Calls of the client that is listened to.
    pub observed_good: u64,
    /// Those of them that failed.
    pub observed_failed: u64,
    /// Why the first of them did.
    pub observed_failure: Option<String>,
}

struct Attacker {
    attack: Attack,
    observed: Observed,
    sources: Sources,
    random: Random,
    target: Target,
    sent: Sent,
}

/// Attacks, says what it has sent as one line of JSON, and keeps its sources silent until its input ends.
///
/// # Errors
/// If its sockets cannot be opened, or the server does not answer before the attack.
pub async fn attack(orders: &Orders) -> Result<(), BoxError> {
    let uri: Uri = orders.uri.parse()?;
    let attack = Attack::find(&orders.attack).ok_or("there is no such attack")?;
    let server = uri.resolve().await?;
    let mut attacker = Attacker {
        attack,
        observed: Observed::open(&uri).await?,
        sources: Sources::open(uri.wire(), server, orders.sources, orders.strangers)?,
        random: Random::new(orders.seed),
        target: Target {
            port: server.port(),
        },
        sent: Sent::default(),
    };
    attacker.observed.start_calls();
    let start = Instant::now();
    if attack.burst {
        paced(BURST_RATE, orders.burst, |number| {
            attacker.shoot(number, true)
        })
        .await;
    }
    if attack.is_quiet() {
        sleep(Duration::from_secs_f64(
            orders.count as f64 / orders.rate.max(1) as f64,
        ))
        .await;
    } else {
        paced(orders.rate, orders.count, |number| {
            attacker.shoot(number, false);
        })
        .await;
    }
    let mut sent = attacker.sent;
    sent.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = attacker.observed.stop().await;
    sent.observed_good = outcome.good.load(Ordering::Relaxed);
    sent.observed_failed = outcome.failed.load(Ordering::Relaxed);
    sent.observed_failure = outcome.first_failure();
    println!("{}", serde_json::to_string(&sent)?);
    let mut input = Vec::new();
    tokio::io::stdin().read_to_end(&mut input).await?;
    drop(attacker.sources);
    Ok(())
}

impl Attacker {
    fn shoot(&mut self, number: usize, burst: bool) {
        let shot = {
            let tape = self.observed.tapped.tape();
            let mut scene = Scene {
                random: &mut self.random,
                tape: &tape,
                target: self.target,
                number,
            };
            if burst {
                Some(burst_shot(&mut scene))
            } else {
                self.attack.shot(&mut scene)
            }
        };
        let (bytes, taken) = match shot {
            None => return,
            Some(Shot::Message(message)) => (message.len(), self.observed.send_message(message)),
            Some(Shot::Packet { mut bytes, from }) => {
                (bytes.len(), self.send(&mut bytes, from).is_ok())
            }
        };
        if taken {
            self.sent.packets += 1;
            self.sent.bytes += bytes as u64;
        } else {
            self.sent.refused += 1;
        }
    }

    fn send(&mut self, packet: &mut [u8], from: Sender) -> io::Result<()> {
        match from {
            Sender::Stranger => self.sources.send(packet),
            Sender::Observed => self.observed.forge(packet),
            Sender::Closed => self.sources.send_and_close(packet),
        }
    }
}

/// Calls `send` `count` times, `rate` times a second.
async fn paced(rate: usize, count: usize, mut send: impl FnMut(usize)) {
    let start = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let together = (rate / CATCH_UP).max(1);
    let mut sent = 0;
    while sent < count {
        ticks.tick().await;
        let micros = usize::try_from(start.elapsed().as_micros()).unwrap_or(usize::MAX);
        let due = (micros.saturating_mul(rate) / 1_000_000).min(count);
        let until = due.min(sent + together);
        for number in sent..until {
            send(number);
        }
        sent = sent.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn packets_are_paced_and_counted() {
        let start = Instant::now();
        let mut numbers = Vec::new();
        paced(1_000, 500, |number| numbers.push(number)).await;
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        let millis = start.elapsed().as_millis();
        assert!((500..=502).contains(&millis), "{millis} ms");
    }
}
