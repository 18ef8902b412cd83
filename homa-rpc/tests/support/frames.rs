//! RPC frames made and read by hand, by WIRE.md and not by the crate's code.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use homa_transport::{Message, RpcError, Transport, transport};

pub const CALL: u8 = 1;
pub const PART: u8 = 2;
pub const PULL: u8 = 3;
pub const CANCEL: u8 = 4;

pub const MESSAGE: u16 = 0x0001;
pub const END: u16 = 0x0002;
pub const FRAGMENT: u16 = 0x0008;
pub const ITEMS: u16 = 0x0010;
pub const SINGLE: u16 = 0x0020;
pub const CANCEL_FRAME: u16 = 0x0040;
pub const REFUSED: u16 = 0x0080;
pub const UNKNOWN_CALL: u16 = 0x0100;
pub const HEADERS: u16 = 0x0200;
pub const CANCEL_TOLD: u16 = 0x1000;
pub const CHECKSUM: u16 = 0x2000;
/// Flags that who does not know them ignores.
pub const HINTS: u16 = 0xf000;

/// The fields of a frame that the tests set.
#[derive(Clone, Debug)]
pub struct Raw {
    pub version: u8,
    pub kind: u8,
    pub flags: u16,
    pub code: u8,
    pub call_id: u64,
    pub sequence: u32,
    pub credit: u32,
    pub time_or_load: u64,
    pub fragment_offset: u32,
    pub total_len: u32,
    pub path: &'static [u8],
    pub extensions: Vec<u8>,
    pub initial: Vec<u8>,
    pub trailing: Vec<u8>,
    pub status_message: Vec<u8>,
    pub details: Vec<u8>,
    pub message: Vec<u8>,
}

impl Raw {
    /// A good CALL of the test service.
    pub fn call() -> Self {
        Self {
            version: 1,
            kind: CALL,
            flags: MESSAGE | END | SINGLE,
            code: 0,
            call_id: 0x1122_3344_5566_7788,
            sequence: 0,
            credit: 0,
            time_or_load: 0,
            fragment_offset: 0,
            total_len: 0,
            path: b"/test.Echo/Say",
            extensions: vec![],
            initial: vec![],
            trailing: vec![],
            status_message: vec![],
            details: vec![],
            message: b"\x0a\x02hi".to_vec(),
        }
    }

    /// A good CALL of the test service that has nothing of its request, and takes `credit` bytes in reply.
    pub fn open(call_id: u64, path: &'static [u8], credit: u32) -> Self {
        Self {
            flags: 0,
            call_id,
            credit,
            path,
            message: vec![],
            ..Self::call()
        }
    }

    /// A PULL of `credit` bytes for the call `call_id`.
    pub fn pull(call_id: u64, credit: u32) -> Self {
        Self {
            kind: PULL,
            ..Self::open(call_id, b"", credit)
        }
    }

    /// A PART with these stream items.
    pub fn items(call_id: u64, sequence: u32, items: &[&[u8]]) -> Self {
        let mut message = Vec::new();
        for item in items {
            message.push(0);
            message.extend(u32::try_from(item.len()).unwrap().to_be_bytes());
            message.extend_from_slice(item);
        }
        Self {
            kind: PART,
            flags: MESSAGE | ITEMS,
            sequence,
            message,
            ..Self::open(call_id, b"", 0)
        }
    }

    /// A PART with this piece of a message of `total` bytes.
    pub fn fragment(call_id: u64, sequence: u32, piece: &[u8], offset: u32, total: u32) -> Self {
        Self {
            kind: PART,
            flags: MESSAGE | FRAGMENT,
            sequence,
            fragment_offset: offset,
            total_len: total,
            message: piece.to_vec(),
            ..Self::open(call_id, b"", 0)
        }
    }

    /// The same with END.
    pub fn end(self) -> Self {
        Self {
            flags: self.flags | END,
            ..self
        }
    }

    /// A good reply to the call `call_id`.
    pub fn reply(call_id: u64) -> Self {
        Self {
            kind: CALL | 0x80,
            flags: MESSAGE | END,
            call_id,
            path: b"",
            ..Self::call()
        }
    }

    /// The bytes of the same frame with a checksum, in front of its other extensions.
    pub fn checked(&self) -> Vec<u8> {
        let other = &self.extensions;
        let frame = |value: &[u8]| Self {
            flags: self.flags | CHECKSUM,
            extensions: [&[0, 1, 0, 4], value, other.as_slice()].concat(),
            ..self.clone()
        };
        let value_at = 64 + self.path.len() + 4;
        let mut covered = frame(&[0; 4]).bytes();
        covered.drain(value_at..value_at + 4);
        frame(&crc32c(&covered).to_be_bytes()).bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.version, self.kind];
        out.extend(self.flags.to_be_bytes());
        out.extend([self.code, 0, 0, 0]);
        out.extend(self.call_id.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.credit.to_be_bytes());
        out.extend(self.time_or_load.to_be_bytes());
        out.extend(self.fragment_offset.to_be_bytes());
        out.extend(self.total_len.to_be_bytes());
        let short = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let long = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
        out.extend(short(self.path.len()));
        out.extend(short(self.extensions.len()));
        out.extend(long(self.initial.len()));
        out.extend(long(self.trailing.len()));
        out.extend(long(self.status_message.len()));
        out.extend(long(self.details.len()));
        out.extend(long(self.message.len()));
        assert_eq!(out.len(), 64);
        out.extend(self.path);
        for section in [
            &self.extensions,
            &self.initial,
            &self.trailing,
            &self.status_message,
            &self.details,
            &self.message,
        ] {
            out.extend(section);
        }
        out
    }
}

/// CRC32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    !crc
}

/// What the tests look at in a reply.
#[derive(Clone, Debug)]
pub struct RawReply {
    pub version: u8,
    pub kind: u8,
    pub flags: u16,
    pub code: u8,
    pub call_id: u64,
    pub sequence: u32,
    pub credit: u32,
    pub extensions: Vec<u8>,
    pub status_message: String,
    pub message: Vec<u8>,
}

impl RawReply {
    /// Whether it has all of these flags.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    pub fn read(frame: &[u8]) -> Self {
        let long = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
        let extensions_len = usize::from(u16::from_be_bytes([frame[42], frame[43]]));
        let status_at = 64 + extensions_len + long(44) + long(48);
        let message_at = status_at + long(52) + long(56);
        assert_eq!(frame.len(), message_at + long(60), "lengths add up");
        let status = frame[status_at..status_at + long(52)].to_vec();
        Self {
            version: frame[0],
            kind: frame[1],
            flags: u16::from_be_bytes([frame[2], frame[3]]),
            code: frame[4],
            call_id: u64::from_be_bytes(frame[8..16].try_into().unwrap()),
            sequence: u32::from_be_bytes(frame[16..20].try_into().unwrap()),
            credit: u32::from_be_bytes(frame[20..24].try_into().unwrap()),
            extensions: frame[64..64 + extensions_len].to_vec(),
            status_message: String::from_utf8(status).unwrap(),
            message: frame[message_at..].to_vec(),
        }
    }
}

/// Sends a frame and reads the reply.
pub async fn send(
    client: &Arc<dyn Transport>,
    server: SocketAddr,
    frame: impl Into<Bytes>,
) -> Result<RawReply, RpcError> {
    let frame = Message::from(frame.into());
    let reply = transport::call(Arc::clone(client), server, frame).await?;
    Ok(RawReply::read(&reply))
}

/// A server whose replies are made by `reply`, from the call id of each request.
pub fn scripted(
    server: &Arc<dyn Transport>,
    reply: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) {
    let sink = move |incoming: homa_transport::Incoming| {
        let call_id = u64::from_be_bytes(incoming.message[8..16].try_into().unwrap());
        incoming.responder.respond(reply(call_id).into()).unwrap();
    };
    server.serve(Arc::new(sink)).unwrap();
}

/// A server that takes requests and never answers. Yields what it has taken.
pub fn silent(
    server: &Arc<dyn Transport>,
) -> tokio::sync::mpsc::Receiver<homa_transport::Incoming> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1000);
    let sink = move |incoming| sender.try_send(incoming).unwrap();
    server.serve(Arc::new(sink)).unwrap();
    receiver
}
