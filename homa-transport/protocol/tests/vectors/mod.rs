//! Recorded and worked-out packets, with the fields that they hold.
//!
//! The files are text; lines that start with `#` are comments. Each packet is a block of lines:
//!
//! - `packet:` where it comes from;
//! - `shows:` what it is there for;
//! - `tos:` the byte of the IPv4 header that held the priority, if the packet was recorded;
//! - `fields:` the fields it holds, as text, read off by other means than the code under test;
//! - `ours:` bytes that we write otherwise than the packet has them, as `index=hex`;
//! - `bytes:` followed by lines of hex: Homa header and data.

/// One packet and what is known about it.
#[derive(Debug, Default)]
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    pub(crate) tos: Option<u8>,
    pub(crate) fields: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Index and bytes.
    pub(crate) ours: Vec<(usize, Vec<u8>)>,
}

/// Packets worked out by hand.
pub(crate) fn worked() -> Vec<Vector> {
    read(include_str!("worked.txt"))
}

/// Packets recorded between two hosts with the Linux module.
pub(crate) fn captured() -> Vec<Vector> {
    read(include_str!("captured.txt"))
}

fn read(text: &'static str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("packet: ") {
            vectors.push(Vector {
                name,
                ..Vector::default()
            });
            continue;
        }
        let vector = vectors.last_mut().expect("a packet begins with `packet:`");
        match line.split_once(':') {
            Some(("fields", fields)) => vector.fields = fields.trim(),
            Some(("tos", tos)) => vector.tos = hex(tos).first().copied(),
            Some(("ours", patches)) => {
                vector.ours = patches.split_whitespace().map(patch).collect()
            }
            Some(("shows" | "bytes", _)) => {}
            Some((key, _)) => panic!("{}: unknown key `{key}`", vector.name),
            None => vector.bytes.extend(hex(line)),
        }
    }
    vectors
}

fn patch(text: &str) -> (usize, Vec<u8>) {
    let (index, bytes) = text.split_once('=').expect("a patch is `index=hex`");
    (index.parse().expect("the index is a number"), hex(bytes))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "`{text}` ends with half a byte");
    pairs
        .iter()
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .unwrap_or_else(|| panic!("`{text}` is not hex"))
        })
        .collect()
}
