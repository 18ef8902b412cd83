//! Recorded exchanges between two Linux hosts with the Homa module, headers only.
//!
//! A file holds one recording as text; lines that start with `#` are comments. `client` and `server`
//! name the hosts, every other line is a packet: its number in the recording, its time in
//! microseconds, the host that sent it (`C` or `S`), and then either the TOS byte, the number of data
//! bytes and the Homa header, or `icmp`, type and code, and the ports of the packet that it reports,
//! source first. Numbers are missing where there was ARP.
//!
//! The message bytes are not in the files. [`message`] makes them up, by the formula of the program
//! that was recorded, so that an echo can be told from a wrong one. Bytes 16 and 17 of the headers hold
//! an unfinished checksum.

pub(crate) mod host;
pub(crate) mod seen;

use std::net::IpAddr;

use homa_protocol::units::Instant;

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A recording.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) client: IpAddr,
    pub(crate) server: IpAddr,
    pub(crate) packets: Vec<Recorded>,
}

/// A packet on the link.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) number: u32,
    pub(crate) at: Instant,
    pub(crate) from: Side,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// A Homa packet: header and data.
    Homa { tos: u8, bytes: Vec<u8> },
    /// ICMP port unreachable about a packet to this port.
    PortUnreachable { port: u16 },
}

/// The recording of this name.
pub(crate) fn load(name: &str) -> Recording {
    // homa-transport, which has this package in a folder, reads them too.
    let read = |folder| {
        let package = env!("CARGO_MANIFEST_DIR");
        std::fs::read_to_string(format!("{package}/{folder}tests/vectors/replay/{name}.txt"))
    };
    let text = read("").or_else(|_| read("protocol/")).expect(name);
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut host = |key| {
        let line = lines.next().and_then(|line| line.strip_prefix(key));
        line.expect(key).trim().parse().expect("an IP address")
    };
    let (client, server) = (host("client"), host("server"));
    let packets = lines.map(recorded).collect();
    Recording {
        client,
        server,
        packets,
    }
}

/// Bytes of `range` of the request of RPC `id` (client's form), and of its response, which is its echo.
pub(crate) fn message(id: u64, range: std::ops::Range<usize>) -> Vec<u8> {
    let start = usize::try_from(id / 2 % 256).expect("a byte") * 31;
    let byte = |i: usize| (7 * i + 13 * (i >> 8) + start) % 256;
    range
        .map(|i| u8::try_from(byte(i)).expect("a byte"))
        .collect()
}

fn recorded(line: &str) -> Recorded {
    let fields: Vec<&str> = line.split(' ').collect();
    let [number, micros, from, rest @ ..] = fields.as_slice() else {
        panic!("a packet: {line}");
    };
    let micros: u64 = micros.parse().expect(line);
    let content = match rest {
        ["icmp", "3/3", _, port] => Content::PortUnreachable {
            port: port.parse().expect(line),
        },
        [tos, data_bytes, header] => Content::Homa {
            tos: u8::from_str_radix(tos, 16).expect(line),
            bytes: with_data(hex(header), data_bytes.parse().expect(line)),
        },
        _ => panic!("a Homa packet or ICMP 3/3: {line}"),
    };
    Recorded {
        number: number.parse().expect(line),
        at: Instant::from_nanos(1_000_000_000 + micros * 1_000),
        from: match *from {
            "C" => Side::Client,
            "S" => Side::Server,
            other => panic!("C or S, not {other}"),
        },
        content,
    }
}

fn with_data(mut bytes: Vec<u8>, data_bytes: usize) -> Vec<u8> {
    if data_bytes > 0 {
        let number = |range: std::ops::Range<usize>| {
            let number = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
            bytes[range].iter().fold(0, number)
        };
        let in_segment = number(52..56);
        let offset = if in_segment == u64::from(u32::MAX) {
            number(4..8)
        } else {
            in_segment
        };
        let offset = usize::try_from(offset).expect("an offset");
        let data = message(number(20..28) & !1, offset..offset + data_bytes);
        bytes.extend(data);
    }
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digits).collect()
}
