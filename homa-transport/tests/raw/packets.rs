//! What goes over the link, compared with recordings of the kernel module.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_transport::wire::{self, Packet};
use homa_transport::{Config, Socket, Transport};
use socket2::Socket as Tap;

use super::netns::Host;
use super::recording::seen::{Kind, Seen};
use super::recording::{self, Content};
use super::{echo, eventually, serve_reversed};
use crate::{needs_root, netns};

/// The server's port, in the recordings too.
const PORT: u16 = 4_000;
/// TOS or traffic class of control packets: level 7.
const TOP: u8 = 0xe0;

/// A Homa packet on the link.
struct OnLink {
    tos: u8,
    bytes: Vec<u8>,
}

/// What is compared of DATA: TOS, length, and the header without what differs from run to run.
type FirstData = (u8, usize, Vec<u8>);

/// One exchange of messages.
#[derive(Default)]
struct Exchange {
    /// DATA as first sent, by RPC and offset, from the client and from the server.
    data: [Vec<FirstData>; 2],
    /// TOS and lengths of the other packets.
    others: BTreeMap<Kind, BTreeSet<(u8, usize)>>,
    /// Lengths of the requests, in order.
    requests: Vec<usize>,
}

impl Exchange {
    fn of(packets: impl IntoIterator<Item = OnLink>) -> Self {
        let mut exchange = Self::default();
        // Ids, in order of their appearance: those of later RPCs are higher.
        let mut ids: Vec<u64> = Vec::new();
        for OnLink { tos, bytes } in packets {
            let seen = Seen::new(tos, &bytes);
            let (header, packet) = wire::parse(&bytes).unwrap();
            let Packet::Data(data, _) = packet else {
                let others = exchange.others.entry(seen.kind).or_default();
                others.insert((tos, bytes.len()));
                continue;
            };
            if seen.kind == Kind::Again {
                let others = exchange.others.entry(seen.kind).or_default();
                others.insert((tos, 0));
                continue;
            }
            let id = header.sender_id.client_form().value();
            let from_client = header.sender_id.is_client();
            if from_client && data.offset == 0 {
                ids.push(id);
                exchange.requests.push(data.message_length as usize);
            }
            let number = |id: u64| ids.iter().position(|known| *known == id);
            let mut raw = seen.header;
            raw[0..4].fill(0);
            let own = number(id).unwrap_or_default();
            raw[20..28].copy_from_slice(&own.to_be_bytes());
            // What came before the recording began is not acknowledged here.
            let acked = data.ack.and_then(|ack| number(ack.id.value()));
            match acked {
                Some(number) => raw[36..44].copy_from_slice(&number.to_be_bytes()),
                None => raw[36..46].fill(0),
            }
            let side = usize::from(!from_client);
            exchange.data[side].push((tos, bytes.len(), raw));
        }
        // Packets of one message may overtake one another on the way to the link, also in the module.
        for data in &mut exchange.data {
            data.sort_by_key(|(_, _, raw)| (raw[20..28].to_vec(), raw[4..8].to_vec()));
        }
        exchange
    }

    fn recorded(name: &str) -> Self {
        let packets = recording::load(name).packets.into_iter();
        Self::of(packets.filter_map(|packet| match packet.content {
            Content::Homa { tos, bytes } => Some(OnLink { tos, bytes }),
            Content::PortUnreachable { .. } => None,
        }))
    }
}

/// The packets of protocol 146 that a tap has seen, in order. They are whole and unfragmented.
fn read(tap: &Tap) -> Vec<OnLink> {
    let mut packets = Vec::new();
    let mut bytes = vec![0; 2048];
    while let Ok(len) = (&mut &*tap).read(&mut bytes) {
        let packet = &bytes[..len];
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        match (packet[0] >> 4, packet[9], packet[6]) {
            (4, 146, _) => {
                assert_eq!(packet[0], 0x45, "no IP options");
                assert_eq!(word(6), 0x4000, "don't fragment, and no fragment");
                assert_eq!(usize::from(word(2)), len);
                let (tos, bytes) = (packet[1], packet[20..].to_vec());
                packets.push(OnLink { tos, bytes });
            }
            (6, _, 146) => {
                assert_eq!(usize::from(word(4)), len - 40);
                let tos = u8::try_from(word(0) >> 4 & 0xff).unwrap();
                let bytes = packet[40..].to_vec();
                packets.push(OnLink { tos, bytes });
            }
            _ => {}
        }
    }
    packets
}

/// Makes calls of these lengths, one after another, and returns what they put on the link.
fn exchange(config: &Config, to: IpAddr, lens: &[usize]) -> Vec<OnLink> {
    let [here, there] = Host::pair(1500);
    let addr = SocketAddr::new(to, PORT);
    let open = |config: Config| async move { Socket::raw(addr, config).unwrap() };
    let server = there.block_on(open(config.clone()));
    serve_reversed(&server);
    let config = config.clone();
    let client = here.block_on(async { Socket::raw_client(config).unwrap() });
    let settled = move || {
        let server = server.clone();
        async move { eventually(|| server.stats().rpcs_live == 0).await }
    };
    // The recorded hosts had met before: they knew each other's cutoffs.
    here.block_on(echo(client.clone(), addr, 100, 0));
    there.block_on(settled());
    let tap = here.tap();
    for (number, len) in lens.iter().enumerate() {
        here.block_on(echo(client.clone(), addr, *len, number));
    }
    there.block_on(settled());
    read(&tap)
}

/// The hosts of this test may be slow: nobody is to ask before it is time.
fn patient() -> Config {
    Config {
        resend_interval: Duration::from_secs(5),
        need_ack_delay: Duration::from_secs(2),
        delivered_memory: Duration::from_secs(60),
        ..Config::default()
    }
}

fn compare(name: &str, config: &Config) {
    let recorded = Exchange::recorded(name);
    let packets = exchange(config, "10.0.0.2".parse().unwrap(), &recorded.requests);
    let ours = Exchange::of(packets);
    assert_eq!(ours.requests, recorded.requests);
    for (side, name_of_side) in ["client", "server"].iter().enumerate() {
        let (ours, theirs) = (&ours.data[side], &recorded.data[side]);
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{name}: DATA of the {name_of_side}"
        );
        for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            assert_eq!(ours, theirs, "{name}: DATA {index} of the {name_of_side}");
        }
    }
    for (kind, packets) in &ours.others {
        if let Some(theirs) = recorded.others.get(kind) {
            assert_eq!(packets, theirs, "{name}: TOS and lengths of {kind:?}");
        }
    }
    for kind in recorded.others.keys() {
        let untimely = matches!(kind, Kind::Resend | Kind::Busy | Kind::Again);
        assert!(
            untimely || ours.others.contains_key(kind),
            "{name}: no {kind:?}"
        );
    }
}

#[test]
fn rpcs_of_100_bytes_go_as_the_module_sends_them() {
    needs_root!();
    compare("rpc-100", &patient());
}

#[test]
fn rpcs_of_5_kb_go_as_the_module_sends_them() {
    needs_root!();
    compare("rpc-5k", &patient());
}

#[test]
fn an_rpc_of_100_kb_goes_as_the_module_sends_it() {
    needs_root!();
    compare("rpc-100k-clean", &patient());
}

#[test]
fn an_rpc_of_500_kb_goes_as_the_module_sends_it() {
    needs_root!();
    let config = Config {
        grant_fifo_permille: 0,
        ..patient()
    };
    compare("rpc-500k-nofifo", &config);
}

#[test]
fn over_ipv6_the_traffic_class_holds_the_level() {
    needs_root!();
    let packets = exchange(&patient(), "fd00::2".parse().unwrap(), &[100, 50_000]);
    let ours = Exchange::of(packets);
    // Levels by the module's factory cutoffs: 7 up to 200 bytes, 4 above 15,000; granted bytes of a
    // single message have the lowest.
    for data in &ours.data {
        let unscheduled = 40_000_usize.div_ceil(1404);
        let scheduled = 10_000_usize.div_ceil(1404);
        let expected = [(TOP, 1), (0x80, unscheduled), (0, scheduled)];
        let levels = expected.map(|(tos, count)| std::iter::repeat_n(tos, count));
        let levels: Vec<u8> = levels.into_iter().flatten().collect();
        assert_eq!(
            data.iter().map(|(tos, ..)| *tos).collect::<Vec<_>>(),
            levels
        );
        assert_eq!(data[1].1, 1460, "56 bytes of header, 1404 of data");
    }
    for packets in ours.others.values() {
        assert!(packets.iter().all(|(tos, _)| *tos == TOP));
    }
}
