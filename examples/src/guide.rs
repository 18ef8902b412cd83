//! [`Guide`]: the service of the example `routeguide`, with a method of each of the four kinds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use homa_rpc::{BoxStream, Request, Response, Status, Streaming};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::places;
use crate::routeguide::route_guide_server::RouteGuide;
use crate::routeguide::{Feature, Point, Rectangle, RouteNote, RouteSummary};

const NOTES_MAX: usize = 10_000;
const NOTE_BYTES_MAX: usize = 1_000;
/// Notes on their way to a client.
const NOTES_WAITING: usize = 16;

/// Knows the places of [`places`], and the notes that were made since it began.
#[derive(Debug)]
pub struct Guide {
    features: Arc<[Feature]>,
    notes: Arc<Notes>,
}

impl Default for Guide {
    fn default() -> Self {
        Self {
            features: places::all().into(),
            notes: Arc::default(),
        }
    }
}

impl Guide {
    fn feature_at(&self, point: Point) -> Option<&Feature> {
        let mut features = self.features.iter();
        features.find(|feature| feature.location == Some(point))
    }
}

#[homa_rpc::async_trait]
impl RouteGuide for Guide {
    /// One message there, one back.
    async fn get_feature(&self, request: Request<Point>) -> Result<Response<Feature>, Status> {
        let point = request.into_inner();
        let nothing = || Feature {
            name: String::new(),
            location: Some(point),
        };
        let feature = self.feature_at(point).cloned();
        Ok(Response::new(feature.unwrap_or_else(nothing)))
    }

    type ListFeaturesStream = BoxStream<Feature>;

    /// One message there, many back: made when they can be sent, not before.
    async fn list_features(
        &self,
        request: Request<Rectangle>,
    ) -> Result<Response<Self::ListFeaturesStream>, Status> {
        let rectangle = request.into_inner();
        let features = Arc::clone(&self.features);
        let features = (0..features.len()).filter_map(move |index| {
            let feature = features.get(index)?;
            let inside = places::is_in(feature.location?, rectangle);
            inside.then(|| Ok(feature.clone()))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(features))))
    }

    /// Many messages there, one back.
    async fn record_route(
        &self,
        request: Request<Streaming<Point>>,
    ) -> Result<Response<RouteSummary>, Status> {
        let mut points = request.into_inner();
        let mut summary = RouteSummary::default();
        let mut metres = 0.0;
        let mut begin = None;
        let mut before = None;
        while let Some(point) = points.message().await? {
            if !places::is_on_earth(point) {
                let text = format!("there is no such point on the earth: {point:?}");
                return Err(Status::invalid_argument(text));
            }
            begin.get_or_insert_with(Instant::now);
            metres += before.map_or(0.0, |before| places::distance_metres(before, point));
            before = Some(point);
            summary.point_count = summary.point_count.saturating_add(1);
            if self.feature_at(point).is_some() {
                summary.feature_count = summary.feature_count.saturating_add(1);
            }
        }
        let seconds = begin.map_or(0, |begin| begin.elapsed().as_secs());
        summary.elapsed_time = i32::try_from(seconds).unwrap_or(i32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` gives the nearest i32"
        )]
        let distance = metres.round() as i32;
        summary.distance = distance;
        Ok(Response::new(summary))
    }

    type RouteChatStream = BoxStream<RouteNote>;

    /// Many messages there, many back, while more come.
    async fn route_chat(
        &self,
        request: Request<Streaming<RouteNote>>,
    ) -> Result<Response<Self::RouteChatStream>, Status> {
        let (answers, stream) = mpsc::channel(NOTES_WAITING);
        let notes = Arc::clone(&self.notes);
        tokio::spawn(answer_notes(request.into_inner(), notes, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Answers notes until there are no more, one is refused, or the client is gone.
async fn answer_notes(
    mut incoming: Streaming<RouteNote>,
    notes: Arc<Notes>,
    answers: mpsc::Sender<Result<RouteNote, Status>>,
) {
    loop {
        let note = tokio::select! {
            note = incoming.message() => note,
            () = answers.closed() => return,
        };
        let Some(note) = note.transpose() else {
            return;
        };
        match note.and_then(|note| notes.exchange(note)) {
            Ok(earlier) => {
                for note in earlier {
                    if answers.send(Ok(note)).await.is_err() {
                        return;
                    }
                }
            }
            Err(status) => {
                // If that fails, nobody wants to know.
                let _gone = answers.send(Err(status)).await;
                return;
            }
        }
    }
}

/// What was said, by latitude and longitude.
#[derive(Debug, Default)]
struct Notes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_point: HashMap<(i32, i32), Vec<RouteNote>>,
    count: usize,
}

impl Notes {
    /// Keeps a note. The earlier ones at the same point.
    fn exchange(&self, note: RouteNote) -> Result<Vec<RouteNote>, Status> {
        let bytes = note.message.len();
        if bytes > NOTE_BYTES_MAX {
            let text = format!("a note has at most {NOTE_BYTES_MAX} bytes, not {bytes}");
            return Err(Status::invalid_argument(text));
        }
        let point = note.location.unwrap_or_default();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.count >= NOTES_MAX {
            let text = format!("there is room for {NOTES_MAX} notes, and they are there");
            return Err(Status::resource_exhausted(text));
        }
        kept.count += 1;
        let place = (point.latitude, point.longitude);
        let here = kept.by_point.entry(place).or_default();
        let earlier = here.clone();
        here.push(note);
        Ok(earlier)
    }
}
