//! What any transport has to do, checked against a server that answers with what it got.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a module of test binaries, each of which uses some"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use homa_transport::transport::{Incoming, call};
use homa_transport::{Message, RpcError, Transport};
use tokio::task::JoinSet;

/// Answers a request with its own bytes.
pub fn echo(incoming: Incoming) {
    tokio::spawn(async move {
        let _ = incoming.responder.respond(incoming.message.into());
    });
}

/// A message whose bytes depend on their place and on `salt`.
pub fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i + i / 251 + salt) % 256).unwrap())
        .collect()
}

pub type Checked = Result<(), String>;

async fn ask(transport: &Arc<dyn Transport>, server: SocketAddr, request: Vec<u8>) -> Checked {
    let expected = Bytes::from(request);
    let len = expected.len();
    let message = Message::from(expected.clone());
    match call(Arc::clone(transport), server, message).await {
        Ok(response) if response == expected => Ok(()),
        Ok(response) => Err(format!(
            "{len} bytes: the answer of {} bytes is another one",
            response.len()
        )),
        Err(error) => Err(format!("{len} bytes: {error}")),
    }
}

/// Messages of lengths around every limit there is come back exactly.
pub async fn sizes(transport: &Arc<dyn Transport>, server: SocketAddr) -> Checked {
    let lens = [
        1, 2, 55, 100, 1_404, 1_405, 1_424, 1_425, 8_900, 32_768, 40_000, 40_001, 65_535, 65_536,
        65_537, 131_072, 300_000, 999_999, 1_000_000,
    ];
    for len in lens {
        ask(transport, server, pattern(len, len)).await?;
    }
    Ok(())
}

/// A message in many slices arrives as one.
pub async fn slices(transport: &Arc<dyn Transport>, server: SocketAddr) -> Checked {
    let bytes = Bytes::from(pattern(3_000, 9));
    let message: Message = (0..1_500).map(|i| bytes.slice(2 * i..2 * i + 2)).collect();
    match call(Arc::clone(transport), server, message).await {
        Ok(response) if response == bytes => Ok(()),
        other => Err(format!("slices: {other:?}")),
    }
}

/// `count` calls at a time, of lengths that differ, each get their own answer.
pub async fn concurrent(
    transport: &Arc<dyn Transport>,
    server: SocketAddr,
    count: usize,
) -> Checked {
    let mut calls = JoinSet::new();
    for i in 0..count {
        let transport = Arc::clone(transport);
        let len = 1 + (i * 7_919) % [90, 3_000, 70_000][i % 3];
        calls.spawn(async move { ask(&transport, server, pattern(len, i)).await });
    }
    while let Some(result) = calls.join_next().await {
        result.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Answers that are kept do not stop others, and keep their bytes.
pub async fn kept(transport: &Arc<dyn Transport>, server: SocketAddr, bytes: usize) -> Checked {
    let mut kept = Vec::new();
    for i in 0..bytes.div_ceil(65_536) {
        let request = Message::from(pattern(65_536, i));
        let response = call(Arc::clone(transport), server, request).await;
        kept.push(response.map_err(|error| format!("keeping {i} answers: {error}"))?);
    }
    ask(transport, server, pattern(1_000_000, 1)).await?;
    for (i, response) in kept.iter().enumerate() {
        if *response != pattern(65_536, i) {
            return Err(format!("answer {i} has changed while it was kept"));
        }
    }
    Ok(())
}

/// Calls that are given up, at any time, do not disturb others.
pub async fn given_up(transport: &Arc<dyn Transport>, server: SocketAddr) -> Checked {
    for i in 0..200 {
        let request = Message::from(pattern(1 + i * 700, i));
        let abandoned = call(Arc::clone(transport), server, request);
        tokio::select! {
            biased;
            _ = abandoned => {}
            () = yield_times(i % 20) => {}
        }
        ask(transport, server, pattern(50 + i, i)).await?;
    }
    Ok(())
}

async fn yield_times(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Messages that cannot be are refused before anything is sent.
pub fn refusals(transport: &Arc<dyn Transport>, server: SocketAddr) -> Checked {
    let max = transport.message_bytes_max();
    let empty = transport.start_call(server, Message::new());
    let long = transport.start_call(server, vec![0; max + 1].into());
    let no_port = transport.start_call(SocketAddr::new(server.ip(), 0), vec![1].into());
    match (empty, long, no_port) {
        (
            Err(RpcError::EmptyMessage),
            Err(RpcError::MessageTooLong { .. }),
            Err(RpcError::BadAddress { .. }),
        ) => Ok(()),
        other => Err(format!("refusals: {other:?}")),
    }
}
