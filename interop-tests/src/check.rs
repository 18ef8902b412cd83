//! `homa-interop check`.

use std::future::Future;

use homa_interop::conformance::{Failure, Load, concurrency, sizes};
use homa_interop::echo::EchoClient;
use homa_transport::Config;
use tokio::time::Instant;

use crate::arguments::CheckOptions;
use crate::{FAILED, GOOD, NOT_STARTED, print_stats};

/// Runs the checks that need a client alone. Returns the exit status.
pub(crate) async fn run(options: &CheckOptions) -> u8 {
    let client = match EchoClient::open(&options.uri, &Config::default()).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("homa-interop: cannot call {}: {error}", options.uri);
            return NOT_STARTED;
        }
    };
    let load = Load {
        calls: options.count,
        outstanding: options.concurrency.unwrap_or(options.count),
        size_max: options.size_max,
    };
    let sizes = report("sizes", sizes(&client, options.size_max)).await;
    // Its failure would say nothing new if messages do not even come back one by one.
    let good = sizes
        && report("concurrency", async {
            Ok(concurrency(&client, load).await?.len())
        })
        .await;
    if options.stats {
        print_stats(&client.transport().stats());
    }
    client.transport().close();
    if good { GOOD } else { FAILED }
}

/// Runs a check and prints what came of it.
async fn report(name: &str, check: impl Future<Output = Result<usize, Failure>>) -> bool {
    let start = Instant::now();
    let result = check.await;
    let ms = start.elapsed().as_millis();
    match &result {
        Ok(calls) => println!("{name:12} ok      {calls} calls in {ms} ms"),
        Err(failure) => println!("{name:12} FAILED  {failure}"),
    }
    result.is_ok()
}
