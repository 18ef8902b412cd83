//! The floor for TCP: messages of a known length over one connection, a thread at each end.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use super::floor::{InProgress, Waiting};
use super::load::Measured;
use super::scenario::{BULK_BYTES, SMALL_BYTES, Scenario};

/// First byte of a message: which kind it is.
const SMALL: u8 = 1;
const BULK: u8 = 2;
/// Bytes of the answer to an upload.
const BULK_REPLY_BYTES: usize = 8;
const BUFFER_BYTES: usize = 256 * 1024;

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
struct Messages {
    kind: u8,
    /// Bytes of the current message that are still to come.
    left: usize,
}

impl Messages {
    /// Takes `bytes`, and returns how many small messages and uploads ended in them. `bulk_bytes` is
    /// the length of a message of that kind in this direction.
    fn take(&mut self, mut bytes: &[u8], bulk_bytes: usize) -> Result<(usize, usize), String> {
        let (mut small, mut bulk) = (0, 0);
        while let Some(first) = bytes.first() {
            if self.left == 0 {
                self.kind = *first;
                self.left = match self.kind {
                    SMALL => SMALL_BYTES,
                    BULK => bulk_bytes,
                    other => return Err(format!("a message of kind {other}")),
                };
            }
            let taken = self.left.min(bytes.len());
            bytes = bytes.get(taken..).unwrap_or_default();
            self.left -= taken;
            match self.kind {
                SMALL if self.left == 0 => small += 1,
                BULK if self.left == 0 => bulk += 1,
                _ => {}
            }
        }
        Ok((small, bulk))
    }
}

fn messages(kind: u8, len: usize, count: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    if let Some(first) = message.first_mut() {
        *first = kind;
    }
    message.repeat(count)
}

/// Listens, and returns what serves one connection.
///
/// # Errors
/// Why it cannot listen.
pub(crate) fn bind() -> Result<(TcpListener, String), String> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, address.to_string()))
}

/// Serves one connection until it is closed.
///
/// # Errors
/// What went wrong with the connection.
pub(crate) fn serve(listener: &TcpListener, waiting: Waiting) -> Result<(), String> {
    let (mut stream, _) = listener.accept().map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let mut received = Messages::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Some(bytes) = receive(&stream, &mut buffer, waiting)? else {
            continue;
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let (small, bulk) = received.take(bytes, BULK_BYTES)?;
        let mut replies = messages(SMALL, SMALL_BYTES, small);
        replies.extend(messages(BULK, BULK_REPLY_BYTES, bulk));
        send(&mut stream, &replies)?;
    }
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    waiting: Waiting,
    bulk: Vec<u8>,
}

impl Client {
    /// # Errors
    /// Why there is no connection.
    pub(crate) fn connect(address: &str, waiting: Waiting) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let bulk = messages(BULK, BULK_BYTES, 1);
        Ok(Self {
            stream,
            waiting,
            bulk,
        })
    }

    /// # Errors
    /// What went wrong with the connection.
    pub(crate) fn run(
        &mut self,
        scenario: Scenario,
        duration: Duration,
    ) -> Result<Measured, String> {
        let mut calls = InProgress::new(scenario, duration);
        let mut received = Messages::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let small = calls.begin_small();
            send(&mut self.stream, &messages(SMALL, SMALL_BYTES, small))?;
            for _ in 0..calls.begin_bulk() {
                send(&mut self.stream, &self.bulk)?;
            }
            if calls.is_empty() {
                return Ok(calls.finish());
            }
            let Some(bytes) = receive(&self.stream, &mut buffer, self.waiting)? else {
                continue;
            };
            if bytes.is_empty() {
                return Err("the server closed the connection".to_owned());
            }
            let (small, bulk) = received.take(bytes, BULK_REPLY_BYTES)?;
            calls.end_small(small);
            calls.end_bulk(bulk);
        }
    }
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    stream
        .write_all(bytes)
        .map_err(|error| format!("cannot send: {error}"))
}

/// What has arrived, nothing if the connection was closed. `None`: nothing came for a while.
fn receive<'a>(
    stream: &TcpStream,
    buffer: &'a mut [u8],
    waiting: Waiting,
) -> Result<Option<&'a [u8]>, String> {
    let fd = stream.as_raw_fd();
    let len = waiting.receive(stream, || recv(fd, buffer, MsgFlags::MSG_DONTWAIT))?;
    Ok(len.map(|len| buffer.get(..len).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let mut stream = messages(SMALL, SMALL_BYTES, 3);
        stream.extend(messages(BULK, 1000, 2));
        for piece in [1, 7, 100, 5000] {
            let mut received = Messages::default();
            let mut total = (0, 0);
            for bytes in stream.chunks(piece) {
                let (small, bulk) = received.take(bytes, 1000).unwrap();
                total = (total.0 + small, total.1 + bulk);
            }
            assert_eq!(total, (3, 2), "in pieces of {piece}");
        }
        assert!(Messages::default().take(&[9], 1000).is_err());
    }

    #[test]
    fn both_ends_exchange_the_calls_of_every_scenario() {
        let (listener, address) = bind().unwrap();
        let waiting = Waiting {
            spin: Duration::ZERO,
        };
        let server = std::thread::spawn(move || serve(&listener, waiting));
        let mut client = Client::connect(&address, waiting).unwrap();
        for scenario in Scenario::ALL.into_iter().filter(Scenario::has_floor) {
            let duration = Duration::from_millis(50);
            while client.run(scenario, duration).unwrap().times.is_empty() {}
        }
        drop(client);
        server.join().unwrap().unwrap();
    }
}
