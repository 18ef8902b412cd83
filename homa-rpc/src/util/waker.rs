//! Whom to wake.

use std::task::{Context, Waker};

/// Notes the task of `cx` in place of the one before.
pub(crate) fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
