//! The service of the example `routeguide`, called directly.

use homa_examples::guide::Guide;
use homa_examples::places::{self, CORNER, STEP};
use homa_examples::routeguide::route_guide_client::RouteGuideClient;
use homa_examples::routeguide::route_guide_server::RouteGuideServer;
use homa_examples::routeguide::{Point, Rectangle, RouteNote};
use homa_rpc::Code;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Client = RouteGuideClient<RouteGuideServer<Guide>>;

fn guide() -> Client {
    RouteGuideClient::new(RouteGuideServer::new(Guide::default()))
}

fn point(north: i32, east: i32) -> Point {
    Point {
        latitude: CORNER.latitude + north * STEP,
        longitude: CORNER.longitude + east * STEP,
    }
}

fn note(point: Point, message: &str) -> RouteNote {
    RouteNote {
        location: Some(point),
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn a_point_has_a_feature_or_one_without_a_name() {
    let guide = guide();
    let feature = guide.get_feature(point(2, 1)).await.unwrap().into_inner();
    assert_eq!(feature.name, "Old Ford");
    let nowhere = Point {
        latitude: 1,
        longitude: 2,
    };
    let feature = guide.get_feature(nowhere).await.unwrap().into_inner();
    assert_eq!(
        (feature.name.as_str(), feature.location),
        ("", Some(nowhere))
    );
}

#[tokio::test]
async fn a_rectangle_gives_its_features_in_order() {
    let rectangle = Rectangle {
        lo: Some(point(1, 3)),
        hi: Some(point(0, 2)),
    };
    let features = guide().list_features(rectangle).await.unwrap();
    let mut features = features.into_inner();
    let mut names = Vec::new();
    while let Some(feature) = features.message().await.unwrap() {
        names.push(feature.name);
    }
    let expected = ["Upper Bridge", "Upper Wood", "Lower Bridge", "Lower Wood"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_route_is_summed_up() {
    let route = [point(0, 0), point(0, 1), Point::default()];
    let summary = guide().record_route(tokio_stream::iter(route)).await;
    let summary = summary.unwrap().into_inner();
    assert_eq!((summary.point_count, summary.feature_count), (3, 2));
    let metres =
        places::distance_metres(route[0], route[1]) + places::distance_metres(route[1], route[2]);
    assert!((f64::from(summary.distance) - metres).abs() <= 0.5);

    let summary = guide().record_route(tokio_stream::empty()).await.unwrap();
    assert_eq!(summary.get_ref().point_count, 0);
}

#[tokio::test]
async fn a_route_off_the_earth_is_refused() {
    let beyond = Point {
        latitude: 900_000_001,
        longitude: 0,
    };
    // More points than are ever read.
    let route = tokio_stream::iter(std::iter::repeat(beyond));
    let status = guide().record_route(route).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("900000001"), "{status}");
}

#[tokio::test]
async fn notes_are_answered_while_more_come() {
    let guide = guide();
    let (notes, stream) = mpsc::channel(1);
    let answers = guide.route_chat(ReceiverStream::new(stream)).await.unwrap();
    let mut answers = answers.into_inner();
    for text in ["one", "two", "three"] {
        notes.send(note(point(0, 0), text)).await.unwrap();
    }
    for expected in ["one", "one", "two"] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.message, expected);
    }
    // Another client, another point, then the same.
    let others = [note(point(5, 5), "four"), note(point(0, 0), "five")];
    let heard = guide.route_chat(tokio_stream::iter(others)).await.unwrap();
    let mut heard = heard.into_inner();
    let mut texts = Vec::new();
    while let Some(answer) = heard.message().await.unwrap() {
        texts.push(answer.message);
    }
    assert_eq!(texts, ["one", "two", "three"]);
    drop(notes);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn notes_are_bounded_in_length_and_number() {
    let guide = guide();
    let long = note(point(0, 0), &"x".repeat(1_001));
    let answers = guide.route_chat(tokio_stream::once(long)).await.unwrap();
    let status = answers.into_inner().message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let many = (0..10_001).map(|number| note(point(number % 100, number / 100), ""));
    let answers = guide.route_chat(tokio_stream::iter(many)).await.unwrap();
    let status = answers.into_inner().message().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}
