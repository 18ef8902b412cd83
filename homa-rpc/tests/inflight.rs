//! Very many calls at a time through one channel.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::Arc;

use homa_rpc::{Request, Response};
use support::{Msg, Wire, handler};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CALLS: usize = 10_000;

/// No handler answers before all have begun, so all calls are in flight at once.
async fn ten_thousand_calls_are_in_flight_through_one_channel(wire: Wire) {
    let all_begun = Arc::new(Barrier::new(CALLS));
    let running = wire.run_echo(handler({
        let all_begun = Arc::clone(&all_begun);
        move |request: Request<Msg>| {
            let all_begun = Arc::clone(&all_begun);
            async move {
                all_begun.wait().await;
                Ok(Response::new(request.into_inner()))
            }
        }
    }));
    let echo = running.echo();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let call = echo.say(Msg::of(&number.to_string()));
        calls.spawn(async move { (number, call.await) });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        let (number, reply) = call.unwrap();
        let reply = reply.unwrap_or_else(|status| panic!("call {number}: {status}"));
        assert_eq!(reply.get_ref().text(), number.to_string());
        answered += 1;
    }
    assert_eq!(answered, CALLS);
    let stats = running.monitor.stats();
    assert_eq!(stats.handlers_spawned, CALLS as u64, "each ran once");
    assert_eq!(stats.calls_in_progress, 0);
}

on_every_wire!(ten_thousand_calls_are_in_flight_through_one_channel,);
