//! The last packets of an endpoint: always recorded, shown when something is to be understood.
//!
//! The module keeps a trace buffer per core that a FREEZE packet stops, so that the traces of all
//! hosts show the same moment. Source: homa_devel.c, `homa_freeze_peers`.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use crate::units::{Instant, RpcId};
use crate::wire::{Packet, PacketType};

/// Packets remembered.
const RECORDS_MAX: usize = 512;

/// One packet as the endpoint saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was received, or handed out to be sent.
    pub at: Instant,
    /// It was sent by us.
    pub sent: bool,
    /// The other end.
    pub peer: SocketAddr,
    /// Its RPC, in the form of the packet's sender.
    pub id: RpcId,
    /// Its type.
    pub packet_type: PacketType,
    /// DATA, GRANT and RESEND: the message offset; CUTOFFS: the version.
    pub offset: u32,
    /// DATA and RESEND: bytes; ACK: RPCs acknowledged besides the one in the header.
    pub length: u32,
    /// DATA and START_MSG: length of the whole message.
    pub message_length: u32,
    /// DATA: sent again.
    pub retransmit: bool,
}

impl Record {
    /// Describes a packet whose data, if it is DATA, has `data_bytes`.
    #[must_use]
    pub fn of(
        at: Instant,
        sent: bool,
        peer: SocketAddr,
        id: RpcId,
        packet: &Packet<'_>,
        data_bytes: usize,
    ) -> Self {
        let mut record = Self {
            at,
            sent,
            peer,
            id,
            packet_type: packet.packet_type(),
            offset: 0,
            length: 0,
            message_length: 0,
            retransmit: false,
        };
        match packet {
            Packet::Data(data, _) => {
                record.offset = data.offset;
                record.length = u32::try_from(data_bytes).unwrap_or(u32::MAX);
                record.message_length = data.message_length;
                record.retransmit = data.retransmit;
            }
            Packet::Grant(grant) => record.offset = grant.offset,
            Packet::Resend(resend) => {
                record.offset = resend.offset;
                record.length = resend.length.unwrap_or(u32::MAX);
            }
            Packet::Cutoffs(cutoffs) => record.offset = u32::from(cutoffs.version),
            Packet::Ack(acks) => record.length = u32::try_from(acks.len()).unwrap_or(0),
            Packet::StartMsg(start) => record.message_length = start.message_length,
            Packet::RpcUnknown(_) | Packet::Busy(_) | Packet::Freeze | Packet::NeedAck => {}
        }
        record
    }
}

impl fmt::Display for Record {
    /// What the packet says, without time and peer: `DATA 0..1424 of 5000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.offset, self.offset.saturating_add(self.length));
        write!(f, "{}", self.packet_type)?;
        match self.packet_type {
            PacketType::Data => {
                write!(f, " {start}..{end} of {}", self.message_length)?;
                if self.retransmit {
                    f.write_str(" again")
                } else {
                    Ok(())
                }
            }
            PacketType::Grant => write!(f, " up to {start}"),
            PacketType::Resend if self.length == u32::MAX => f.write_str(" everything"),
            PacketType::Resend => write!(f, " {start}..{end}"),
            PacketType::Cutoffs => write!(f, " version {start}"),
            PacketType::StartMsg => write!(f, " of {}", self.message_length),
            PacketType::Ack if self.length > 0 => write!(f, " and {} more", self.length),
            PacketType::Ack
            | PacketType::RpcUnknown
            | PacketType::Busy
            | PacketType::Freeze
            | PacketType::NeedAck => Ok(()),
        }
    }
}

/// The last packets, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    records: VecDeque<Record>,
    /// Nothing is recorded: a simulated experiment has no use for it.
    off: bool,
}

impl Trace {
    /// A trace that stays empty.
    pub(crate) fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, record: Record) {
        if self.off {
            return;
        }
        if self.records.len() >= RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// The packets, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// The packets as a Mermaid sequence diagram between this endpoint, called `name`, and its peers.
    #[must_use]
    pub fn to_mermaid(&self, name: &str) -> String {
        let mut diagram = String::from("sequenceDiagram\n");
        for record in &self.records {
            let peer = record.peer.to_string().replace(':', "#58;");
            let (from, to) = if record.sent {
                (name, &*peer)
            } else {
                (&*peer, name)
            };
            // Writing to a string cannot fail.
            let _ = writeln!(diagram, "    {from}->>{to}: {record}");
        }
        diagram
    }
}

impl fmt::Display for Trace {
    /// One line a packet: time, direction, peer, RPC, what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.records {
            let arrow = if record.sent { "to  " } else { "from" };
            writeln!(
                f,
                "{:?} {arrow} {} rpc {:?}: {record}",
                record.at, record.peer, record.id
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Priority;
    use crate::wire::{Busy, Data, Grant, Resend};

    fn record(packet: &Packet<'_>, bytes: usize) -> Record {
        let peer = SocketAddr::from(([10, 0, 0, 2], 4000));
        Record::of(
            Instant::from_nanos(2_500_000),
            true,
            peer,
            RpcId::new(0x1234),
            packet,
            bytes,
        )
    }

    #[test]
    fn packets_are_described_in_words() {
        let data = Data {
            message_length: 5_000,
            incoming: 5_000,
            ack: None,
            cutoff_version: 0,
            retransmit: true,
            few_unscheduled: false,
            following: 0,
            offset: 1_424,
        };
        let grant = Grant {
            offset: 60_000,
            priority: Priority::LOWEST,
        };
        let all = Resend {
            offset: 0,
            length: None,
            priority: Priority::HIGHEST,
        };
        let some = Resend {
            offset: 7,
            length: Some(3),
            ..all
        };
        let texts = [
            record(&Packet::Data(data, &[]), 1_424).to_string(),
            record(&Packet::Grant(grant), 0).to_string(),
            record(&Packet::Resend(all), 0).to_string(),
            record(&Packet::Resend(some), 0).to_string(),
            record(&Packet::Busy(Busy::Unexplained), 0).to_string(),
        ];
        let expected = [
            "DATA 1424..2848 of 5000 again",
            "GRANT up to 60000",
            "RESEND everything",
            "RESEND 7..10",
            "BUSY",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn the_trace_is_bounded_and_shown_as_text_and_as_a_diagram() {
        let mut trace = Trace::default();
        for _ in 0..RECORDS_MAX + 10 {
            trace.push(record(&Packet::Busy(Busy::Unexplained), 0));
        }
        assert_eq!(trace.iter().count(), RECORDS_MAX);
        let text = trace.to_string();
        assert_eq!(
            text.lines().next(),
            Some("2.500000ms to   10.0.0.2:4000 rpc 1234c: BUSY")
        );
        let diagram = trace.to_mermaid("server");
        assert_eq!(
            diagram.lines().nth(1),
            Some("    server->>10.0.0.2#58;4000: BUSY")
        );
    }
}
