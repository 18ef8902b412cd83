//! The four kinds of calls. The service is in `src/guide.rs`; beside it the server has the services for health
//! and reflection.

use std::{process::ExitCode, time::Duration};

use homa_examples::{
    cli::{self, WrongArguments},
    guide::Guide,
    places::{self, CORNER, STEP},
    routeguide::{
        FILE_DESCRIPTOR_SET, Feature, Point, Rectangle, RouteNote,
        route_guide_client::RouteGuideClient, route_guide_server::RouteGuideServer,
    },
};
use homa_rpc::{
    BoundServer, Channel, IntoRequest, Request, Server,
    health::{
        pb::{HealthListRequest, health_client::HealthClient},
        server::{HealthReporter, health_reporter},
    },
    reflection::{
        pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        },
        server::Builder,
    },
};
use tokio::sync::oneshot;

const USAGE: &str = "\
usage: routeguide server [URI]     serve until Ctrl-C
       routeguide client [URI]     make a call of each of the four kinds
       routeguide health [URI]     ask the server how its services are
       routeguide services [URI]   ask the server which services it has
       routeguide both             server and client in one process, on a free port
URI is homa+udp://127.0.0.1:4004 if not given; port 0 means any free port.
RUST_LOG sets what is logged (to stderr), for instance RUST_LOG=homa_rpc=debug.";
const DEFAULT_URI: &str = "homa+udp://127.0.0.1:4004";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Listens, and gives the server with what sets the health of its services.
async fn bind(uri: &str) -> cli::Result<(BoundServer, HealthReporter)> {
    let (reporter, health_service) = health_reporter();
    reporter.set_serving::<RouteGuideServer<Guide>>().await;
    let reflection = Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(homa_rpc::health::pb::FILE_DESCRIPTOR_SET);
    let server = Server::builder()
        .add_service(RouteGuideServer::new(Guide::default()))
        .add_service(health_service)
        .add_service(reflection.clone().build_v1()?)
        .add_service(reflection.build_v1alpha()?)
        .bind(uri)?;
    Ok((server, reporter))
}

async fn serve(uri: &str) -> cli::Result {
    let (server, reporter) = bind(uri).await?;
    let stop = cli::interrupted()?;
    cli::serve_until(server, reporter.shutdown_on(stop)).await
}

/// A request with a time limit, which holds for the whole stream.
fn timed<T>(message: impl IntoRequest<T>) -> Request<T> {
    let mut request = message.into_request();
    request.set_timeout(TIMEOUT);
    request
}

/// The point so many steps north and east of the first one.
fn point(north: i32, east: i32) -> Point {
    Point {
        latitude: CORNER.latitude.saturating_add(north.saturating_mul(STEP)),
        longitude: CORNER.longitude.saturating_add(east.saturating_mul(STEP)),
    }
}

fn described(feature: &Feature) -> String {
    let point = feature.location.unwrap_or_default();
    let degrees = |units: i32| f64::from(units) / 1e7;
    let (north, east) = (degrees(point.latitude), degrees(point.longitude));
    let name = match feature.name.as_str() {
        "" => "nothing known",
        name => name,
    };
    format!("{name} ({north:.1}, {east:.1})")
}

async fn client(uri: &str) -> cli::Result {
    let guide = RouteGuideClient::new(Channel::new(uri)?);
    println!("one feature:");
    for point in [point(2, 3), Point::default()] {
        let feature = guide.get_feature(timed(point)).await?.into_inner();
        println!("  {}", described(&feature));
    }
    list(&guide).await?;
    record(&guide).await?;
    chat(&guide).await
}

/// One message there, many back.
async fn list(guide: &RouteGuideClient) -> cli::Result {
    println!("features of a rectangle:");
    let rectangle = Rectangle {
        lo: Some(point(0, 0)),
        hi: Some(point(1, 2)),
    };
    let mut features = guide.list_features(timed(rectangle)).await?.into_inner();
    while let Some(feature) = features.message().await? {
        println!("  {}", described(&feature));
    }
    Ok(())
}

/// Many messages there, one back.
async fn record(guide: &RouteGuideClient) -> cli::Result {
    let all = places::all().into_iter().step_by(11);
    let route = all.filter_map(|feature| feature.location);
    let mut request = Request::new(tokio_stream::iter(route));
    request.set_timeout(TIMEOUT);
    let summary = guide.record_route(request).await?.into_inner();
    println!(
        "a route of {} points passed {} features and was {:.1} km long",
        summary.point_count,
        summary.feature_count,
        f64::from(summary.distance) / 1000.0
    );
    Ok(())
}

/// Many messages there, many back.
async fn chat(guide: &RouteGuideClient) -> cli::Result {
    let said = [
        (0, "first note"),
        (1, "second note"),
        (0, "third note"),
        (0, "fourth note"),
    ];
    let notes = said.map(|(step, text)| RouteNote {
        location: Some(point(step, step)),
        message: text.to_owned(),
    });
    let mut request = Request::new(tokio_stream::iter(notes));
    request.set_timeout(TIMEOUT);
    let mut earlier = guide.route_chat(request).await?.into_inner();
    println!("earlier notes where we made ours:");
    while let Some(note) = earlier.message().await? {
        println!("  {}", note.message);
    }
    Ok(())
}

async fn health(uri: &str) -> cli::Result {
    let health = HealthClient::new(Channel::new(uri)?);
    let list = health.list(timed(HealthListRequest {})).await?;
    let mut statuses: Vec<_> = list.into_inner().statuses.into_iter().collect();
    statuses.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, health) in statuses {
        let name = if name.is_empty() { "the server" } else { &name };
        println!("{name}: {}", health.status().as_str_name());
    }
    Ok(())
}

async fn services(uri: &str) -> cli::Result {
    let reflection = ServerReflectionClient::new(Channel::new(uri)?);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut request = Request::new(tokio_stream::once(list));
    request.set_timeout(TIMEOUT);
    let mut answers = reflection.server_reflection_info(request).await?;
    while let Some(answer) = answers.get_mut().message().await? {
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                for service in list.service {
                    println!("{}", service.name);
                }
            }
            other => return Err(format!("expected a list of services, got {other:?}").into()),
        }
    }
    Ok(())
}

async fn both() -> cli::Result {
    let (server, reporter) = bind("homa+udp://127.0.0.1:0").await?;
    let uris = server.local_uris();
    let uri = uris.first().ok_or("the server has no address")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(reporter.shutdown_on(stopped)));
    client(uri).await?;
    health(uri).await?;
    services(uri).await?;
    drop(stop);
    serving.await??;
    Ok(())
}

async fn routeguide(words: &[&str]) -> cli::Result {
    let (command, uri) = match *words {
        [command] => (command, DEFAULT_URI),
        [command, uri] if command != "both" => (command, uri),
        _ => return Err(WrongArguments.into()),
    };
    match command {
        "server" => serve(uri).await,
        "client" => client(uri).await,
        "health" => health(uri).await,
        "services" => services(uri).await,
        "both" => both().await,
        _ => Err(WrongArguments.into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(routeguide, "routeguide", USAGE).await
}
