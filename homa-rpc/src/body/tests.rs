use http_body::Body as _;
use http_body_util::{BodyExt, Full};

use super::*;
use http::HeaderValue;

use crate::message::status::Code;

/// The contents of a body, taken out or read.
async fn collect<B>(
    body: B,
    message_max: usize,
    limit: &'static str,
) -> Result<(Whole, CallInfo), Status>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    match take_or_read(body, message_max, limit) {
        Ok(contents) => Ok(contents),
        Err(reading) => reading.await,
    }
}

/// Hides the type, so that the body has to be polled.
fn foreign(body: Body) -> http_body_util::combinators::UnsyncBoxBody<Bytes, Status> {
    body.boxed_unsync()
}

fn ok_response(message: &'static [u8]) -> Body {
    let mut metadata = Metadata::new();
    metadata.insert("k", "v").unwrap();
    Body::whole(Whole {
        message: Some(Bytes::from_static(message)),
        end: End::Ok(Some(Box::new(metadata))),
    })
}

#[tokio::test]
async fn through_http_a_response_is_grpc_with_prefix_and_trailers() {
    let collected = ok_response(b"abc").collect().await.unwrap();
    let trailers = collected.trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["k"], "v");
    assert_eq!(collected.to_bytes(), b"\0\0\0\0\x03abc".as_slice());
}

#[tokio::test]
async fn an_empty_message_is_a_prefix_and_no_empty_frame() {
    let mut body = Body::request(Bytes::new());
    assert_eq!(body.size_hint().exact(), Some(5));
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), [0; 5].as_slice());
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn polling_and_taking_out_give_the_same() {
    for message in [b"".as_slice(), b"message"] {
        let (taken, _) = collect(ok_response(message), 100, "limit").await.unwrap();
        let (polled, _) = collect(foreign(ok_response(message)), 100, "limit")
            .await
            .unwrap();
        assert_eq!(taken.message, polled.message);
        let (End::Ok(Some(taken)), End::Ok(Some(polled))) = (taken.end, polled.end) else {
            panic!("metadata lost")
        };
        assert_eq!(taken, polled);
    }
}

#[tokio::test]
async fn status_behind_a_message_travels_in_the_trailers() {
    let status = Status::with_details(Code::DataLoss, "100 % \u{e9}\n", "det");
    let body = Body::whole(Whole {
        message: Some(Bytes::from_static(b"m")),
        end: End::Failed(status),
    });
    let (whole, _) = collect(foreign(body), 100, "limit").await.unwrap();
    let End::Failed(status) = whole.end else {
        panic!("no status")
    };
    assert_eq!(status.code(), Code::DataLoss);
    assert_eq!(status.message(), "100 % \u{e9}\n");
    assert_eq!(status.details(), "det");
}

#[test]
fn a_failed_response_has_no_trailers() {
    let response = Status::not_found("gone").into_http();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream());
    let outcome = final_status(&response).unwrap().unwrap_err();
    assert_eq!(outcome.code(), Code::NotFound);
    let response = Status::new(Code::Ok, "really").into_http();
    assert_eq!(response.headers()["grpc-status"], "2");
}

#[test]
fn a_typed_status_is_found_behind_a_body_of_another_type() {
    let status = Status::unavailable("later").refused();
    let response = status.into_http().map(foreign);
    let outcome = final_status(&response).unwrap().unwrap_err();
    assert_eq!(outcome.code(), Code::Unavailable);
    assert!(outcome.is_refused());
    let response = Status::aborted("lost").into_http();
    assert!(response.extensions().is_empty(), "the headers say it all");
    let outcome = final_status(&response.map(foreign)).unwrap().unwrap_err();
    assert_eq!(outcome.message(), "lost");
}

#[test]
fn the_status_of_grpc_counts_before_that_of_http() {
    let mut response = Status::aborted("lost").into_http();
    *response.status_mut() = http::StatusCode::FORBIDDEN;
    let outcome = final_status(&response).unwrap().unwrap_err();
    assert_eq!(outcome.code(), Code::Aborted);
}

#[test]
fn bodies_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Body>();
    check::<http::Request<Body>>();
}

#[test]
fn final_status_is_known_for_whole_responses_and_http_errors_only() {
    let response = http::Response::new(ok_response(b""));
    assert!(matches!(final_status(&response), Some(Ok(()))));
    let response = http::Response::new(Body::new(Full::new(Bytes::new())));
    assert!(final_status(&response).is_none());
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::FORBIDDEN;
    let status = final_status(&response).unwrap().unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[test]
fn whole_requests_clone_and_foreign_ones_say_no() {
    let mut request = http::Request::new(Body::request(Bytes::from_static(b"m")));
    *request.uri_mut() = "/a/b".parse().unwrap();
    request
        .headers_mut()
        .insert("k", HeaderValue::from_static("v"));
    request.extensions_mut().insert(7_u8);
    request.body_mut().info_mut().peer = Some(([1, 2, 3, 4], 5).into());
    let copy = try_clone_request(&request).unwrap();
    assert_eq!(copy.body().message().unwrap(), "m");
    assert_eq!(copy.uri(), "/a/b");
    assert_eq!(copy.headers(), request.headers());
    assert_eq!(copy.extensions().get::<u8>(), Some(&7));
    assert_eq!(copy.body().info().peer, request.body().info().peer);
    let request = http::Request::new(Body::new(Full::new(Bytes::new())));
    assert!(try_clone_request(&request).is_none());
}

#[tokio::test]
async fn foreign_bodies_may_cut_the_prefix_anywhere() {
    let grpc = b"\0\0\0\0\x03abc";
    for cut in 0..=grpc.len() {
        let frames = [&grpc[..cut], &grpc[cut..]]
            .map(|part| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(part))));
        let body = Frames(frames.into_iter());
        let (whole, _) = collect(body, 3, "limit").await.unwrap();
        assert_eq!(whole.message.unwrap(), "abc");
    }
}

struct Frames<I>(I);

impl<I: Iterator<Item = Result<Frame<Bytes>, Status>> + Unpin> http_body::Body for Frames<I> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut task::Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn malformed_foreign_bodies_are_errors() {
    for (bytes, code) in [
        (b"\0\0\0".as_slice(), Code::Internal),
        (b"\0\0\0\0\x02a", Code::Internal),
        (b"\0\0\0\0\x01ab", Code::Unimplemented),
        (b"\x01\0\0\0\x01a", Code::Unimplemented),
        (b"\0\0\0\0\x0babcdefghijk", Code::ResourceExhausted),
    ] {
        let body = Full::new(Bytes::from_static(bytes));
        let status = collect(body, 10, "limit").await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    let (whole, _) = collect(Full::new(Bytes::new()), 10, "limit").await.unwrap();
    assert_eq!(whole.message, None);
}

/// A body that yields these frames and then nothing, without an end.
struct Endless<I>(I);

impl<I: Iterator<Item = Frame<Bytes>> + Unpin> http_body::Body for Endless<I> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.next() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Pending,
        }
    }
}

fn message(text: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text))
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_end_is_told_by_its_second_message_or_by_its_silence_after_the_first() {
    let begun = tokio::time::Instant::now();
    let stream = Endless([message(b"\0\0\0\0\x01a"), message(b"\0\0\0\0\x01b")].into_iter());
    let status = collect(stream, 10, "limit").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("a stream came"), "{status}");
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "at once");

    let stream = Endless([message(b"\0\0\0\0"), message(b"\x01a")].into_iter());
    let status = collect(stream, 10, "limit").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("500ms"), "{status}");
    assert!(begun.elapsed() < std::time::Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn a_message_may_be_long_in_coming_and_the_trailers_a_little() {
    struct Slow(u8, Pin<Box<tokio::time::Sleep>>);
    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            std::task::ready!(self.1.as_mut().poll(cx));
            self.0 += 1;
            self.1 = Box::pin(tokio::time::sleep(std::time::Duration::from_millis(300)));
            Poll::Ready(match self.0 {
                1 => Some(Ok(message(b"\0\0\0\0\x01a"))),
                2 => {
                    let status = [("grpc-status", "0")].map(|(k, v)| {
                        (
                            http::HeaderName::from_static(k),
                            HeaderValue::from_static(v),
                        )
                    });
                    Some(Ok(Frame::trailers(status.into_iter().collect())))
                }
                _ => None,
            })
        }
    }
    let hour = std::time::Duration::from_secs(3600);
    let body = Slow(0, Box::pin(tokio::time::sleep(hour)));
    let (whole, _) = collect(body, 10, "limit").await.unwrap();
    assert_eq!(whole.message.unwrap(), "a");
    assert!(matches!(whole.end, End::Ok(_)));
}
