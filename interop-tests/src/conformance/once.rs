//! Every request is executed, and only once, whatever the network does.

use homa_transport::Delivery;

use super::messages::run;
use super::{Ends, Failure, Load};
use crate::echo::{EchoClient, EchoServer};

/// Many calls at once, each of which succeeds, and of each of which the server hears exactly once.
///
/// # Errors
/// If a call fails, or the server was asked more or less often.
pub async fn once(ends: &Ends, load: Load) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    let failed = at_most_once(ends, &server, &client, load).await?;
    failed.map_or(Ok(()), Err)
}

/// Many calls at once, of each of which the server hears at most once, and exactly once if it succeeds.
/// Those that fail say that they may have been executed; one of them is returned.
///
/// # Errors
/// If it is not so, or a response is not the request.
pub async fn at_most_once(
    ends: &Ends,
    server: &EchoServer,
    client: &EchoClient,
    load: Load,
) -> Result<Option<Failure>, Failure> {
    let client = client.clone();
    let outcomes = ends
        .at_client(async move { run(&client, load, |_| true).await })
        .await?;
    let asked = server.times_asked();
    let mut failed = None;
    for (id, outcome) in outcomes {
        let times = asked.get(&id).copied().unwrap_or_default();
        let expected = match outcome {
            Ok(()) => 1..=1,
            Err(Failure::Call { len, error }) if error.delivery() == Delivery::Unknown => {
                failed = Some(Failure::Call { len, error });
                0..=1
            }
            Err(failure) => return Err(failure),
        };
        if !expected.contains(&times) {
            return Err(Failure::unexpected(
                format!("a request {expected:?} times at the server"),
                format!("{times} times"),
            ));
        }
    }
    Ok(failed)
}
