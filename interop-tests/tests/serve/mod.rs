//! Runs a server for the time of a test.

use homa_rpc::{Channel, Router};
use tokio::sync::oneshot;

/// Serves `router` at `uri`, runs `test` with a channel to it, and stops.
pub(crate) async fn with_server<F: Future<Output = ()>>(
    router: Router,
    uri: &str,
    test: impl FnOnce(Channel) -> F,
) {
    let server = router.bind(uri).unwrap();
    let uri = server.local_uris().into_iter().next().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(async { drop(stopped.await) }));
    test(Channel::new(&uri).unwrap()).await;
    drop(stop);
    serving.await.unwrap().unwrap();
}
