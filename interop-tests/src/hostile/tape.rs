//! What a client that is listened to says and hears, for attackers to use.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use homa_transport::endpoint::Transmit;
use homa_transport::link::{Link, RecvBatch, SystemCalls};
use homa_transport::stats::Backend;
use homa_transport::units::RpcId;
use homa_transport::wire::{Packet, parse};

/// Packets kept for each direction, the latest.
const PACKETS_MAX: usize = 512;
/// Calls whose ids are kept, the latest.
const IDS_MAX: usize = 16;

/// The latest packets of a client, and the ids of its latest calls.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) to_server: VecDeque<Vec<u8>>,
    pub(super) to_client: VecDeque<Vec<u8>>,
    /// In the client's form.
    pub(super) ids: VecDeque<RpcId>,
}

impl Tape {
    fn sent(&mut self, packet: Vec<u8>) {
        if let Ok((header, Packet::Data(..))) = parse(&packet)
            && header.sender_id.is_client()
            && !self.ids.contains(&header.sender_id)
        {
            push(&mut self.ids, header.sender_id, IDS_MAX);
        }
        push(&mut self.to_server, packet, PACKETS_MAX);
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// A link that is listened to.
#[derive(Debug)]
pub(super) struct Tapped {
    link: Arc<dyn Link>,
    tape: Mutex<Tape>,
}

impl Tapped {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self {
            link,
            tape: Mutex::default(),
        }
    }

    pub(super) fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, batch: &RecvBatch) {
        let mut tape = self.tape();
        for (_, packet) in batch.iter() {
            push(&mut tape.to_client, packet.to_vec(), PACKETS_MAX);
        }
    }
}

impl Link for Tapped {
    fn local_addr(&self) -> SocketAddr {
        self.link.local_addr()
    }

    fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        self.link.packet_bytes_max(peer)
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        let sent = self.link.send(batch)?;
        let mut tape = self.tape();
        for transmit in batch.iter().take(sent) {
            let mut packet = transmit.header.as_slice().to_vec();
            for part in transmit.payload.parts() {
                packet.extend_from_slice(part);
            }
            tape.sent(packet);
        }
        Ok(sent)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_writable(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let ready = self.link.poll_recv(cx, batch);
        self.record(batch);
        ready
    }

    fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        let result = self.link.try_recv(batch);
        self.record(batch);
        result
    }

    fn backend(&self) -> Option<Backend> {
        self.link.backend()
    }

    fn can_busy_poll(&self) -> bool {
        self.link.can_busy_poll()
    }

    fn system_calls(&self) -> SystemCalls {
        self.link.system_calls()
    }

    fn receive_drops(&self) -> u64 {
        self.link.receive_drops()
    }
}
