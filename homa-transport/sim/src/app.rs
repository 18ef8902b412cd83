//! The applications of a world: they make calls, answer requests, lose interest.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::call::{Content, NewCall};
use super::event::WorldEvent;
use super::host::Host;
use super::invariant::Breach;
use super::random::Random;
use super::trace::What;
use super::workload::Arrivals;
use super::world::{Answer, World};
use homa_protocol::endpoint::{Event, RpcKey};
use homa_protocol::message::Message;
use homa_protocol::wire::MESSAGE_BYTES_MAX;

/// Where messages may start in the common text.
const STARTS: usize = 1 << 20;

/// The text of which every message is a part. It does not repeat itself, so that bytes of another
/// place or another message show.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = Random::new(0x7e47);
    let words = (STARTS + MESSAGE_BYTES_MAX).div_ceil(8);
    let text: Vec<u8> = (0..words)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    text.into()
});

impl Content {
    fn bytes(self) -> Bytes {
        TEXT.slice(self.start..self.start + self.len)
    }

    fn is(self, bytes: &[u8]) -> bool {
        TEXT.get(self.start..self.start + self.len) == Some(bytes)
    }
}

impl World {
    /// Sets the first calls of a host whose process has begun.
    pub(super) fn begin_load(&mut self, host: usize) {
        match self.scenario.load.arrivals {
            Arrivals::Poisson(_) => self.set_next_call(host),
            Arrivals::Closed { outstanding, .. } => {
                for _ in 0..outstanding {
                    self.set_next_call(host);
                }
            }
        }
    }

    fn set_next_call(&mut self, host: usize) {
        let mean = match self.scenario.load.arrivals {
            Arrivals::Poisson(mean) => mean,
            Arrivals::Closed { pause, .. } => pause,
        };
        if self.calls_left > 0 && self.bytes_left > 0 && self.is_loaded() {
            let wait = self.random.exponential(mean);
            self.at(self.now + wait, WorldEvent::Call(host));
        }
    }

    /// A host begins a call to any other.
    pub(super) fn call(&mut self, host: usize) {
        if matches!(self.scenario.load.arrivals, Arrivals::Poisson(_)) {
            self.set_next_call(host);
        }
        if self.calls_left == 0 || self.bytes_left == 0 || !self.is_loaded() {
            return;
        }
        let servers = self.servers_for(host);
        let chosen = self.random.index(servers.len());
        let Some(server) = servers.get(chosen).copied() else {
            return;
        };
        let load = &self.scenario.load;
        let request = load.requests.sample(&mut self.random);
        let response = load.responses.sample(&mut self.random);
        let (given_up, after) = (load.given_up, load.given_up_after);
        self.calls_left -= 1;
        self.bytes_left = self
            .bytes_left
            .saturating_sub(u64::from(request) + u64::from(response));
        let Some((call, rpc)) = self.make_call(host, server, request, response, false) else {
            // Too many calls: tries again, as if this one had ended.
            self.on_outcome(host);
            return;
        };
        if self.random.chance(given_up) {
            let wait = self.random.exponential(after);
            self.at(self.now + wait, WorldEvent::GiveUp(host, call, rpc));
        }
    }

    /// Calls that must succeed, since the faults are over: a short and a long one.
    pub(super) fn probe(&mut self, host: usize) {
        if let Some(server) = self.servers_for(host).first().copied() {
            self.make_call(host, server, 100, 100, true);
            self.make_call(host, server, 60_000, 90_000, true);
        }
    }

    fn call_again(&mut self, at: usize, call: usize) {
        let again = self.oracle.call(call).map(|call| {
            let len = |content: Content| u32::try_from(content.len).unwrap_or(u32::MAX);
            (call.server, len(call.request), len(call.response))
        });
        if let Some((server, request, response)) = again {
            self.make_call(at, server, request, response, true);
        }
    }

    /// The hosts that a host can call: all others that are not behind the NAT.
    fn servers_for(&self, host: usize) -> Vec<usize> {
        let hosts = self.hosts.len();
        (host + 1..host + hosts)
            .map(|number| number % hosts)
            .filter(|server| !self.addresses.is_behind_nat(*server))
            .collect()
    }

    /// All hosts call one at once.
    pub(super) fn burst(&mut self, number: usize) -> Result<(), Breach> {
        let Some(burst) = self.scenario.bursts.get(number).copied() else {
            return Ok(());
        };
        for host in 0..self.hosts.len() {
            let runs = self.hosts.get(host).is_some_and(Host::runs);
            if host == burst.server || !runs || !self.is_loaded() {
                continue;
            }
            for _ in 0..burst.calls {
                let call = self.make_call(host, burst.server, burst.request, burst.response, false);
                self.totals.burst_calls += u64::from(call.is_some());
            }
            self.serve(host)?;
        }
        Ok(())
    }

    fn make_call(
        &mut self,
        at: usize,
        server: usize,
        request: u32,
        response: u32,
        probe: bool,
    ) -> Option<(usize, RpcKey)> {
        let (request, response) = (self.content(request), self.content(response));
        let to = self.hosts.get(server)?.addr;
        let message = self.message(request);
        let call = self.oracle.next_call();
        let packet_bytes = self.scenario.packet_bytes;
        let host = self.hosts.get_mut(at)?;
        let now = host.clock.local(self.now);
        let rpc = host
            .endpoint
            .send_request(now, to, packet_bytes, message, call as u64)
            .ok()?;
        let id = host.endpoint.id_of(rpc)?;
        self.oracle.begin(
            id,
            NewCall {
                client: at,
                server,
                request,
                response,
                probe,
                begun: self.now,
            },
        );
        self.record(at, What::Called(call as u64, server, request.len));
        Some((call, rpc))
    }

    fn content(&mut self, len: u32) -> Content {
        Content {
            start: self.random.index(STARTS),
            len: (len as usize).clamp(1, MESSAGE_BYTES_MAX),
        }
    }

    /// The message of a content, at times in several slices, at times a part of a whole.
    fn message(&mut self, content: Content) -> Message {
        let bytes = content.bytes();
        if !self.random.chance(200_000) {
            return self.as_part(content, bytes.into());
        }
        let cut = self.random.index(content.len);
        let slices = [bytes.slice(..cut), bytes.slice(cut..)];
        self.as_part(content, slices.into_iter().collect())
    }

    /// The place of a content decides whether it is a part, so that a world draws as much as it always did.
    fn as_part(&self, content: Content, message: Message) -> Message {
        let mut chance = Random::new(content.start as u64);
        if !chance.chance(self.scenario.load.parts) {
            return message;
        }
        let following = chance.pick([0, 1, 100_000, 1_000_000, u64::MAX]);
        let message = message.with_following(following);
        if chance.chance(500_000) {
            return message.scheduled();
        }
        message
    }

    /// The application of a host is told something.
    pub(super) fn on_event(&mut self, at: usize, event: Event) -> Result<(), Breach> {
        match event {
            // Worlds send no FREEZE.
            Event::Frozen => Ok(()),
            Event::Request { rpc, peer, message } => {
                let client = self.addresses.find(peer);
                let client = client.map_or(usize::MAX, |client| self.addresses.party(client));
                self.on_request(at, rpc, client, &message)
            }
            Event::Response { cookie, message } => {
                let call = usize::try_from(cookie).unwrap_or(usize::MAX);
                self.record(at, What::Ended(cookie, Some(message.len())));
                self.on_outcome(at);
                self.oracle
                    .on_response(at, call, |content| content.is(&message))
            }
            Event::Failed { cookie, error } => {
                let call = usize::try_from(cookie).unwrap_or(usize::MAX);
                self.record(at, What::Ended(cookie, None));
                self.on_outcome(at);
                if self.oracle.on_failure(at, call, &error)? {
                    self.call_again(at, call);
                }
                Ok(())
            }
            Event::Cancelled { rpc } => {
                let process = self.hosts.get(at).map_or(0, |host| host.process);
                let call = self
                    .answers
                    .iter()
                    .rev()
                    .find(|answer| {
                        answer.host == at && answer.rpc == rpc && answer.process == process
                    })
                    .and_then(|answer| answer.call);
                self.record(
                    at,
                    What::Cancelled(call.map_or(u64::MAX, |call| call as u64)),
                );
                self.oracle.on_cancelled(at, call)
            }
        }
    }

    fn on_outcome(&mut self, host: usize) {
        if matches!(self.scenario.load.arrivals, Arrivals::Closed { .. }) {
            self.set_next_call(host);
        }
    }

    fn on_request(
        &mut self,
        at: usize,
        rpc: RpcKey,
        client: usize,
        message: &[u8],
    ) -> Result<(), Breach> {
        let Some(host) = self.hosts.get(at) else {
            return Ok(());
        };
        let process = host.process;
        // A request that ended before the application looked has no id any more: its call cannot
        // be told, and nobody waits for an answer.
        let Some(id) = host.endpoint.id_of(rpc) else {
            return Ok(());
        };
        let call = self
            .oracle
            .on_request(at, process, client, id, |content| content.is(message))?;
        self.record(at, What::Request(call.map_or(u64::MAX, |call| call as u64)));
        let place = self.answers.len();
        self.answers.push(Answer {
            host: at,
            rpc,
            process,
            call,
        });
        let service = self.scenario.load.service;
        if service == Duration::ZERO {
            self.answer(at, place);
        } else {
            let wait = self.random.exponential(service);
            self.at(self.now + wait, WorldEvent::Answer(at, place));
        }
        Ok(())
    }

    /// The application of a host answers a request, or drops it.
    pub(super) fn answer(&mut self, at: usize, place: usize) {
        let Some(answer) = self.answers.get(place).copied() else {
            return;
        };
        let number = answer.call.map_or(u64::MAX, |call| call as u64);
        let drops = self.random.chance(self.scenario.load.dropped) && self.is_loaded();
        let content = match answer.call.and_then(|call| self.oracle.call(call)) {
            Some(call) => call.response,
            None => Content { start: 0, len: 100 },
        };
        let message = self.message(content);
        let packet_bytes = self.scenario.packet_bytes;
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        if host.process != answer.process {
            return;
        }
        let now = host.clock.local(self.now);
        if drops {
            host.endpoint.abort(now, answer.rpc);
            self.record(at, What::Dropped(number));
            return;
        }
        let given = host
            .endpoint
            .send_response(now, answer.rpc, packet_bytes, message);
        if given.is_ok() {
            if let Some(call) = answer.call {
                self.oracle.on_answer(call);
            }
            self.record(at, What::Answered(number, content.len));
        }
    }

    /// The application of a host gives a call up.
    pub(super) fn give_up(&mut self, at: usize, call: usize, rpc: RpcKey) {
        if !self.oracle.on_give_up(at, call) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(at) {
            let now = host.clock.local(self.now);
            host.endpoint.abort(now, rpc);
        }
        self.record(at, What::GivenUp(call as u64));
        self.on_outcome(at);
    }
}
