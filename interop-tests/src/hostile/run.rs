//! Runs attacks, each in three processes: the server, the attacker, and here the good client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::BoxError;
use super::attacker::{Orders, Sent};
use super::attacks::Attack;
use super::meter::{Meter, Phase};
use super::plan::Plan;
use super::process::Part;
use super::report::{Figures, Judge};
use super::server::Counters;
use crate::network::{Layout, Network};
use crate::wire::{Uri, Wire};

/// How often it is looked whether a server has forgotten an attack.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The counter of RPCs that a server holds.
const LIVE: &str = "rpcs_live";
/// The core of a pinned server, and that of the others.
const CORES: [usize; 2] = [0, 1];

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// This machine cannot: no fault of what is tested.
    #[error("{0}")]
    Unavailable(String),
    /// A part could not be started, or ended early.
    #[error("{part}: {source}")]
    Part {
        /// Which.
        part: &'static str,
        /// What it said.
        source: BoxError,
    },
}

fn part(part: &'static str) -> impl FnOnce(BoxError) -> RunError {
    move |source| RunError::Part { part, source }
}

/// Where the parts run: on this host, or within a network of its own.
struct Place {
    program: PathBuf,
    network: Option<Network>,
    pin: bool,
}

/// A server, and what is known of it before an attack.
struct Victim {
    part: Part,
    uri: String,
}

impl Plan {
    /// Runs all, and hands over the figures of each attack as they come.
    ///
    /// # Errors
    /// [`RunError::Unavailable`] if this machine lacks what the plan needs; else if a part failed.
    pub async fn run(&self, mut report: impl FnMut(&Figures)) -> Result<Vec<Figures>, RunError> {
        let place = self.place()?;
        let mut all = Vec::new();
        let mut shared = None;
        for name in &self.attacks {
            let attack = Attack::find(name).ok_or("there is no such attack".into());
            let attack = attack.map_err(part("the attack"))?;
            for &sources in &self.sources {
                let mut victim = match shared.take() {
                    Some(victim) => victim,
                    None => place.serve(self.listen()).await.map_err(part("server"))?,
                };
                let run = self.attack(&place, &mut victim, attack, sources);
                let mut figures = run.await?;
                figures.panicked |= victim.part.has_panicked();
                if self.timed {
                    let ended_well = victim.part.stop().await.map_err(part("server"))?;
                    figures.panicked |= victim.part.has_panicked() || !ended_well;
                } else {
                    shared = Some(victim);
                }
                figures.faults = figures.judge(Judge {
                    excused: attack.excused,
                    timed: self.timed,
                });
                report(&figures);
                all.push(figures);
            }
        }
        Ok(all)
    }

    fn listen(&self) -> Uri {
        let ip = if self.v6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        Uri::new(self.wire, SocketAddr::new(ip, 0))
    }

    /// Packets of protocol 146 stay within a network namespace: any socket of a host could see them.
    fn place(&self) -> Result<Place, RunError> {
        let unavailable = |error: &dyn std::error::Error| RunError::Unavailable(error.to_string());
        let program = std::env::current_exe().map_err(|error| part("program")(error.into()))?;
        let network = if self.wire == Wire::Homa {
            let network = Network::build(&Layout::default());
            Some(network.map_err(|error| unavailable(&error))?)
        } else {
            None
        };
        if self.v6 && network.is_none() {
            UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).map_err(|error| unavailable(&error))?;
        }
        Ok(Place {
            program,
            network,
            pin: self.pin,
        })
    }

    async fn attack(
        &self,
        place: &Place,
        victim: &mut Victim,
        attack: Attack,
        sources: usize,
    ) -> Result<Figures, RunError> {
        let server = part("server");
        let mut meter = Meter::start(&victim.uri, &place.runtime()).map_err(part("client"))?;
        sleep(Duration::from_secs_f64(self.around)).await;
        let counters_before = victim.part.counters().await.map_err(server)?;
        let server = part("server");
        let (memory_before_kb, drops_before) = victim.memory_and_drops().map_err(server)?;

        meter.enter(Phase::During).await.map_err(part("client"))?;
        let orders = self.orders(place, &victim.uri, attack, sources);
        let attacker = place.attack(&orders).await;
        let (mut attacker, sent) = attacker.map_err(part("attacker"))?;
        let (memory_end_kb, drops_end) = victim.memory_and_drops().map_err(part("server"))?;

        meter.enter(Phase::After).await.map_err(part("client"))?;
        sleep(Duration::from_secs_f64(self.around)).await;
        let stopped = meter.stop().await;
        let [before, during, after] = stopped.map_err(part("client"))?;
        if !self.timed {
            // Its ports are closed then, so that the server need not wait for those it takes for slow.
            Place::end(&mut attacker).await.map_err(part("attacker"))?;
        }
        let start = Instant::now();
        let settled = self.settle(victim, memory_before_kb).await;
        let (counters, memory_settled_kb) = settled.map_err(part("server"))?;
        let settled_after_s = start.elapsed().as_secs_f64();
        if self.timed {
            Place::end(&mut attacker).await.map_err(part("attacker"))?;
        }
        Ok(Figures {
            attack: attack.name.to_owned(),
            uri: victim.uri.clone(),
            sources,
            rate: self.rate,
            sent,
            kernel_drops: drops_end.saturating_sub(drops_before),
            before,
            during,
            after,
            memory_before_kb,
            memory_end_kb,
            memory_settled_kb,
            settled_after_s,
            rpcs_live: counters.get(LIVE).copied().unwrap_or_default(),
            panicked: counters.get("handlers_panicked").is_some_and(|n| *n != 0),
            server: growth(&counters_before, &counters),
            faults: Vec::new(),
        })
    }

    fn orders(&self, place: &Place, uri: &str, attack: Attack, sources: usize) -> Orders {
        let network = place.network.as_ref();
        Orders {
            uri: uri.to_owned(),
            attack: attack.name.to_owned(),
            rate: self.rate,
            count: packets(self.rate, self.seconds),
            burst: self.burst,
            sources,
            strangers: network
                .map(|network| network.host(0).v6())
                .filter(|_| self.v6),
            seed: self.seed,
            core: self.pin.then_some(CORES[1]),
        }
    }

    /// Waits until the server holds nothing of the attack any more, or the time is up.
    async fn settle(
        &self,
        victim: &mut Victim,
        before_kb: u64,
    ) -> Result<(Counters, u64), BoxError> {
        let start = Instant::now();
        loop {
            let counters = victim.part.counters().await?;
            let memory_kb = victim.part.resident_kb()?;
            let empty = counters.get(LIVE).is_none_or(|live| *live == 0);
            let back = !self.timed || Figures::memory_is_back(before_kb, memory_kb);
            let late = start.elapsed().as_secs_f64() >= self.settle;
            if late || (empty && back) {
                return Ok((counters, memory_kb));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Place {
    /// Where the good client runs.
    fn runtime(&self) -> Handle {
        match &self.network {
            Some(network) => network.host(0).runtime().clone(),
            None => Handle::current(),
        }
    }

    fn command(&self) -> Command {
        match &self.network {
            Some(network) => network.host(0).command(&self.program),
            None => Command::new(&self.program),
        }
    }

    async fn serve(&self, uri: Uri) -> Result<Victim, BoxError> {
        let uri = uri.to_string();
        let core = CORES[0].to_string();
        let mut arguments = vec!["hostile-server", &uri];
        if self.pin {
            arguments.push(&core);
        }
        let mut part = Part::start(self.command(), &arguments)?;
        let uri = part.line().await?;
        Ok(Victim { part, uri })
    }

    /// Attacks. The attacker keeps its sources then, until it is told to end.
    async fn attack(&self, orders: &Orders) -> Result<(Part, Sent), BoxError> {
        let orders = serde_json::to_string(orders)?;
        let mut part = Part::start(self.command(), &["hostile-attacker", &orders])?;
        let sent = part.json().await?;
        Ok((part, sent))
    }

    async fn end(attacker: &mut Part) -> Result<(), BoxError> {
        if attacker.stop().await? && !attacker.has_panicked() {
            return Ok(());
        }
        Err("it did not end well".into())
    }
}

impl Victim {
    fn memory_and_drops(&self) -> Result<(u64, u64), BoxError> {
        Ok((self.part.resident_kb()?, self.part.dropped()?))
    }
}

fn packets(rate: usize, seconds: f64) -> usize {
    let count = (rate as f64 * seconds).round().max(0.0);
    // A number that does not fit is as good as the greatest.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is not negative"
    )]
    let count = count as usize;
    count
}

/// What counters have grown by.
fn growth(before: &Counters, after: &Counters) -> Counters {
    let grown = |(name, now): (&String, &u64)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), now.saturating_sub(before))
    };
    after.iter().map(grown).collect()
}
