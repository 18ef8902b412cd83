//! The `json` program, run as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;

use bytes::Bytes;
use homa_examples::json::{JsonCodec, Numbers, Summary};
use homa_rpc::{Code, Codec as _};
use process::{ServerProcess, run};

const JSON: &str = env!("CARGO_BIN_EXE_json");

#[test]
fn numbers_are_summarized() {
    let server = ServerProcess::start(JSON);
    let ended = run(JSON, &["client", &server.uri, "1.5", "-2", "40"]);
    assert_eq!(
        ended.stdout,
        "{\"count\":3,\"sum\":39.5,\"largest\":40.0}\n"
    );
    assert_eq!(ended.code, Some(0));
    let ended = run(JSON, &["client", &server.uri]);
    assert_eq!(ended.stdout, "{\"count\":0,\"sum\":0.0}\n");
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn a_word_that_is_no_number_is_refused_before_the_call() {
    let ended = run(JSON, &["client", "homa+udp://127.0.0.1:1", "one"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("expected a number, got \"one\""),
        "{ended:?}"
    );
}

#[test]
fn what_is_not_json_of_the_type_is_internal() {
    fn decode(text: &'static str) -> Result<Summary, Code> {
        let codec = JsonCodec::<Numbers, Summary>::default();
        codec
            .decode(Bytes::from_static(text.as_bytes()))
            .map_err(|status| status.code())
    }
    assert_eq!(decode("{\"count\":0,\"sum\":0}"), Ok(Summary::default()));
    for text in [
        "",
        "{",
        "{\"count\":-1,\"sum\":0}",
        "[]",
        "{\"count\":0,\"sum\":0} x",
    ] {
        assert_eq!(decode(text), Err(Code::Internal), "{text}");
    }
}

#[test]
fn what_json_cannot_say_is_internal() {
    #[derive(serde::Serialize)]
    struct Unspeakable {
        map: std::collections::BTreeMap<(u8, u8), u8>,
    }
    let codec = JsonCodec::<Unspeakable, Summary>::default();
    let map = [((1, 2), 3)].into();
    let status = codec.encode(Unspeakable { map }).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}
