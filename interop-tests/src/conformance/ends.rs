//! Servers that go, come back, or can no longer be heard.

use bytes::Bytes;
use homa_transport::{BindError, Delivery, RpcError};

use super::messages::{echo, next_id};
use super::{Ends, Failure, ends as in_time, on, patient};
use crate::echo::{EchoClient, EchoServer, request};
use crate::network::Network;
use crate::wire::{OpenError, Uri};

/// Bytes of the requests here: several packets, none of which waits for a grant.
const LEN: usize = 5_000;

type CallTask = tokio::task::JoinHandle<Result<Bytes, RpcError>>;

/// A server that closes with a request in its hands: that call fails as one that may have been executed,
/// and later ones fail too.
///
/// # Errors
/// If they do not.
pub async fn peer_death(ends: &Ends) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    let call = call_held_by(ends, &server, &client).await?;
    server.stop();
    expect_unknown(in_time(call).await??)?;
    let later = client.clone();
    let result = ends.at_client(async move { Ok::<_, Failure>(later.call(request(0, LEN)).await) });
    match result.await? {
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::unexpected(
            "an error",
            "an answer of a closed server",
        )),
    }
}

/// A server that comes back on its port: what is called then is answered, and what the old one had
/// taken is answered by the new one or fails as one that may have been executed. Each server executes
/// it at most once.
///
/// # Errors
/// If it is not so.
pub async fn restart(ends: &Ends) -> Result<(), Failure> {
    let old = ends.serve().await?;
    let (uri, client) = (old.uri().clone(), ends.client(&old).await?);
    let first = client.clone();
    ends.at_client(async move { echo(&first, next_id(), LEN).await })
        .await?;
    let call = call_held_by(ends, &old, &client).await?;
    old.stop();
    let new = reopen(ends, &uri).await?;
    // An in-process server has another address then.
    let again = client.clone();
    let client = {
        let uri = uri.clone();
        ends.at_client(async move { again.to(&uri).await }).await?
    };
    for len in [100, LEN, 100_000] {
        let client = client.clone();
        ends.at_client(async move { echo(&client, next_id(), len).await })
            .await?;
    }
    match in_time(call).await?? {
        Ok(_) => {}
        result => expect_unknown(result)?,
    }
    match new.times_asked().values().max() {
        Some(1) => Ok(()),
        times => Err(Failure::unexpected(
            "each request once at the restarted server",
            format!("one of them {times:?} times"),
        )),
    }
}

/// A server from which nothing comes any more: a call fails as one that may have been executed; when
/// the server can be heard again, it is answered again.
///
/// # Errors
/// If it is not so.
pub async fn silence(ends: &Ends, network: &Network, server_host: usize) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    let call = call_held_by(ends, &server, &client).await?;
    network.cut(server_host)?;
    let result = in_time(call).await?;
    network.mend(server_host)?;
    expect_unknown(result?)?;
    server.answer();
    ends.at_client(async move { echo(&client, next_id(), LEN).await })
        .await
}

/// A call in progress, whose request the server has and keeps.
async fn call_held_by(
    ends: &Ends,
    server: &EchoServer,
    client: &EchoClient,
) -> Result<CallTask, Failure> {
    server.hold();
    let before = server.totals().requests;
    let caller = client.clone();
    let call = ends
        .client
        .spawn(async move { caller.call(request(next_id(), LEN)).await });
    in_time(server.asked_more_than(before)).await?;
    Ok(call)
}

fn expect_unknown(result: Result<Bytes, RpcError>) -> Result<(), Failure> {
    match result {
        Err(error) if error.delivery() == Delivery::Unknown => Ok(()),
        result => Err(Failure::unexpected(
            "a failure after which the request may have been executed",
            format!("{:?}", result.map(|response| response.len())),
        )),
    }
}

/// A new server on the port of one that is closing, as soon as that is possible.
async fn reopen(ends: &Ends, uri: &Uri) -> Result<EchoServer, Failure> {
    let uri = uri.clone();
    let reopened = on(&ends.server, async move {
        loop {
            match EchoServer::open(&uri, &patient()).await {
                Err(OpenError::Bind(
                    BindError::AddressInUse { .. } | BindError::NameInUse { .. },
                )) => tokio::task::yield_now().await,
                result => return result,
            }
        }
    });
    in_time(reopened).await?
}
