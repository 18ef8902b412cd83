//! The bytes of the headers, field by field, as the Linux module lays them out.
//!
//! Every header starts with the [`CommonHeader`], which imitates TCP so that segmentation hardware
//! made for TCP can work on Homa packets. All integers are big-endian.
//!
//! Source: homa_wire.h.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Acks, DATA_HEADER_BYTES, HEADER_BYTES_MAX, PacketType};

/// First in every packet, and the whole header of RPC_UNKNOWN, BUSY, FREEZE and NEED_ACK.
/// Source: homa_wire.h, struct homa_common_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CommonHeader {
    /// Homa port of the sending socket.
    pub(super) source_port: U16,
    /// Homa port of the receiving socket.
    pub(super) destination_port: U16,
    /// DATA: offset of the data in the message, unless `segment_offset` has it. Else 0.
    pub(super) sequence: U32,
    /// Upper bytes of TCP's acknowledgement number, 0; over UDP a reason.
    pub(super) reason: [u8; 3],
    /// Code of the packet type, in the lowest byte of TCP's acknowledgement number.
    pub(super) packet_type: u8,
    /// Upper half: 4-byte words that segmentation hardware copies into each segment. A hint for
    /// that hardware alone; it does not say where the data starts.
    pub(super) data_offset: u8,
    /// [`FLAGS`].
    pub(super) flags: u8,
    /// TCP's window, 0.
    pub(super) window: U16,
    /// TCP's checksum; nobody checks it.
    pub(super) checksum: U16,
    /// [`URGENT`].
    pub(super) urgent: U16,
    /// Id of the RPC in the form of the packet's sender.
    pub(super) sender_id: U64,
}

/// An RPC that the server may forget. Source: homa_wire.h, struct homa_ack.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AckField {
    /// Id of the RPC in the client's form; 0 in DATA: no RPC.
    pub(super) client_id: U64,
    /// Homa port of the RPC's server.
    pub(super) server_port: U16,
}

/// Source: homa_wire.h, struct homa_data_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DataHeader {
    pub(super) common: CommonHeader,
    /// Length of the whole message, in bytes.
    pub(super) message_length: U32,
    /// The sender sends the bytes below this offset without a GRANT.
    pub(super) incoming: U32,
    /// Some other RPC that the receiver of the packet, as its server, may forget.
    pub(super) ack: AckField,
    /// Version of the receiver's unscheduled cutoffs that the sender knows; 0: none yet.
    pub(super) cutoff_version: U16,
    /// 1 in a retransmission.
    pub(super) retransmit: u8,
    /// [`FEW_UNSCHEDULED`]; the module writes 0 and ignores it.
    pub(super) extension: u8,
    /// What is still to come of a larger whole, in units of 64 KiB; the module writes 0 and ignores it.
    pub(super) following: U16,
    /// Offset of the data in the message, or [`OFFSET_IN_SEQUENCE`].
    pub(super) segment_offset: U32,
}

/// Source: homa_wire.h, struct homa_grant_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct GrantHeader {
    pub(super) common: CommonHeader,
    /// The bytes of the message below this offset may be sent.
    pub(super) offset: U32,
    /// Priority level for DATA of the message from now on.
    pub(super) priority: u8,
}

/// A RESEND without its last byte, as the module's reduced (upstream) build sends it.
/// Source: homa_wire.h, struct homa_resend_hdr with `__STRIP__`.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ShortResendHeader {
    pub(super) common: CommonHeader,
    /// First missing byte of the message.
    pub(super) offset: U32,
    /// Number of missing bytes, or [`RESEND_ALL`].
    pub(super) length: U32,
}

/// Source: homa_wire.h, struct homa_resend_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ResendHeader {
    pub(super) short: ShortResendHeader,
    /// Priority level for the repeated DATA.
    pub(super) priority: u8,
}

/// Source: homa_wire.h, struct homa_cutoffs_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CutoffsHeader {
    pub(super) common: CommonHeader,
    /// For each priority level the length of the longest message that uses it unscheduled.
    pub(super) unsched: [U32; 8],
    /// To be echoed in the DATA sent to this peer.
    pub(super) version: U16,
}

/// Source: homa_wire.h, struct homa_ack_hdr.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AckHeader {
    pub(super) common: CommonHeader,
    /// Valid entries of `acks`.
    pub(super) count: U16,
    pub(super) acks: [AckField; Acks::MAX],
}

/// Inferred, see [`super::StartMsg`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StartMsgHeader {
    pub(super) common: CommonHeader,
    /// Length of the whole message, in bytes.
    pub(super) message_length: U32,
}

/// `flags` of every packet, SYN and RST: together they never occur in TCP, which marks Homa packets
/// that travel as TCP. Source: homa_hijack.h, homa_hijack_set_hdr.
pub(super) const FLAGS: u8 = 0x06;

/// `urgent` of every packet, the second such mark.
pub(super) const URGENT: u16 = 0xb97d;

/// `data_offset` of DATA: all 56 bytes of the header go into each segment.
pub(super) const DATA_OFFSET_DATA: u8 = 0xe0;

/// `data_offset` of control packets: a plain TCP header.
pub(super) const DATA_OFFSET_CONTROL: u8 = 0x50;

/// `segment_offset` that says: the offset is in `sequence`.
pub(super) const OFFSET_IN_SEQUENCE: u32 = u32::MAX;

/// `length` of a RESEND that says: nothing has arrived, repeat all that you have sent.
pub(super) const RESEND_ALL: u32 = u32::MAX;

/// Bit of `extension`: the sender asks for few unscheduled bytes in the response.
pub(super) const FEW_UNSCHEDULED: u8 = 0x01;

const _: () = {
    assert!(size_of::<CommonHeader>() == 28);
    assert!(size_of::<AckField>() == 10);
    assert!(size_of::<DataHeader>() == DATA_HEADER_BYTES);
    assert!(size_of::<GrantHeader>() == 33);
    assert!(size_of::<ShortResendHeader>() == 36);
    assert!(size_of::<ResendHeader>() == 37);
    assert!(size_of::<CutoffsHeader>() == 62);
    assert!(size_of::<AckHeader>() == HEADER_BYTES_MAX);
    assert!(size_of::<StartMsgHeader>() == 32);
};

impl PacketType {
    /// Length of the header that [`emit`](super::emit()) writes, in bytes.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::Data => size_of::<DataHeader>(),
            Self::Grant => size_of::<GrantHeader>(),
            Self::Resend => size_of::<ResendHeader>(),
            Self::Cutoffs => size_of::<CutoffsHeader>(),
            Self::Ack => size_of::<AckHeader>(),
            Self::StartMsg => size_of::<StartMsgHeader>(),
            Self::RpcUnknown | Self::Busy | Self::Freeze | Self::NeedAck => {
                size_of::<CommonHeader>()
            }
        }
    }
}
