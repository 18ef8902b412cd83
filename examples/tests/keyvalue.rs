//! The `keyvalue` service, in this process and as a program of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use std::{future::Future, time::Duration};

use homa_examples::{
    keyvalue::{
        DeleteRequest, GetRequest, ListRequest, PutRequest, key_value_client::KeyValueClient,
        key_value_server::KeyValueServer,
    },
    store::{REQUEST_ID, Store, VERSION},
};
use homa_rpc::{Channel, Code, Request, Server};
use process::{Ended, ServerProcess, run};
use tokio::sync::oneshot;

const KEYVALUE: &str = env!("CARGO_BIN_EXE_keyvalue");

/// Serves a new store, runs `test` with a client of it, and stops.
async fn with_store<F: Future<Output = ()>>(test: impl FnOnce(KeyValueClient) -> F) {
    let server = Server::builder()
        .add_service(KeyValueServer::new(Store::default()))
        .bind("homa+udp://127.0.0.1:0")
        .unwrap();
    let uri = server.local_uris().remove(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));
    test(KeyValueClient::new(Channel::new(&uri).unwrap())).await;
    drop(stop);
    serving.await.unwrap().unwrap();
}

fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.to_owned(),
    }
}

fn put(key: &str, value: &[u8]) -> PutRequest {
    PutRequest {
        key: key.to_owned(),
        value: value.to_owned(),
        expected_version: None,
    }
}

#[tokio::test]
async fn what_is_put_can_be_got_listed_and_deleted() {
    with_store(async |client| {
        for key in ["b", "a", "c"] {
            client.put(put(key, key.as_bytes())).await.unwrap();
        }
        let response = client.get(get("a")).await.unwrap();
        assert_eq!(response.metadata().get(VERSION), Some("1"));
        assert_eq!(response.into_inner().value, b"a");

        let list = ListRequest {
            limit: 2,
            ..ListRequest::default()
        };
        let reply = client.list(list).await.unwrap().into_inner();
        let keys: Vec<_> = reply
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        assert_eq!((keys, reply.more), (vec!["a", "b"], true));

        client
            .delete(DeleteRequest {
                key: "a".to_owned(),
            })
            .await
            .unwrap();
        let error = client.get(get("a")).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::NotFound, "no entry with the key `a`")
        );
    })
    .await;
}

#[tokio::test]
async fn errors_have_their_codes() {
    with_store(async |client| {
        let error = client.put(put("", b"")).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let guarded = PutRequest {
            expected_version: Some(7),
            ..put("k", b"")
        };
        let error = client.put(guarded).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(error.message(), "expected version 7, the entry has 0");
        let error = client
            .delete(DeleteRequest {
                key: "k".to_owned(),
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let list = ListRequest {
            limit: 1_001,
            ..ListRequest::default()
        };
        assert_eq!(
            client.list(list).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    })
    .await;
}

#[tokio::test]
async fn request_id_comes_back_with_replies_and_errors() {
    with_store(async |client| {
        let mut request = Request::new(put("k", b"v"));
        request.metadata_mut().insert(REQUEST_ID, "one").unwrap();
        let response = client.put(request).await.unwrap();
        assert_eq!(response.metadata().get(REQUEST_ID), Some("one"));

        let mut request = Request::new(get("missing"));
        request.metadata_mut().insert(REQUEST_ID, "two").unwrap();
        let error = client.get(request).await.unwrap_err();
        assert_eq!(error.metadata().get(REQUEST_ID), Some("two"));
    })
    .await;
}

#[tokio::test]
async fn deadline_that_has_passed_ends_the_call() {
    with_store(async |client| {
        let mut request = Request::new(get("k"));
        request.set_timeout(Duration::ZERO);
        assert_eq!(
            client.get(request).await.unwrap_err().code(),
            Code::DeadlineExceeded
        );
    })
    .await;
}

#[tokio::test]
async fn longest_values_and_full_pages_fit_into_messages() {
    with_store(async |client| {
        for key in ["a", "b", "c", "d", "e"] {
            client.put(put(key, &vec![7; 100_000])).await.unwrap();
        }
        let reply = client
            .list(ListRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!((reply.entries.len(), reply.more), (4, true));
        assert!(
            reply
                .entries
                .iter()
                .all(|entry| entry.value == vec![7; 100_000])
        );
    })
    .await;
}

#[tokio::test]
async fn calls_can_be_spawned() {
    with_store(async |client| {
        let calls: Vec<_> = (0..32)
            .map(|number| tokio::spawn(client.put(put(&number.to_string(), b""))))
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().into_inner().version, 1);
        }
    })
    .await;
}

#[track_caller]
fn assert_ended(ended: &Ended, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, stdout);
    assert!(ended.stderr.contains(stderr), "{ended:?}");
}

#[test]
fn program_serves_its_own_client() {
    let server = ServerProcess::start(KEYVALUE);
    let client = |command: &[&str]| run(KEYVALUE, &[&["client", &server.uri], command].concat());
    assert_ended(&client(&["put", "k", "hello"]), 0, "version 1\n", "");
    assert_ended(&client(&["put", "k", "again", "1"]), 0, "version 2\n", "");
    assert_ended(
        &client(&["put", "k", "late", "1"]),
        1,
        "",
        "FAILED_PRECONDITION",
    );
    assert_ended(&client(&["get", "k"]), 0, "again (version 2)\n", "");
    assert_ended(&client(&["put", "l", "x"]), 0, "version 1\n", "");
    assert_ended(&client(&["list"]), 0, "k = again\nl = x\n", "");
    assert_ended(&client(&["list", "", "1"]), 0, "k = again\n...\n", "");
    assert_ended(&client(&["delete", "k"]), 0, "deleted\n", "");
    assert_ended(&client(&["get", "k"]), 1, "", "NOT_FOUND");
    assert_ended(
        &client(&["put", "k", "v", "not-a-number"]),
        1,
        "",
        "expected a version, which is a whole number, got \"not-a-number\"",
    );
    assert_ended(&client(&["frobnicate"]), 2, "", "usage: keyvalue ");
    assert_eq!(server.interrupt(), Some(0));
}
