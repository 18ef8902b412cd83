//! Schemas that need care in Rust: what they mean is what it was in protobuf.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serve;

use homa_interop::careful::harmless::{
    lints::{Number, Old, traits_client::TraitsClient},
    names::{_3d_client::_3dClient, _3d_server, _9, Grade, Limits, Note, Tone},
};
use homa_rpc::{Request, Response, Server, Status};
use prost::Message as _;
use serve::with_server;

#[test]
fn a_default_that_is_another_name_for_a_number_is_the_variant_of_the_number() {
    let note = Note::default();
    assert_eq!(note.tone(), Tone::High);
    assert_eq!(note.high(), Tone::High);
    assert_eq!(note.deep(), Tone::Low);
}

#[test]
fn maps_of_enums_called_like_keywords_are_maps() {
    let mut note = Note::default();
    note.insert_type_("a".to_owned(), Grade::High);
    note.insert_match_(1, Grade::High);
    note.insert_self_(true, Grade::Low);
    note.r#fn.insert("b".to_owned(), "c".to_owned());
    let note = Note::decode(note.encode_to_vec().as_slice()).unwrap();
    assert_eq!(note.get_type_("a"), Some(Grade::High));
    assert_eq!(note.get_match_(1), Some(Grade::High));
    assert_eq!(note.get_self_(true), Some(Grade::Low));
    assert_eq!(note.r#fn.len(), 1);
}

#[test]
fn defaults_and_numbers_are_unbounded() {
    assert!(Limits::default().some().is_infinite() && Limits::default().some() < 0.0);
    assert_eq!(i32::from(Number::Low), i32::MIN);
    assert_eq!(i32::from(Number::Large), 123_456);
}

struct Digits;

#[homa_rpc::async_trait]
impl _3d_server::_3d for Digits {
    async fn _7(&self, request: Request<_9>) -> Result<Response<_9>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

#[tokio::test]
async fn a_service_whose_name_begins_with_a_digit_in_rust_is_called() {
    let server = Server::builder()
        .add_service(_3d_server::_3dServer::new(Digits))
        .bind("homa+mem://careful-digits")
        .unwrap();
    with_server(server, async |channel| {
        let client = _3dClient::new(channel);
        let reply = client._7(_9 { _8: Some(5) }).await.unwrap();
        assert_eq!(reply.into_inner()._8(), 5);
    })
    .await;
}

/// A method `Clone` does not get in the way of the client's own.
#[allow(dead_code, reason = "compiled, not called")]
async fn clients_are_cloned(client: &TraitsClient) -> Result<Response<Old>, Status> {
    let copy: TraitsClient = client.clone();
    copy.clone_(Old::default()).await
}
