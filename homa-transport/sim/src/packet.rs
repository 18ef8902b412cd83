//! Packets in the network, in slots that are used again together with their memory.

use homa_protocol::units::Priority;

/// A packet in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketId(pub(super) u32);

/// What the network knows of a packet.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) bytes: Vec<u8>,
    pub(super) wire_bytes: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Racks of the two.
    pub(super) from_rack: u16,
    pub(super) to_rack: u16,
    pub(super) level: Priority,
    /// Where it is.
    pub(super) place: Place,
    /// Number among all packets of the network, in the order of sending.
    pub(super) number: u64,
    /// Nanoseconds it is held up before it arrives.
    pub(super) held_up: u64,
    /// What the sender wrote on it; the network does not look at it.
    pub(super) mark: u32,
    /// Some bits were flipped: the checksum of UDP or Ethernet would show it.
    pub(super) damaged: bool,
}

/// Where a packet is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the switch of the sender's rack.
    FirstLeaf,
    /// At a spine switch.
    Spine(u16),
    /// At the switch of the receiver's rack.
    LastLeaf,
    /// At the receiver.
    Host,
}

/// All packets in the network.
#[derive(Debug, Default)]
pub(super) struct PacketPool {
    slots: Vec<Flight>,
    free: Vec<PacketId>,
}

impl PacketPool {
    /// A slot for a packet. Its contents are those of an earlier packet.
    pub(super) fn take(&mut self) -> PacketId {
        if let Some(id) = self.free.pop() {
            return id;
        }
        let id = PacketId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(Flight {
            bytes: Vec::new(),
            wire_bytes: 0,
            from: 0,
            to: 0,
            from_rack: 0,
            to_rack: 0,
            level: Priority::LOWEST,
            place: Place::FirstLeaf,
            number: 0,
            held_up: 0,
            mark: 0,
            damaged: false,
        });
        id
    }

    pub(super) fn give_back(&mut self, id: PacketId) {
        self.free.push(id);
    }

    pub(super) fn get(&self, id: PacketId) -> Option<&Flight> {
        self.slots.get(id.0 as usize)
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut Flight> {
        self.slots.get_mut(id.0 as usize)
    }

    /// Packets in the network.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
