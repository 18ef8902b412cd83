//! Calls of all four kinds through generated code: a client over a server, with nothing between the two.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use homa_rpc::{
    BoxRequestStream, BoxStream, Code, Request, Response, Status, Streaming, async_trait,
};
use streaming::{
    Closures, Item, Streams, StreamsApi, StreamsClient, StreamsServer, items, numbers,
};

#[tokio::test]
async fn one_for_one() {
    let client = Closures::default().client();
    let reply = client.say(Item::number(7)).await.unwrap();
    assert_eq!(reply.get_ref().number, 7);
}

#[tokio::test]
async fn many_for_one() {
    let client = Closures::default().client();
    let mut items = client.list(Item::number(3)).await.unwrap().into_inner();
    assert_eq!(numbers(&mut items).await.unwrap(), [0, 1, 2]);
    assert_eq!(items.message().await.unwrap(), None);
}

#[tokio::test]
async fn one_for_many() {
    let client = Closures::default().client();
    let items = stream::iter([5, 4, 3]).map(Item::long);
    let last = client.record(items).await.unwrap().into_inner();
    assert_eq!((last.number, last.data.len()), (3, 3));
}

#[tokio::test]
async fn many_for_many() {
    let client = Closures::default().client();
    let items = stream::iter(0..100).map(Item::number);
    let mut echoed = client.chat(items).await.unwrap().into_inner();
    let expected: Vec<u64> = (0..100).collect();
    assert_eq!(numbers(&mut echoed).await.unwrap(), expected);
}

#[tokio::test]
async fn streams_may_be_empty() {
    let client = Closures::default().client();
    let mut none = client.list(Item::number(0)).await.unwrap().into_inner();
    assert_eq!(none.message().await.unwrap(), None);
    assert!(none.trailers().await.unwrap().unwrap().is_empty());
    let last = client.record(stream::empty()).await.unwrap().into_inner();
    assert_eq!(last.number, 0);
    let mut none = client.chat(stream::empty()).await.unwrap().into_inner();
    assert_eq!(none.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_request_is_answered_before_the_next_is_there() {
    let client = Closures::default().client();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    for number in 0..100 {
        sender.send(Item::number(number)).await.unwrap();
        assert_eq!(echoed.message().await.unwrap(), Some(Item::number(number)));
    }
    drop(sender);
    assert_eq!(echoed.message().await.unwrap(), None);
}

#[tokio::test]
async fn items_of_many_lengths_arrive_as_they_were() {
    // Around what the encoder treats in different ways: runs of 24 kB, long items over 8 kB.
    let mut lengths = vec![0, 1, 2, 130, 20_000, 70_000, 0, 1_000_000, 3];
    lengths.extend(8_180..8_200);
    lengths.extend([100; 1_000]);
    let expected: Vec<Item> = lengths.iter().copied().map(Item::long).collect();
    let client = Closures::default().client();
    let echoed = client.chat(stream::iter(expected.clone())).await.unwrap();
    let echoed: Vec<_> = echoed.into_inner().map(Result::unwrap).collect().await;
    assert!(echoed == expected);
}

#[tokio::test]
async fn an_error_after_some_items_comes_behind_them_with_all_that_it_says() {
    let service = Closures::default().list(async |request: Request<Item>| {
        let count = request.get_ref().number;
        let mut status = Status::with_details(Code::DataLoss, "100 % \u{e9}\n", "det");
        status.metadata_mut().insert("why", "because").unwrap();
        let failing = items(0..count).chain(stream::iter([
            Err(status),
            Err(Status::internal("not reached")),
        ]));
        Ok(Response::new(failing.boxed()))
    });
    let client = service.client();
    for count in [0, 1, 5, 10_000] {
        let mut items = client.list(Item::number(count)).await.unwrap().into_inner();
        for number in 0..count {
            assert_eq!(items.message().await.unwrap(), Some(Item::number(number)));
        }
        let status = items.message().await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss);
        assert_eq!(status.message(), "100 % \u{e9}\n");
        assert_eq!(status.details(), "det");
        assert_eq!(status.metadata().get("why").unwrap(), "because");
        // As in tonic, nothing comes after that.
        assert_eq!(items.message().await.unwrap(), None);
        assert_eq!(items.trailers().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_failure_before_the_stream_is_that_of_the_call() {
    let client = Closures::default()
        .list(async |_| Err(Status::not_found("no list")))
        .record(async |_| Err(Status::aborted("no record")))
        .chat(async |_| Err(Status::new(Code::Ok, "no failure")))
        .client();
    let code = |status: Status| (status.code(), status.message().to_owned());
    let list = client.list(Item::default()).await.unwrap_err();
    assert_eq!(code(list), (Code::NotFound, "no list".into()));
    let record = client.record(stream::pending()).await.unwrap_err();
    assert_eq!(code(record), (Code::Aborted, "no record".into()));
    let chat = client.chat(stream::pending()).await.unwrap_err();
    assert_eq!(chat.code(), Code::Unknown, "{chat}");
}

#[tokio::test]
async fn the_code_ok_is_no_way_to_fail_in_a_stream() {
    let failing = async |_| Ok(Response::new(ok_as_error().boxed()));
    fn ok_as_error() -> impl stream::Stream<Item = Result<Item, Status>> + Send {
        stream::iter([Err(Status::new(Code::Ok, "fine"))])
    }
    let client = Closures::default().list(failing).client();
    let mut items = client.list(Item::default()).await.unwrap().into_inner();
    assert_eq!(items.message().await.unwrap_err().code(), Code::Unknown);
}

#[tokio::test]
async fn metadata_passes_before_and_behind_the_items() {
    fn answer<T>(request: &homa_rpc::Metadata, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let asked = request.get("ask").unwrap();
        response.metadata_mut().insert("head", asked).unwrap();
        let trailing = response.trailing_metadata_mut();
        trailing.append("tail", "a").unwrap();
        trailing.append("tail", "b").unwrap();
        trailing
            .insert_bin("tail-bin", [0, 255].as_slice())
            .unwrap();
        response
    }
    let client = Closures::default()
        .list(async |request: Request<Item>| Ok(answer(request.metadata(), items(0..3).boxed())))
        .record(async |request: Request<Streaming<Item>>| {
            Ok(answer(request.metadata(), Item::number(1)))
        })
        .chat(async |request: Request<Streaming<Item>>| {
            let metadata = request.metadata().clone();
            Ok(answer(&metadata, request.into_inner().boxed()))
        })
        .client();
    let check_tail = |tail: &homa_rpc::Metadata| {
        let all: Vec<_> = tail.get_all("tail").collect();
        assert_eq!(all, ["a", "b"]);
        assert_eq!(
            tail.get_bin("tail-bin").unwrap().unwrap(),
            [0, 255].as_slice()
        );
        let keys: Vec<_> = tail.keys().collect();
        assert_eq!(keys, ["tail", "tail", "tail-bin"], "no `grpc-status`");
    };
    fn with_metadata<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("ask", "answered").unwrap();
        request
    }
    let list = client.list(with_metadata(Item::default())).await.unwrap();
    let chat = client
        .chat(with_metadata(stream::iter([Item::number(0)])))
        .await
        .unwrap();
    for (response, count) in [(list, 3), (chat, 1)] {
        let head = response.metadata().get("head").unwrap();
        assert_eq!(head, "answered");
        let mut items = response.into_inner();
        assert_eq!(numbers(&mut items).await.unwrap().len(), count);
        check_tail(&items.trailers().await.unwrap().unwrap());
        assert_eq!(items.trailers().await.unwrap(), None, "taken");
    }
    let record = client.record(with_metadata(stream::empty())).await.unwrap();
    let head = record.metadata().get("head").unwrap();
    assert_eq!(head, "answered");
    check_tail(record.trailing_metadata().unwrap());
}

#[tokio::test]
async fn trailers_read_what_is_left() {
    let client = Closures::default().client();
    let mut items = client
        .list(Item::number(50_000))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(items.message().await.unwrap(), Some(Item::number(0)));
    assert!(items.trailers().await.unwrap().unwrap().is_empty());
    assert_eq!(items.message().await.unwrap(), None);
}

#[tokio::test]
async fn what_handlers_know_of_a_call_they_know_of_one_that_streams() {
    let client = Closures::default()
        .record(async |request: Request<Streaming<Item>>| {
            assert!(request.deadline().is_some());
            let kind = request.method().unwrap().kind();
            assert!(kind.client_streams() && !kind.server_streams());
            assert_eq!(request.extensions().get::<u8>(), Some(&7));
            Ok(Response::new(Item::number(1)))
        })
        .client();
    let mut request = Request::new(stream::empty());
    request.set_timeout(std::time::Duration::from_secs(3600));
    request.extensions_mut().insert(7_u8);
    client.record(request).await.unwrap();
}

/// A method that a service has not is named, whatever its kind.
#[tokio::test]
async fn methods_that_are_left_out_are_unimplemented() {
    struct Nothing;
    #[async_trait]
    impl Streams for Nothing {
        async fn say(&self, _request: Request<Item>) -> Result<Response<Item>, Status> {
            Err(Status::unimplemented("say"))
        }
        type ListStream = BoxStream<Item>;
        async fn list(&self, _: Request<Item>) -> Result<Response<BoxStream<Item>>, Status> {
            Err(Status::unimplemented("list"))
        }
        async fn record(&self, _: Request<Streaming<Item>>) -> Result<Response<Item>, Status> {
            Err(Status::unimplemented("record"))
        }
        type ChatStream = stream::Empty<Result<Item, Status>>;
        async fn chat(
            &self,
            _: Request<Streaming<Item>>,
        ) -> Result<Response<Self::ChatStream>, Status> {
            Ok(Response::new(stream::empty()))
        }
    }
    let client = StreamsClient::new(StreamsServer::new(Nothing));
    let status = client.record(stream::pending()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "record")
    );
    let chat = client.chat(stream::pending()).await.unwrap();
    assert_eq!(chat.into_inner().message().await.unwrap(), None);
}

#[tokio::test]
async fn a_mock_of_a_client_and_a_test_of_a_handler_need_no_call() {
    struct Mock;
    #[async_trait]
    impl StreamsApi for Mock {
        async fn say(&self, request: Request<Item>) -> Result<Response<Item>, Status> {
            Ok(Response::new(request.into_inner()))
        }
        async fn list(&self, _: Request<Item>) -> Result<Response<Streaming<Item>>, Status> {
            Ok(Response::new(Streaming::from_stream(items([4, 2]))))
        }
        async fn record(
            &self,
            request: Request<BoxRequestStream<Item>>,
        ) -> Result<Response<Item>, Status> {
            let count = request.into_inner().count().await;
            Ok(Response::new(Item::number(count as u64)))
        }
        async fn chat(
            &self,
            _: Request<BoxRequestStream<Item>>,
        ) -> Result<Response<Streaming<Item>>, Status> {
            let failing = items([1]).chain(stream::iter([Err(Status::aborted("mocked"))]));
            Ok(Response::new(Streaming::from_stream(failing)))
        }
    }
    async fn count(api: &dyn StreamsApi) -> Result<u64, Status> {
        let mut list = api.list(Request::new(Item::number(2))).await?.into_inner();
        let listed = numbers(&mut list).await?;
        let requests: BoxRequestStream<Item> = Box::pin(stream::iter(listed).map(Item::number));
        Ok(api.record(Request::new(requests)).await?.get_ref().number)
    }
    assert_eq!(count(&Mock).await.unwrap(), 2);
    assert_eq!(count(&Closures::default().client()).await.unwrap(), 2);
    let pending: BoxRequestStream<Item> = Box::pin(stream::pending());
    let mut chat = Mock.chat(Request::new(pending)).await.unwrap().into_inner();
    assert_eq!(chat.message().await.unwrap(), Some(Item::number(1)));
    assert_eq!(chat.message().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(chat.message().await.unwrap(), None);

    let requests = Streaming::from_stream(items([1, 2, 3]));
    let handler = Closures::default();
    let reply = Streams::record(&handler, Request::new(requests))
        .await
        .unwrap();
    assert_eq!(reply.get_ref().number, 3);
}

#[tokio::test]
async fn a_call_can_be_spawned_and_outlive_its_client_and_its_stream_be_sent_on() {
    let client = Arc::new(Closures::default().client());
    let call = client.chat(stream::iter(0..10).map(Item::number));
    drop(client);
    let mut items = tokio::spawn(call).await.unwrap().unwrap().into_inner();
    let count = tokio::spawn(async move { numbers(&mut items).await.unwrap().len() });
    assert_eq!(count.await.unwrap(), 10);
}

#[test]
fn streams_and_calls_can_go_to_other_threads() {
    fn check<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    fn send<T: Send + 'static>(_: T) {}
    // `Cell` is not `Sync`: what a message is does not matter.
    check::<Streaming<std::cell::Cell<u8>>>();
    check::<Response<Streaming<Item>>>();
    check::<Request<Streaming<Item>>>();
    let client = Closures::default().client();
    let (sender, receiver) = std::sync::mpsc::channel();
    sender.send(Item::default()).unwrap();
    drop(sender);
    // A stream that is not `Sync`.
    let requests = stream::iter(receiver);
    send(client.chat(requests));
    send(client.record(stream::empty()));
    send(client.list(Item::default()));
}
