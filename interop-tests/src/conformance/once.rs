//! Every request is executed, and only once, whatever the network does.

use super::{Ends, Failure, Load, concurrency};

/// Many calls at once, of each of which the server has to hear exactly once.
///
/// # Errors
/// If a call fails, or a server was asked more or less often.
pub async fn once(ends: &Ends, load: Load) -> Result<(), Failure> {
    let server = ends.serve().await?;
    let client = ends.client(&server).await?;
    let ids = ends
        .at_client(async move { concurrency(&client, load).await })
        .await?;
    let asked = server.times_asked();
    let times = |id: &u64| asked.get(id).copied().unwrap_or_default();
    if let Some(id) = ids.iter().find(|id| times(id) != 1) {
        return Err(Failure::unexpected(
            "each request at the server once",
            format!("one of them {} times", times(id)),
        ));
    }
    let total = server.totals().requests;
    if total != ids.len() as u64 {
        return Err(Failure::unexpected(
            format!("{} requests at the server", ids.len()),
            total.to_string(),
        ));
    }
    Ok(())
}
