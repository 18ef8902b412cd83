//! How the packets to one port are spread over the shards of a server.
//!
//! The packets of an RPC must all come to one shard, or two would execute it. So the choice depends
//! on nothing but the client, never on who else has joined a group, as the system's own choice does.

use std::net::IpAddr;

use socket2::SockFilter;

use super::bpf;
use crate::units::RpcId;

/// Where a Homa header has the RPC's id.
const ID_AT: u32 = 20;

/// What tells clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steering {
    /// The upper half of their RPCs' ids, which is random and stays (UDP): their ports may change on the way.
    ById,
    /// Their address, where all packets of a host have to come together (protocol 146): the ack for an RPC
    /// may come from any of its ports, and clients of the module have no such ids.
    ByAddress,
}

/// The shard, of so many, to which packets about the RPC come over UDP.
pub(crate) fn shard_of_id(id: RpcId, shards: u32) -> u32 {
    let [upper @ .., _, _, _, _] = id.value().to_be_bytes();
    u32::from_be_bytes(upper) % shards.max(1)
}

/// The shard, of so many, to which packets from the host come on protocol 146.
pub(crate) fn shard_of_host(host: IpAddr, shards: u32) -> u32 {
    let number = match host.to_canonical() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    number % shards.max(1)
}

/// One shard of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardSlot {
    /// From 0 on.
    pub(super) number: u32,
    /// How many there are.
    pub(super) of: u32,
}

impl ShardSlot {
    /// All of it.
    pub(super) const WHOLE: Self = Self { number: 0, of: 1 };
}

/// A program for a group of UDP sockets on one port (`SO_ATTACH_REUSEPORT_CBPF`): [`Steering::ById`].
///
/// It sees the payload of the datagram. One that is too short to have an id ends the program, which then
/// yields the first socket.
pub(super) fn by_id(shards: u32) -> Vec<SockFilter> {
    vec![
        bpf::load_u32(ID_AT),
        bpf::modulo(shards),
        bpf::return_loaded(),
    ]
}
