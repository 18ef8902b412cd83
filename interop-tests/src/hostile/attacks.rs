//! The table of attacks: what each sends, packet by packet.

use homa_transport::units::RpcId;
use homa_transport::wire::PacketType;

use super::forge::{self, TYPES, Target};
use super::frames;
use super::random::Random;
use super::tape::Tape;

/// Largest datagram that is tried: UDP over IPv4 has no longer ones.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Sizes at which readers go wrong: around each header, the longest message's packets, and the ends.
const SIZES: [usize; 20] = [
    0, 1, 11, 12, 27, 28, 29, 33, 36, 37, 55, 56, 57, 61, 62, 79, 80, 1_472, 9_000, 65_507,
];
/// Bytes of the packets of a burst: 134,592 of them are 24 MB.
const BURST_PACKET_BYTES: usize = 178;
/// Header of a DATA packet.
const DATA_HEADER_BYTES: usize = 56;
/// The type of a packet stands there.
const TYPE_AT: usize = 11;

/// What an attacker does.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// As the command line has it.
    pub name: &'static str,
    /// What it sends.
    pub about: &'static str,
    /// Whether it begins with a burst of first packets.
    pub burst: bool,
    /// Calls of the client that is listened to may fail: it is attacked from its own address, with ids that
    /// only somebody between it and the server can know.
    pub excused: bool,
    shot: Option<fn(&mut Scene<'_>) -> Shot>,
}

/// What an attacker has to go by.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) random: &'a mut Random,
    /// Of a client that is listened to.
    pub(super) tape: &'a Tape,
    pub(super) target: Target,
    /// Number of the packet, from 0.
    pub(super) number: usize,
}

/// One packet or message of an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shot {
    Packet {
        bytes: Vec<u8>,
        from: Sender,
    },
    /// A message of the client that is listened to: sent and acknowledged by the rules.
    Message(Vec<u8>),
}

/// Whose address a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// One of the attacker's sources.
    Stranger,
    /// The client that is listened to.
    Observed,
    /// A port that is closed when an answer comes.
    Closed,
}

/// All attacks.
pub const ATTACKS: [Attack; 12] = [
    Attack {
        name: "mutated",
        about: "recorded packets with bits turned over, cut or made longer",
        burst: false,
        excused: false,
        shot: Some(mutated),
    },
    Attack {
        name: "forged",
        about: "every type of packet for ids of live calls, from other addresses",
        burst: false,
        excused: false,
        shot: Some(forged_by_strangers),
    },
    Attack {
        name: "forged-observed",
        about: "every type of packet for ids of live calls, from their client's own address",
        burst: false,
        excused: true,
        shot: Some(forged_as_the_client),
    },
    Attack {
        name: "unfinished",
        about: "first packets of requests of 5 kB to 1 MB, and nothing more",
        burst: false,
        excused: false,
        shot: Some(unfinished),
    },
    Attack {
        name: "max-length",
        about: "requests of 1,000,000 bytes announced with one byte each",
        burst: false,
        excused: false,
        shot: Some(max_length),
    },
    Attack {
        name: "frames",
        about: "malformed RPC frames in sound messages, from strangers and from a client by the rules",
        burst: false,
        excused: false,
        shot: Some(malformed_frames),
    },
    Attack {
        name: "stalled-uploads",
        about: "first pieces of messages of 1 to 4 MB, and nothing more",
        burst: false,
        excused: false,
        shot: Some(stalled_uploads),
    },
    Attack {
        name: "sizes",
        about: "datagrams of 0 to 65,507 bytes",
        burst: false,
        excused: false,
        shot: Some(sizes),
    },
    Attack {
        name: "replays",
        about: "recorded packets once more, both directions, from others and from their client",
        burst: false,
        excused: false,
        shot: Some(replays),
    },
    Attack {
        name: "burst",
        about: "134,592 forged first packets (24 MB) in two seconds, then silence",
        burst: true,
        excused: false,
        shot: None,
    },
    Attack {
        name: "unreachable",
        about: "first packets from closed ports: each answer is reported as undeliverable",
        burst: false,
        excused: false,
        shot: Some(unreachable),
    },
    Attack {
        name: "burst-unreachable",
        about: "the burst, then first packets from closed ports",
        burst: true,
        excused: false,
        shot: Some(unreachable),
    },
];

impl Attack {
    /// The attack of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ATTACKS.into_iter().find(|attack| attack.name == name)
    }

    /// Whether it sends nothing but the burst.
    pub(super) const fn is_quiet(&self) -> bool {
        self.shot.is_none()
    }

    /// The next packet, if it sends any but those of the burst.
    pub(super) fn shot(&self, scene: &mut Scene<'_>) -> Option<Shot> {
        self.shot.map(|shot| shot(scene))
    }
}

/// A packet of a burst: the first of a request of two.
pub(super) fn burst_shot(scene: &mut Scene<'_>) -> Shot {
    let data = vec![0; BURST_PACKET_BYTES - DATA_HEADER_BYTES];
    let bytes = forge::first_packet(scene.target, new_id(scene), 2_000, &data);
    stranger(bytes)
}

const fn stranger(bytes: Vec<u8>) -> Shot {
    let from = Sender::Stranger;
    Shot::Packet { bytes, from }
}

fn new_id(scene: &mut Scene<'_>) -> RpcId {
    RpcId::new(scene.random.next()).client_form()
}

/// A recorded packet, of either direction if `both`.
fn recorded(scene: &mut Scene<'_>, both: bool) -> Vec<u8> {
    let packets = if both && scene.random.below(4) == 0 {
        &scene.tape.to_client
    } else {
        &scene.tape.to_server
    };
    let at = scene.random.below(packets.len());
    packets.get(at).cloned().unwrap_or_default()
}

fn mutated(scene: &mut Scene<'_>) -> Shot {
    let mut bytes = recorded(scene, true);
    let how = scene.random.below(8);
    if how < 6 {
        scene.random.flip_bits(&mut bytes);
    }
    if how >= 5 {
        let len = scene.random.below(bytes.len() + 1);
        bytes.truncate(len);
    }
    if how == 7 {
        let len = scene.random.below(200);
        bytes.extend(scene.random.bytes(len));
    }
    stranger(bytes)
}

fn forged(scene: &mut Scene<'_>) -> Vec<u8> {
    let packet_type = TYPES
        .get(scene.number % TYPES.len())
        .copied()
        .unwrap_or(PacketType::Data);
    let live = scene
        .tape
        .ids
        .get(scene.random.below(scene.tape.ids.len()))
        .copied();
    let id = match live {
        Some(id) if scene.random.below(8) != 0 => id,
        // A neighbour of a live one, or any.
        Some(id) => RpcId::new(id.value().wrapping_add(2)),
        None => new_id(scene),
    };
    let id = if scene.random.below(4) == 0 {
        id.other_side()
    } else {
        id
    };
    forge::about(scene.target, id, packet_type, scene.random)
}

fn forged_by_strangers(scene: &mut Scene<'_>) -> Shot {
    stranger(forged(scene))
}

fn forged_as_the_client(scene: &mut Scene<'_>) -> Shot {
    let from = Sender::Observed;
    let bytes = forged(scene);
    Shot::Packet { bytes, from }
}

fn unfinished(scene: &mut Scene<'_>) -> Shot {
    let length = 5_000 + scene.random.below(995_001);
    let length = u32::try_from(length).unwrap_or_default();
    let data = vec![0; 1 + scene.random.below(1_400)];
    stranger(forge::first_packet(
        scene.target,
        new_id(scene),
        length,
        &data,
    ))
}

fn max_length(scene: &mut Scene<'_>) -> Shot {
    let id = new_id(scene);
    stranger(forge::first_packet(scene.target, id, 1_000_000, &[0]))
}

fn malformed_frames(scene: &mut Scene<'_>) -> Shot {
    let frame = frames::hostile(scene.random);
    if scene.number.is_multiple_of(2) {
        return Shot::Message(frame);
    }
    stranger(forge::request(scene.target, new_id(scene), &frame))
}

fn stalled_uploads(scene: &mut Scene<'_>) -> Shot {
    let frame = frames::first_piece(scene.random);
    stranger(forge::request(scene.target, new_id(scene), &frame))
}

fn sizes(scene: &mut Scene<'_>) -> Shot {
    let size = match SIZES.get(scene.number % (2 * SIZES.len())) {
        Some(size) => *size,
        None if scene.random.below(8) == 0 => scene.random.below(DATAGRAM_BYTES_MAX + 1),
        None => scene.random.below(2_000),
    };
    let mut bytes = match scene.random.below(4) {
        0 => vec![0; size],
        1 => vec![0xff; size],
        2 => {
            let mut bytes = recorded(scene, false);
            bytes.resize(size, 0);
            bytes
        }
        _ => {
            let data = vec![0; size.saturating_sub(DATA_HEADER_BYTES)];
            let mut bytes = forge::request(scene.target, new_id(scene), &data);
            bytes.truncate(size);
            bytes
        }
    };
    // Any type, which each has its own length.
    if scene.random.below(2) == 0
        && let Some(field) = bytes.get_mut(TYPE_AT)
        && let Some(packet_type) = scene.random.pick(&TYPES)
    {
        *field = *packet_type as u8;
    }
    stranger(bytes)
}

fn replays(scene: &mut Scene<'_>) -> Shot {
    let bytes = recorded(scene, true);
    let from = if scene.random.below(4) == 0 {
        Sender::Observed
    } else {
        Sender::Stranger
    };
    Shot::Packet { bytes, from }
}

fn unreachable(scene: &mut Scene<'_>) -> Shot {
    let id = new_id(scene);
    Shot::Packet {
        bytes: forge::first_packet(scene.target, id, 2_000, &[0; 122]),
        from: Sender::Closed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use homa_transport::wire::{Packet, parse};

    use super::*;

    /// The first `count` shots of an attack on a call that is known.
    fn shots(attack: Attack, count: usize) -> Vec<Shot> {
        let target = Target { port: 9 };
        let mut tape = Tape::default();
        tape.ids.push_back(RpcId::new(1_000));
        let request = forge::request(target, RpcId::new(1_000), b"hello");
        tape.to_server.push_back(request.clone());
        tape.to_client.push_back(request);
        let random = &mut Random::new(3);
        let mut scene = Scene {
            random,
            tape: &tape,
            target,
            number: 0,
        };
        (0..count)
            .filter_map(|number| {
                scene.number = number;
                attack.shot(&mut scene)
            })
            .collect()
    }

    fn packets(name: &str) -> Vec<(Vec<u8>, Sender)> {
        shots(Attack::find(name).unwrap(), 2_000)
            .into_iter()
            .filter_map(|shot| match shot {
                Shot::Packet { bytes, from } => Some((bytes, from)),
                Shot::Message(_) => None,
            })
            .collect()
    }

    #[test]
    fn names_are_unique_and_attacks_are_the_same_for_the_same_seed() {
        let names: HashSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        for attack in ATTACKS {
            assert_eq!(shots(attack, 50), shots(attack, 50), "{}", attack.name);
        }
        assert!(Attack::find("peaceful").is_none());
    }

    #[test]
    fn no_packet_is_longer_than_a_datagram_and_all_sizes_at_the_edges_come() {
        for attack in ATTACKS {
            for (bytes, _) in packets(attack.name) {
                assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{}", attack.name);
            }
        }
        let lengths: HashSet<_> = packets("sizes").into_iter().map(|(b, _)| b.len()).collect();
        assert!(SIZES.iter().all(|size| lengths.contains(size)));
        assert!(lengths.len() > 500);
    }

    #[test]
    fn what_strangers_forge_is_of_every_type_and_mostly_for_the_live_call() {
        let packets = packets("forged");
        assert!(packets.iter().all(|(_, from)| *from == Sender::Stranger));
        let parsed: Vec<_> = packets.iter().flat_map(|(bytes, _)| parse(bytes)).collect();
        for packet_type in TYPES {
            assert!(parsed.iter().any(|(_, p)| p.packet_type() == packet_type));
        }
        let live = parsed.iter().filter(|(header, _)| {
            let id = header.sender_id;
            id.client_form() == RpcId::new(1_000)
        });
        assert!(live.count() > packets.len() / 2);
    }

    #[test]
    fn first_packets_announce_more_than_they_bring() {
        for name in ["unfinished", "max-length", "unreachable"] {
            for (bytes, _) in packets(name) {
                let Packet::Data(data, bytes) = parse(&bytes).unwrap().1 else {
                    panic!("{name} sends DATA");
                };
                assert!(data.message_length as usize > bytes.len() && data.offset == 0);
            }
        }
    }

    #[test]
    fn a_burst_has_24_megabytes() {
        let mut scene = Scene {
            random: &mut Random::new(1),
            tape: &Tape::default(),
            target: Target { port: 1 },
            number: 0,
        };
        let Shot::Packet { bytes, .. } = burst_shot(&mut scene) else {
            panic!("a burst is made of packets");
        };
        assert_eq!(134_592 * bytes.len() / 1_000_000, 23);
        assert!(parse(&bytes).is_ok());
    }
}
