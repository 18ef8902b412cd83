//! Recorded exchanges of the Linux module, replayed through an endpoint that takes the place of one of
//! the two hosts: it must get along with what the other host sent, and send what the module sent.
//!
//! Packets of the other host come at their recorded times; requests and responses of ours are issued when
//! the module's were first seen. Ids and ports are those of the recording: the endpoint's ids start
//! where the module's did. Compared are, per packet, the whole header, the number of data bytes and the
//! TOS byte, except for
//!
//! - the checksum, and in DATA the hint to segmentation hardware (`doff`) and the place of the offset;
//! - what an ACK acknowledges besides its own RPC: that depends on when the application took a response;
//! - piggybacked acks for RPCs of other sockets, or from before the recording: the module keeps acks per
//!   host.
//!
//! DATA sent for the first time, and each answer to a packet (BUSY, RPC_UNKNOWN, DATA sent again) must be
//! the same as often; what timers and batches cause (RESEND, NEED_ACK, GRANT, CUTOFFS) and ACK must be
//! the same but may come more or less often. Every further difference is stated with its case.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test binary"
)]

#[path = "vectors/replay/mod.rs"]
mod recording;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use homa_protocol::{Config, RpcError, Unreachable};

use self::recording::Side;
use self::recording::host::Replay;
use self::recording::seen::{Kind, Seen};

/// How the RPCs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Each request is answered with its echo.
    Echoed,
    /// No RPC comes about at the server.
    NoRpc,
    TimedOut,
    PortUnreachable,
}

/// A difference that is there for a reason, with that reason.
type Because<T> = &'static [(T, &'static str)];

/// A recording, and which host we are. Every difference stated must really be seen.
struct Case {
    recording: &'static str,
    we_are: Side,
    config: Config,
    /// Counters of [`ERRORS`] that rise.
    rises: Because<&'static str>,
    /// Packets of ours that the module did not send.
    more: Because<Kind>,
    /// Packets of the module that we do not send.
    fewer: Because<Kind>,
    /// Piggybacked acks ride on other packets.
    acks_move: Option<&'static str>,
    end: End,
}

impl Case {
    fn new(recording: &'static str, we_are: Side) -> Self {
        Self {
            recording,
            we_are,
            config: Config {
                need_ack_delay: NEED_ACK_DELAY,
                adaptive_cutoffs: Some(false),
                ..Config::default()
            },
            rises: &[],
            more: &[],
            fewer: &[],
            acks_move: None,
            end: End::Echoed,
        }
    }
}

/// The module asks for an ack after two ticks, whatever its peer's delay.
const NEED_ACK_DELAY: Duration = Duration::from_millis(2);
/// The recording hosts were slow: their tick of 1 ms took about 1.3 ms, so that we ask earlier.
const SLOW_TICKS: &str =
    "our 5 ms and 2 ms are shorter than the 5 and 2 ticks of the recorded hosts";
/// The packets crossed on their way from the link into a slow host.
const SEEN_LATE: &str = "the module had not yet seen a packet that was on the link";
const GRANT_BATCHES: &str =
    "the module grants per batch of packets, we do in steps of 10,000 bytes";
const ACKS_TAKEN: &str = "acks went earlier, with the ACK for an earlier NEED_ACK";
const AGAIN_AFTER_END: &str = "sent again by the module's server, while the response had arrived";
const COPY_ON_ITS_WAY: &str = "a copy asked for so soon cannot have been lost";
const BY_DELAY: &str = "we ask for an ack after twice the delay that was measured";
const RESTART: &str = "the RESEND for a request that never arrived";
const GAVE_UP: &str = "the call fails, as it did in the recording";

/// Counters that stand still while nothing is wrong.
const ERRORS: [&str; 17] = [
    "malformed_truncated",
    "malformed_type",
    "malformed_field",
    "wrong_port",
    "data_contradictory",
    "data_duplicate",
    "data_ungranted",
    "rpc_not_found",
    "duplicate_requests",
    "requests_unserved",
    "requests_refused",
    "messages_deferred",
    "rpcs_failed",
    "rpcs_cancelled",
    "rpcs_cancelled_by_client",
    "unknown_sent",
    "delivered_ids_evicted",
];

impl Case {
    fn run(self) {
        let replay = Replay::new(self.recording, self.we_are, &self.config).run();
        self.check_end(&replay);
        self.check_packets(&replay);
        self.check_counters(&replay);
        check_grants(&replay);
        check_acks(&replay);
    }

    fn check_end(&self, replay: &Replay) {
        for (port, endpoint) in &replay.sockets {
            assert!(endpoint.is_idle(), "port {port}: {:?}", endpoint.stats());
            assert_eq!(endpoint.incoming_bytes(), 0);
            assert_eq!(endpoint.inbound_bytes(), 0);
        }
        if self.end == End::NoRpc {
            assert!(replay.answered.is_empty() && replay.outcomes.is_empty());
            return;
        }
        let ids: BTreeSet<u64> = replay.ids.values().copied().collect();
        if self.we_are == Side::Server {
            assert_eq!(replay.answered, ids);
            assert_eq!(self.end, End::Echoed);
            return;
        }
        assert_eq!(
            replay.outcomes.keys().copied().collect::<BTreeSet<_>>(),
            ids
        );
        for (id, outcome) in &replay.outcomes {
            let end = match outcome {
                Ok(()) => End::Echoed,
                Err(RpcError::TimedOut { .. }) => End::TimedOut,
                Err(RpcError::Unreachable {
                    reason: Unreachable::Port,
                    ..
                }) => End::PortUnreachable,
                Err(error) => panic!("RPC {id:x}: {error}"),
            };
            assert_eq!(end, self.end, "RPC {id:x}");
        }
    }

    fn check_counters(&self, replay: &Replay) {
        let mut errors: BTreeMap<&str, u64> = ERRORS.iter().map(|name| (*name, 0)).collect();
        for endpoint in replay.sockets.values() {
            for (name, _, value) in endpoint.stats().iter() {
                if let Some(total) = errors.get_mut(name) {
                    *total += value;
                }
            }
        }
        errors.retain(|_, total| *total > 0);
        let rises: BTreeSet<&str> = self.rises.iter().map(|(name, _)| *name).collect();
        let rose: BTreeSet<&str> = errors.keys().copied().collect();
        assert_eq!(
            rose, rises,
            "{} {:?}: {errors:?}",
            self.recording, self.we_are
        );
    }

    fn check_packets(&self, replay: &Replay) {
        let (ours, theirs) = (counts(&replay.ours, self), counts(&replay.theirs, self));
        let (mut more, mut fewer) = (BTreeSet::new(), BTreeSet::new());
        let mut differences = Vec::new();
        for seen in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let count = |packets: &BTreeMap<Seen, usize>| {
                let count = packets.get(seen).copied().unwrap_or(0);
                if seen.kind.is_counted() {
                    count
                } else {
                    count.min(1)
                }
            };
            let (we, they) = (count(&ours), count(&theirs));
            let (list, seen_in) = match we.cmp(&they) {
                Ordering::Equal => continue,
                Ordering::Greater => (self.more, &mut more),
                Ordering::Less => (self.fewer, &mut fewer),
            };
            seen_in.insert(seen.kind);
            if !list.iter().any(|(kind, _)| *kind == seen.kind) {
                differences.push(format!("{we} of ours, {they} of the module: {seen:x?}"));
            }
        }
        let name = self.recording;
        assert!(
            differences.is_empty(),
            "{name}:\n{}",
            differences.join("\n")
        );
        for (list, seen) in [(self.more, more), (self.fewer, fewer)] {
            let stated: BTreeSet<Kind> = list.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(stated, seen, "{name}: differences stated and seen");
        }
    }
}

/// Grants rise, and end where the module's do.
fn check_grants(replay: &Replay) {
    let last = |packets: &[Seen]| {
        let mut last: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for seen in packets.iter().filter(|seen| seen.kind == Kind::Grant) {
            let offset = u32::from_be_bytes(seen.header[28..32].try_into().unwrap());
            let before = last.insert(seen.header[20..28].to_vec(), offset);
            assert!(before <= Some(offset), "{}", seen.text);
        }
        last
    };
    assert_eq!(last(&replay.ours), last(&replay.theirs));
}

/// Every RPC that the client acknowledged to the server is one that is over.
fn check_acks(replay: &Replay) {
    for id in &replay.acked {
        assert_eq!(replay.outcomes.get(id), Some(&Ok(())), "RPC {id:x}");
    }
}

fn counts(packets: &[Seen], case: &Case) -> BTreeMap<Seen, usize> {
    let mut counts = BTreeMap::new();
    for seen in packets {
        let mut seen = seen.clone();
        if let Some(ack) = seen.ack_mut().filter(|_| case.acks_move.is_some()) {
            ack.fill(0);
        }
        *counts.entry(seen).or_default() += 1;
    }
    counts
}

/// The recordings of single long RPCs were made with `resend_ticks` 40.
fn patient() -> Config {
    Config {
        need_ack_delay: NEED_ACK_DELAY,
        adaptive_cutoffs: Some(false),
        resend_interval: Duration::from_millis(40),
        ..Config::default()
    }
}

fn without_fifo_grants() -> Config {
    Config {
        grant_fifo_permille: 0,
        ..patient()
    }
}

fn kernel_timeout() -> Config {
    Config {
        need_ack_delay: NEED_ACK_DELAY,
        adaptive_cutoffs: Some(false),
        timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

macro_rules! replays {
    ($($name:ident: $recording:literal as $side:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            #[test]
            fn $name() {
                #[allow(clippy::needless_update, reason = "some cases state everything")]
                let case = Case {
                    $($field: $value,)*
                    ..Case::new($recording, Side::$side)
                };
                case.run();
            }
        )*
    };
}

replays! {
    first_contact_as_client: "first-contact" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[(Kind::Resend, SLOW_TICKS)],
        acks_move: Some(ACKS_TAKEN),
    }
    first_contact_as_server: "first-contact" as Server {
        fewer: &[(Kind::Again, COPY_ON_ITS_WAY), (Kind::NeedAck, BY_DELAY)],
    }
    rpcs_of_100_bytes_as_client: "rpc-100" as Client {}
    rpcs_of_100_bytes_as_server: "rpc-100" as Server {}
    rpcs_of_5_kb_as_client: "rpc-5k" as Client {}
    rpcs_of_5_kb_as_server: "rpc-5k" as Server { more: &[(Kind::NeedAck, SLOW_TICKS)] }
    an_rpc_of_100_kb_as_client: "rpc-100k-clean" as Client { config: patient() }
    an_rpc_of_100_kb_as_server: "rpc-100k-clean" as Server { config: patient() }
    an_rpc_of_500_kb_as_client: "rpc-500k-nofifo" as Client {
        config: without_fifo_grants(),
        more: &[(Kind::Grant, GRANT_BATCHES)],
        fewer: &[(Kind::Grant, GRANT_BATCHES)],
    }
    an_rpc_of_500_kb_as_server: "rpc-500k-nofifo" as Server {
        config: without_fifo_grants(),
        more: &[(Kind::Grant, GRANT_BATCHES)],
        fewer: &[(Kind::Grant, GRANT_BATCHES), (Kind::NeedAck, BY_DELAY)],
    }
    forty_rpcs_at_once_as_client: "multi40x2k" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[
            (Kind::Again, "the module had not sent it yet and said BUSY"),
            (Kind::Resend, SLOW_TICKS),
        ],
        fewer: &[
            (Kind::Busy, "we had sent the data, and send it again"),
            (Kind::Resend, SEEN_LATE),
        ],
        acks_move: Some(ACKS_TAKEN),
    }
    forty_rpcs_at_once_as_server: "multi40x2k" as Server {
        fewer: &[(Kind::Again, COPY_ON_ITS_WAY), (Kind::NeedAck, BY_DELAY)],
    }
    segments_of_a_large_frame_as_client: "gso20000-swseg-10k" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
    }
    segments_of_a_large_frame_as_server: "gso20000-swseg-10k" as Server {
        more: &[(Kind::Busy, SEEN_LATE)],
        fewer: &[(Kind::Again, SEEN_LATE), (Kind::NeedAck, BY_DELAY)],
    }
    a_lost_request_as_client: "loss-req1" as Client {}
    a_lost_request_as_server: "loss-req1-srv" as Server { rises: &[("unknown_sent", RESTART)] }
    a_lost_response_as_client: "loss-resp1" as Client {}
    a_lost_response_as_server: "loss-resp1-srv" as Server {  }
    a_gap_in_a_request_as_client: "loss-reqgap" as Client {}
    a_gap_in_a_request_as_server: "loss-reqgap-srv" as Server {}
    gaps_in_a_response_as_client: "loss-respgap" as Client {
        rises: &[("rpc_not_found", AGAIN_AFTER_END)],
        more: &[(Kind::Resend, SLOW_TICKS)],
        fewer: &[(Kind::Resend, "the module asks at once when it hears NEED_ACK")],
    }
    gaps_in_a_response_as_server: "loss-respgap-srv" as Server {
        fewer: &[(Kind::Again, COPY_ON_ITS_WAY)],
    }
    lost_grants_as_client: "loss-grant" as Client { more: &[(Kind::Resend, SLOW_TICKS)] }
    lost_grants_as_server: "loss-grant-srv" as Server {}
    lost_acks_as_client: "loss-ack" as Client {}
    lost_acks_as_server: "loss-ack-srv" as Server {}
    a_slow_server_as_client: "loss-busy" as Client {}
    a_slow_server_as_server: "loss-busy" as Server {  }
    a_silent_server_as_client: "loss-timeout" as Client {
        config: kernel_timeout(),
        rises: &[("rpcs_failed", GAVE_UP)],
        end: End::TimedOut,
    }
    resends_for_unknown_rpcs_as_server: "loss-timeout-srv" as Server {
        rises: &[("unknown_sent", RESTART)],
        end: End::NoRpc,
    }
    a_dead_client_as_server: "loss-deadclient-srv" as Server {}
    a_closed_port_as_client: "loss-noserver" as Client {
        rises: &[("rpcs_failed", GAVE_UP)],
        end: End::PortUnreachable,
    }
}
