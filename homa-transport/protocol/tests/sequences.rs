//! The message sequences by which the Homa literature explains the protocol, played by two real
//! endpoints. Their diagrams are in `docs/sequences.md`; `UPDATE_DOCS=1 cargo test` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use homa_protocol::RpcError;
use homa_protocol::wire::PacketType;
use support::{Fate, Pair, Side, pattern};

const LONG: Duration = Duration::from_secs(60);

/// A short wire, so that the diagrams stay readable.
fn pair() -> Pair {
    let mut pair = Pair::new().acquaint();
    pair.packet_bytes = 10_056;
    pair
}

fn diagram(title: &str, words: &str, pair: &Pair) -> String {
    let mut text = format!("## {title}\n\n{words}\n\n```mermaid\nsequenceDiagram\n");
    text.push_str("    participant C as client\n    participant S as server\n");
    for sent in &pair.log {
        let (from, to) = match sent.from {
            Side::Client => ("C", "S"),
            Side::Server => ("S", "C"),
        };
        let arrow = if sent.fate == Fate::Drop {
            "--x"
        } else {
            "->>"
        };
        writeln!(text, "    {from}{arrow}{to}: {}", sent.text).unwrap();
    }
    text.push_str("```\n");
    text
}

/// The section of the document with this title is as the run has just shown it.
fn check(section: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sequences.md");
    let title = section.lines().next().unwrap().to_owned();
    let document = std::fs::read_to_string(path).unwrap_or_default();
    let known = document
        .split("\n## ")
        .map(|part| format!("## {}", part.trim_start_matches("## ")));
    let known = known
        .map(|part| part.trim_end().to_owned())
        .find(|part| part.starts_with(&title));
    assert_eq!(
        known.as_deref(),
        Some(section.trim_end()),
        "docs/sequences.md, {title}"
    );
}

fn texts(pair: &Pair, side: Side) -> Vec<&str> {
    pair.log
        .iter()
        .filter(|sent| sent.from == side)
        .map(|sent| sent.text.as_str())
        .collect()
}

fn normal_request_and_response_with_grants() -> String {
    let mut pair = pair();
    pair.answer = Box::new(|_| Some(pattern(100, 0).into()));
    pair.call(pattern(90_000, 0), 1);
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok());
    let server = texts(&pair, Side::Server);
    assert!(server.contains(&"GRANT up to 90000"), "{server:?}");
    assert!(server.contains(&"DATA 0..100 of 100"));
    assert!(
        !server
            .iter()
            .chain(&texts(&pair, Side::Client))
            .any(|text| text.contains("RESEND"))
    );
    diagram(
        "A long request, granted",
        "The first 40,000 bytes need no permission; the rest waits for a GRANT, which comes with the \
         first packet. The response is its own acknowledgement; nobody asks for anything. The server \
         keeps its record until the ack, which it asks for when no other request brings it.",
        &pair,
    )
}

fn sender_crash_with_resends_discard_and_unknown_on_its_return() -> String {
    let mut pair = pair();
    pair.call(pattern(90_000, 0), 1);
    // The client dies after the first packets and comes back, 12 timeouts later, without its RPCs.
    pair.fate = Box::new(|_| Fate::Drop);
    pair.run_for(Duration::from_millis(30));
    let in_the_silence = pair.log.len();
    pair.run_for(Duration::from_secs(12));
    assert!(
        pair.server.is_idle(),
        "the server has discarded the request"
    );
    assert!(pair.deliveries.is_empty());
    pair.log.truncate(in_the_silence);
    // A server that is quicker to come back finds the client's new process without the RPC.
    let mut quick = self::pair();
    quick.call(pattern(90_000, 0), 1);
    quick.fate = Box::new(|sent| match sent.packet_type {
        PacketType::Grant => Fate::Drop,
        _ => Fate::Deliver,
    });
    quick.run_for(Duration::from_micros(30));
    quick.restart_client();
    quick.run_for(Duration::from_millis(30));
    let client = texts(&quick, Side::Client);
    assert!(client.contains(&"RPC_UNKNOWN"), "{client:?}");
    assert!(quick.server.is_idle(), "the answer ends the RPC at once");
    diagram(
        "The client crashes while it sends",
        "The server misses bytes that were announced and asks for them, again and again. A client \
         that is gone for good is declared dead after a second and ten unanswered requests, and all \
         its RPCs are discarded. Here it is back after 10 ms: its new process does not know the RPC and \
         says so, which ends it at once.",
        &quick,
    )
}

fn lost_data_with_lost_resend_and_busy() -> String {
    let mut pair = pair();
    pair.answer = Box::new(|_| None);
    let (mut data_lost, mut resend_lost) = (false, false);
    pair.fate = Box::new(move |sent| {
        let second = sent.text.starts_with("DATA 10000..") && !data_lost;
        let resend =
            sent.from == Side::Server && sent.packet_type == PacketType::Resend && !resend_lost;
        data_lost |= second;
        resend_lost |= resend;
        if second || resend {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    });
    pair.call(pattern(30_000, 0), 1);
    pair.run_for(Duration::from_millis(18));
    let rpc = pair.open[0];
    pair.respond(rpc, pattern(100, 0)).unwrap();
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok());
    assert_eq!(pair.deliveries.values().sum::<usize>(), 1);
    let (server, client) = (texts(&pair, Side::Server), texts(&pair, Side::Client));
    assert!(
        server
            .iter()
            .filter(|text| **text == "RESEND 10000..20000")
            .count()
            >= 2
    );
    assert!(
        client.contains(&"DATA 10000..20000 of 30000 again"),
        "{client:?}"
    );
    assert!(server.contains(&"BUSY"));
    diagram(
        "Lost DATA, a lost RESEND, and BUSY",
        "A packet in the middle of the request is lost, and so is the first RESEND for it. The client, \
         which waits for the response, asks too and hears BUSY: the server lives and has the RPC. The \
         second RESEND brings the missing packet.",
        &pair,
    )
}

fn lost_unscheduled_data_with_unknown_and_restart() -> String {
    let mut pair = pair();
    pair.fate = Box::new(|sent| match (sent.number, sent.packet_type) {
        (0..2, PacketType::Data) => Fate::Drop,
        _ => Fate::Deliver,
    });
    pair.call(pattern(15_000, 0), 1);
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok());
    assert_eq!(pair.deliveries.values().sum::<usize>(), 1);
    let (server, client) = (texts(&pair, Side::Server), texts(&pair, Side::Client));
    assert_eq!(client[2], "RESEND everything");
    assert_eq!(server[0], "RPC_UNKNOWN");
    assert_eq!(client[3], "DATA 0..10000 of 15000 again");
    diagram(
        "All of the request lost",
        "The server knows nothing of the RPC, so only the client can notice: it asks for the response, \
         learns that the RPC is unknown and starts over. That is safe, since it has heard nothing that \
         would show that the server ever had it.",
        &pair,
    )
}

#[test]
fn normal_sequence_has_grants_and_no_recovery() {
    check(&normal_request_and_response_with_grants());
}

#[test]
fn crashed_sender_is_asked_discarded_and_answers_unknown_on_its_return() {
    check(&sender_crash_with_resends_discard_and_unknown_on_its_return());
}

#[test]
fn lost_data_and_lost_resend_are_recovered_while_busy_keeps_the_client_waiting() {
    check(&lost_data_with_lost_resend_and_busy());
}

#[test]
fn lost_request_is_unknown_and_restarted() {
    check(&lost_unscheduled_data_with_unknown_and_restart());
}

#[test]
fn a_client_restarted_after_the_server_forgot_gets_no_stale_answer() {
    let mut pair = pair();
    pair.answer = Box::new(|_| None);
    pair.call(pattern(10, 0), 1);
    pair.run_for(Duration::from_millis(1));
    pair.restart_client();
    let rpc = pair.open[0];
    pair.respond(rpc, pattern(100, 0)).unwrap();
    pair.run(LONG);
    assert!(pair.outcomes.is_empty());
    assert!(pair.server.is_idle());
    assert_eq!(pair.respond(rpc, pattern(1, 0)), Err(RpcError::Stale));
}

/// Writes the document when asked to.
#[test]
fn the_document_holds_all_sequences() {
    let sections = [
        normal_request_and_response_with_grants(),
        lost_unscheduled_data_with_unknown_and_restart(),
        lost_data_with_lost_resend_and_busy(),
        sender_crash_with_resends_discard_and_unknown_on_its_return(),
    ];
    let mut document = String::from(
        "# Message sequences\n\nDrawn from runs of two endpoints by `tests/sequences.rs`, which checks \
         that they stay true.\nCrossed arrows are packets that were lost on the way.\n",
    );
    for section in &sections {
        document.push('\n');
        document.push_str(section);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sequences.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), document);
}
