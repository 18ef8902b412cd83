//! Runs a server for the time of a test.

use homa_rpc::{BoundServer, Channel};
use tokio::sync::oneshot;

/// Serves, runs `test` with a channel to the server, and stops.
pub(crate) async fn with_server<F: Future<Output = ()>>(
    server: BoundServer,
    test: impl FnOnce(Channel) -> F,
) {
    let uri = server.local_uris().remove(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));
    test(Channel::new(uri).unwrap()).await;
    drop(stop);
    serving.await.unwrap().unwrap();
}
