//! Details of errors from the handler to the caller, and what malformed ones do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use homa_rpc::types::{
    BadRequest, DebugInfo, ErrorDetails, ErrorInfo, Help, LocalizedMessage, PreconditionFailure,
    QuotaFailure, RequestInfo, ResourceInfo, RetryInfo, RpcStatus, bad_request, help,
    precondition_failure, quota_failure,
};
use homa_rpc::{Body, Channel, Code, Server, Status};
use http_body_util::BodyExt;
use prost::{Message, Name};
use support::echo_client::EchoClient;
use support::frames::{self, Raw};
use support::{Msg, Wire, handler, run};

fn violations() -> (BadRequest, PreconditionFailure, QuotaFailure) {
    let bad = bad_request::FieldViolation {
        field: "people[1].email".into(),
        description: "no address".into(),
        reason: "EMAIL_INVALID".into(),
        localized_message: Some(LocalizedMessage {
            locale: "de-CH".into(),
            message: "Keine Adresse: \u{fc}".into(),
        }),
    };
    let precondition = precondition_failure::Violation {
        r#type: "TOS".into(),
        subject: "example.com/cloud".into(),
        description: "not accepted".into(),
    };
    let quota = quota_failure::Violation {
        subject: "clientip:192.0.2.1".into(),
        description: "too many".into(),
        api_service: "other.example.com".into(),
        quota_metric: "calls".into(),
        quota_id: "calls-per-day".into(),
        quota_dimensions: [("region".into(), "west".into())].into(),
        quota_value: -1,
        future_quota_value: Some(0),
    };
    (
        BadRequest {
            field_violations: vec![bad.clone(), bad],
        },
        PreconditionFailure {
            violations: vec![precondition],
        },
        QuotaFailure {
            violations: vec![quota],
        },
    )
}

/// One of each of the ten standard messages.
fn ten() -> ErrorDetails {
    let (bad, precondition, quota) = violations();
    ErrorDetails::new()
        .with(ErrorInfo {
            reason: "API_DISABLED".into(),
            domain: "pubsub.example.com".into(),
            metadata: [("zone".into(), "a".into()), ("host".into(), "b".into())].into(),
        })
        .with(RetryInfo::after(Duration::from_micros(1_500_001)))
        .with(DebugInfo {
            stack_entries: vec!["inner".into(), "outer".into()],
            detail: "at night".into(),
        })
        .with(quota)
        .with(precondition)
        .with(bad)
        .with(RequestInfo {
            request_id: "r-1".into(),
            serving_data: "xyz".into(),
        })
        .with(ResourceInfo {
            resource_type: "table".into(),
            resource_name: "t".into(),
            owner: "project:1".into(),
            description: "locked".into(),
        })
        .with(Help {
            links: vec![help::Link {
                description: "more".into(),
                url: "https://example.com".into(),
            }],
        })
        .with(LocalizedMessage {
            locale: "fr-CH".into(),
            message: "H\u{e9}las".into(),
        })
}

/// A message of the user's own.
#[derive(Clone, PartialEq, prost::Message)]
struct Own {
    #[prost(uint32, tag = "1")]
    number: u32,
}

impl Name for Own {
    const NAME: &'static str = "Own";
    const PACKAGE: &'static str = "test";
}

async fn the_ten_standard_details_arrive_and_so_does_a_message_of_ones_own(wire: Wire) {
    let sent = ten().with(Own { number: 7 });
    let details = sent.clone();
    let running = wire.run_echo(handler(move |_| {
        let status = Status::with_error_details(Code::Aborted, "100 % \u{fc}", details.clone());
        async move { Err(status) }
    }));
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "100 % \u{fc}")
    );
    let got = status.error_details().unwrap();
    assert_eq!(got, sent);
    assert_eq!(got.as_any().len(), 11);
    let (bad, precondition, quota) = violations();
    assert_eq!(got.get(), Some(bad));
    assert_eq!(got.get(), Some(precondition));
    assert_eq!(got.get(), Some(quota));
    let retry: RetryInfo = got.get().unwrap();
    assert_eq!(retry.delay(), Some(Duration::from_micros(1_500_001)));
    assert_eq!(got.get(), Some(Own { number: 7 }));
    let whole = RpcStatus::decode(status.details().clone()).unwrap();
    assert_eq!((whole.code, &*whole.message), (10, "100 % \u{fc}"));
}

async fn details_survive_layers_that_wrap_bodies_on_both_sides(wire: Wire) {
    type Wrapped = http_body_util::combinators::UnsyncBoxBody<Bytes, Status>;
    fn wrapped(response: http::Response<Body>) -> http::Response<Wrapped> {
        response.map(BodyExt::boxed_unsync)
    }
    let server = Server::builder()
        .layer(tower::util::MapResponseLayer::new(wrapped))
        .add_service(handler(async |_| {
            Err(Status::with_error_details(Code::Aborted, "a % b", ten()))
        }));
    let running = run(server, wire.pair());
    let service = tower::util::MapResponse::new(running.channel.clone(), wrapped);
    let status = EchoClient::new(service).say(Msg::default()).await;
    let status = status.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "a % b"));
    assert_eq!(status.error_details(), Ok(ten()));
}

/// Bytes that are no `google.rpc.Status`, or one whose parts are broken.
fn malformed() -> Vec<Vec<u8>> {
    let mut all = vec![
        b"\xff".to_vec(),
        vec![0; 100],
        b"\x0a".to_vec(),
        // The message is no UTF-8.
        b"\x12\x02\xff\xfe".to_vec(),
        // A length far beyond the end.
        b"\x1a\xff\xff\xff\xff\x0f".to_vec(),
        // A varint without an end.
        vec![
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        // Groups in groups.
        vec![0x0b; 10_000],
    ];
    let good = Status::with_error_details(Code::Aborted, "m", ten());
    let good = good.details();
    all.extend((1..good.len()).step_by(7).map(|len| good[..len].to_vec()));
    all
}

async fn malformed_details_of_a_server_do_not_break_the_client(wire: Wire) {
    let all = malformed();
    let count = all.len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let (client, server) = wire.pair();
    let replies = all.clone();
    frames::scripted(&server, move |id| {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let reply = Raw {
            flags: frames::END,
            code: 5,
            status_message: b"gone".to_vec(),
            details: replies[n % count].clone(),
            message: vec![],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = Channel::builder().socket(client).build(uri).unwrap();
    let echo = EchoClient::new(channel);
    let mut unreadable = 0;
    for details in &all {
        let status = echo.say(Msg::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
        assert_eq!(status.details(), details);
        unreadable += usize::from(status.error_details().is_err());
    }
    assert!(unreadable > count / 2, "{unreadable} of {count}");
}

#[tokio::test]
async fn a_malformed_details_header_does_not_break_the_client() {
    for value in ["!", "a", "AAAAA=", "\u{7f}", "YQ==\t", "%", "CAU", ""] {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let mut response = http::Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert("grpc-status", http::HeaderValue::from_static("5"));
            headers.insert("grpc-message", http::HeaderValue::from_static("gone%"));
            if let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert("grpc-status-details-bin", value);
            }
            Ok::<_, Status>(response)
        });
        let status = EchoClient::new(service).say(Msg::default()).await;
        let status = status.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "gone%"));
        // "CAU" is `code: 5` and nothing else, which is fine.
        assert_eq!(status.error_details(), Ok(ErrorDetails::new()), "{value:?}");
    }
}

on_every_wire!(
    the_ten_standard_details_arrive_and_so_does_a_message_of_ones_own,
    details_survive_layers_that_wrap_bodies_on_both_sides,
    malformed_details_of_a_server_do_not_break_the_client,
);
