//! What RPCs and timer ticks cost while many other RPCs are outstanding.
//!
//! Two endpoints, joined without a network, hold a number of RPCs that do not end; then a fixed
//! amount of further work is done. The work must not grow with what is outstanding. Count its
//! instructions, without those of the preparation:
//!
//! ```text
//! cargo build --release -p homa-transport --example outstanding
//! valgrind --tool=callgrind --toggle-collect='*measured*' --callgrind-out-file=/dev/null \
//!     target/release/examples/outstanding 100000 service calls 1000
//! ```
//!
//! The arguments: how many RPCs are outstanding; whether they are in `service` or wait for
//! `grants`; and the work:
//!
//! - `calls N`: N calls of 100 bytes each way (2,500 bytes and a grant, among those that wait for
//!   grants), one every 200 µs, and the timers that are due meanwhile. No timer of an outstanding
//!   RPC is.
//! - `ticks N`: N milliseconds of timers in which nothing is due.
//! - `due 1`: one run of the timers in which the timer of every outstanding RPC is due. This does
//!   grow; divide by their number.
//! - `resends N`: N milliseconds of timers at the default interval of RESENDs, when the outstanding
//!   RPCs have been asked about for two seconds: what waiting costs.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use homa_protocol::endpoint::{Event, RpcKey, Transmit};
use homa_protocol::units::{Instant, RpcId};
use homa_protocol::{Config, Endpoint, Message, Wire, wire};

const PACKET_BYTES: usize = 1_472;
/// Longer than any measured time, but for `resends`.
const RESEND_INTERVAL: Duration = Duration::from_millis(600);
/// Time from call to call.
const CALL_INTERVAL: Duration = Duration::from_micros(200);
const TICK: Duration = Duration::from_millis(1);
/// Length of the requests that wait for grants; the window keeps them from being granted whole.
const WAITING_BYTES: usize = 9_000;

/// What the outstanding RPCs wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outstanding {
    Service,
    Grants,
}

struct Pair {
    now: Instant,
    client: Endpoint,
    server: Endpoint,
    kind: Outstanding,
    /// The RPCs that stay outstanding are being begun.
    preparing: bool,
    /// Id of the last of them.
    last_kept: RpcId,
    packets: usize,
    responses: usize,
}

const fn addr(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 4_000)
}

impl Pair {
    fn new(kind: Outstanding, resend_interval: Duration) -> Result<Self, Box<dyn Error>> {
        let mut config = Config {
            resend_interval,
            rpcs_per_peer_max: Config::default().rpcs_max,
            ..Config::default()
        };
        if kind == Outstanding::Grants {
            config.unscheduled_bytes = 1_000;
            config.window_bytes = 5_000;
            config.grant_increment_bytes = 1_000;
            config.inbound_bytes_per_peer_max = config.inbound_bytes_max;
            config.outbound_bytes_per_peer_max = config.outbound_bytes_max;
        }
        let endpoint = || Endpoint::new(config.clone(), Wire::Encapsulated, 4_000, 2);
        let (mut client, mut server) = (endpoint()?, endpoint()?);
        server.set_serving(true);
        let now = Instant::from_nanos(1_000_000_000);
        for endpoint in [&mut client, &mut server] {
            endpoint.handle_timeout(now);
        }
        Ok(Self {
            now,
            client,
            server,
            kind,
            preparing: true,
            last_kept: RpcId::new(0),
            packets: 0,
            responses: 0,
        })
    }

    /// Begins the RPCs that stay outstanding.
    fn prepare(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let len = match self.kind {
            Outstanding::Service => 100,
            Outstanding::Grants => WAITING_BYTES,
        };
        let text = Bytes::from(vec![7; len]);
        for _ in 0..number {
            let rpc = self.call(&text)?;
            self.last_kept = self.client.id_of(rpc).ok_or("the call is over")?;
            self.exchange()?;
        }
        self.preparing = false;
        Ok(())
    }

    fn call(&mut self, text: &Bytes) -> Result<RpcKey, Box<dyn Error>> {
        let message = Message::from(text.clone());
        let rpc = self
            .client
            .send_request(self.now, addr(2), PACKET_BYTES, message, 0)?;
        Ok(rpc)
    }

    /// Moves packets until there are none.
    fn exchange(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let before = self.packets;
            while let Some(transmit) = self.client.poll_transmit(self.now) {
                self.packets += 1;
                let packet = transmit.to_vec();
                self.server
                    .handle_packet(self.now, addr(1), addr(2).ip(), &packet);
            }
            self.serve()?;
            while let Some(transmit) = self.server.poll_transmit(self.now) {
                self.packets += 1;
                let packet = transmit.to_vec();
                if !self.is_withheld(&transmit, &packet) {
                    self.client
                        .handle_packet(self.now, addr(2), addr(1).ip(), &packet);
                }
            }
            while let Some(event) = self.client.poll_event() {
                let Event::Response { .. } = event else {
                    return Err(format!("expected a response, got {event:?}").into());
                };
                self.responses += 1;
            }
            if self.packets == before {
                return Ok(());
            }
        }
    }

    /// Whether it is a grant of what is to stay outstanding.
    fn is_withheld(&self, transmit: &Transmit, packet: &[u8]) -> bool {
        self.kind == Outstanding::Grants
            && transmit.payload.is_empty()
            && wire::parse(packet)
                .is_ok_and(|(header, _)| header.sender_id.client_form() <= self.last_kept)
    }

    /// Answers requests, unless they are to stay outstanding.
    fn serve(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(event) = self.server.poll_event() {
            let Event::Request { rpc, message, .. } = event else {
                return Err(format!("expected a request, got {event:?}").into());
            };
            if !self.preparing {
                self.server
                    .send_response(self.now, rpc, PACKET_BYTES, message.into())?;
            }
        }
        Ok(())
    }

    /// Lets `time` pass, with the timers of every millisecond.
    fn pass(&mut self, time: Duration) -> Result<(), Box<dyn Error>> {
        let (before, tick) = (self.now.as_nanos(), TICK.as_nanos());
        self.now = self.now + time;
        if u128::from(before) / tick != u128::from(self.now.as_nanos()) / tick {
            for endpoint in [&mut self.client, &mut self.server] {
                endpoint.handle_timeout(self.now);
            }
            self.exchange()?;
            std::hint::black_box((self.client.poll_timeout(), self.server.poll_timeout()));
        }
        Ok(())
    }

    #[inline(never)]
    fn measured_calls(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let len = match self.kind {
            Outstanding::Service => 100,
            Outstanding::Grants => 2_500,
        };
        let text = Bytes::from(vec![9; len]);
        for _ in 0..count {
            self.call(&text)?;
            self.exchange()?;
            self.pass(CALL_INTERVAL)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn measured_ticks(&mut self, time: Duration, count: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..count {
            self.pass(time)?;
        }
        Ok(())
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [number, kind, work, count] = arguments else {
        return Err(
            "usage: outstanding NUMBER service|grants calls|ticks|due|resends COUNT".into(),
        );
    };
    let kind = match kind.as_str() {
        "service" => Outstanding::Service,
        "grants" => Outstanding::Grants,
        other => return Err(format!("expected service or grants, got {other:?}").into()),
    };
    let (number, count): (usize, usize) = (number.parse()?, count.parse()?);
    let resend_interval = match work.as_str() {
        "resends" => Config::default().resend_interval,
        _ => RESEND_INTERVAL,
    };
    let mut pair = Pair::new(kind, resend_interval)?;
    pair.prepare(number)?;
    let packets = pair.packets;
    let (expected, limit) = match work.as_str() {
        "calls" => {
            pair.measured_calls(count)?;
            (count, CALL_INTERVAL * u32::try_from(count)?)
        }
        "ticks" => {
            pair.measured_ticks(TICK, count)?;
            (0, TICK * u32::try_from(count)?)
        }
        "due" => {
            pair.measured_ticks(RESEND_INTERVAL + TICK, count)?;
            (0, Duration::ZERO)
        }
        "resends" => {
            for _ in 0..2_000 {
                pair.pass(TICK)?;
            }
            pair.measured_ticks(TICK, count)?;
            (0, Duration::ZERO)
        }
        other => {
            return Err(format!("expected calls, ticks, due or resends, got {other:?}").into());
        }
    };
    let live = (pair.client.rpcs_live(), pair.server.rpcs_live());
    println!(
        "{number} outstanding, {count} {work}: {} packets, {} responses, {} RPCs at the client, {} \
         at the server",
        pair.packets - packets,
        pair.responses,
        live.0,
        live.1
    );
    if pair.responses != expected || live.0 != number {
        return Err(format!("expected {expected} responses and {number} RPCs left").into());
    }
    if limit >= RESEND_INTERVAL {
        return Err(
            format!("{limit:?} is too long: timers of what is outstanding were due").into(),
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments)
}
