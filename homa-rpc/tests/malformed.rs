//! Malformed frames in either direction: that call fails, everything else goes on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use homa_rpc::{Channel, Code};
use homa_transport::Transport;
use support::frames::{self, Raw};
use support::{EchoClient, Msg, Wire, echo};

const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

fn full_call() -> Raw {
    Raw {
        extensions: vec![0, 9, 0, 1, 9],
        initial: b"\0\x01\0\0\0\x01kv\0\x05\0\0\0\x01k-bin\xff".to_vec(),
        time_or_load: u64::MAX,
        ..Raw::call()
    }
}

async fn a_frame_by_the_specification_is_understood_and_answered_by_it(wire: Wire) {
    let running = wire.run_echo(echo());
    let frame = full_call().bytes();
    let reply = frames::send(&running.client, running.server.local_addr(), frame).await;
    let reply = reply.unwrap();
    assert_eq!(reply.version, 1);
    assert_eq!(reply.kind, 0x81);
    assert_eq!(reply.flags & !frames::HINTS, frames::MESSAGE | frames::END);
    assert_eq!(reply.code, 0);
    assert_eq!(reply.call_id, Raw::call().call_id);
    assert_eq!(reply.message, Raw::call().message);
}

async fn every_truncation_and_bit_flip_gets_a_reply_and_the_socket_goes_on(wire: Wire) {
    let running = wire.run_echo(echo());
    let server: SocketAddr = running.server.local_addr();
    let good = full_call().bytes();
    for len in 1..good.len() {
        let reply = frames::send(&running.client, server, good[..len].to_vec()).await;
        let reply = reply.unwrap();
        assert_eq!(reply.code, INTERNAL, "cut to {len} bytes");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        frames::send(&running.client, server, bad).await.unwrap();
    }
    let reply = running.echo().say(Msg::of("fine")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "fine");
}

async fn an_unknown_version_is_unimplemented_naming_both(wire: Wire) {
    let running = wire.run_echo(echo());
    let frame = Raw {
        version: 7,
        ..Raw::call()
    };
    let server = running.server.local_addr();
    let reply = frames::send(&running.client, server, frame.bytes()).await;
    let reply = reply.unwrap();
    assert_eq!((reply.version, reply.code), (1, UNIMPLEMENTED));
    assert_eq!(reply.call_id, frame.call_id);
    assert!(reply.status_message.contains("version 7"));
    assert!(reply.status_message.contains("version 1"));
    assert_ne!(reply.flags & frames::REFUSED, 0);
}

async fn what_must_be_understood_and_is_not_is_unimplemented(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    let cases = [
        // The flag of a compressed message.
        Raw {
            flags: Raw::call().flags | 0x0004,
            ..Raw::call()
        },
        Raw {
            extensions: vec![0x80, 1, 0, 0],
            ..Raw::call()
        },
    ];
    for frame in cases {
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(reply.code, UNIMPLEMENTED, "{frame:?}: {reply:?}");
        assert_eq!(reply.kind, frame.kind | 0x80);
        assert_ne!(reply.flags & frames::REFUSED, 0);
    }
}

async fn frames_for_a_call_that_nobody_knows_say_so(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    for frame in [Raw::items(5, 1, &[b"x"]), Raw::pull(5, 1_000)] {
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(reply.code, UNAVAILABLE, "{frame:?}: {reply:?}");
        assert_eq!(reply.kind, frame.kind | 0x80);
        assert_eq!(reply.call_id, 5);
        assert!(reply.has(frames::UNKNOWN_CALL | frames::END));
        // The call may have been executed, so it is not one that was turned away.
        assert_eq!(reply.flags & frames::REFUSED, 0);
    }
    assert_eq!(running.monitor.stats().handlers_spawned, 0);
}

/// A unary method is called by frames of a stream, as bridges do that do not know the kind.
async fn a_unary_call_may_come_as_a_stream_of_one_item(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    let message = Raw::call().message;
    let item = [&[0, 0, 0, 0, 4], message.as_slice()].concat();
    let single = frames::SINGLE;
    // As one item or one message in the CALL, with END in the CALL or behind it, with SINGLE and without.
    let items = frames::MESSAGE | frames::ITEMS;
    for (id, flags, section) in [
        (1, items | frames::END, &item),
        (2, items | frames::END | single, &item),
        (3, frames::MESSAGE | frames::END, &message),
        (4, items, &item),
        (5, frames::MESSAGE | single, &message),
        (6, 0, &vec![]),
    ] {
        let call = Raw {
            flags,
            message: section.clone(),
            ..Raw::open(id, b"/test.Echo/Say", 1_000)
        };
        let answering = frames::send(&running.client, server, call.bytes());
        let ending = async {
            let mut acks = Vec::new();
            for part in match id {
                1..=3 => vec![],
                6 => vec![Raw::items(id, 1, &[&message]).end()],
                _ => vec![
                    Raw {
                        kind: frames::PART,
                        sequence: 1,
                        ..Raw::open(id, b"", 0)
                    }
                    .end(),
                ],
            } {
                let ack = frames::send(&running.client, server, part.bytes()).await;
                acks.push(ack.unwrap());
            }
            acks
        };
        // The CALL goes first.
        let (reply, acks) = tokio::join!(biased; answering, ending);
        let reply = reply.unwrap();
        assert_eq!(reply.code, 0, "{id}: {reply:?}");
        assert!(reply.has(frames::MESSAGE | frames::END), "{id}: {reply:?}");
        let is_items = reply.flags & frames::ITEMS != 0;
        assert_eq!(reply.message, *if is_items { &item } else { &message });
        for ack in acks {
            assert_eq!((ack.code, ack.kind), (0, frames::PART | 0x80));
            assert!(ack.message.is_empty() && !ack.has(frames::END));
        }
    }
}

async fn contents_that_make_no_sense_are_internal(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    let cases = [
        Raw {
            path: b"/test.Echo",
            ..Raw::call()
        },
        Raw {
            path: b"/test.Echo/Say?x",
            ..Raw::call()
        },
        Raw {
            path: b"",
            ..Raw::call()
        },
        Raw {
            kind: 9,
            ..Raw::call()
        },
        Raw {
            kind: 0x81,
            ..Raw::call()
        },
        Raw {
            flags: 0x0200,
            ..Raw::call()
        },
        Raw {
            flags: frames::END,
            ..Raw::call()
        },
        Raw {
            status_message: b"x".to_vec(),
            ..Raw::call()
        },
        Raw {
            initial: b"\0\x01\0\0\0\x01Kv".to_vec(),
            ..Raw::call()
        },
        Raw {
            initial: b"\0\x01\0\0\0\xffkv".to_vec(),
            ..Raw::call()
        },
        Raw {
            extensions: vec![0, 1, 0],
            ..Raw::call()
        },
        Raw {
            sequence: 1,
            ..Raw::call()
        },
        Raw {
            total_len: 4,
            ..Raw::call()
        },
        Raw {
            flags: frames::ITEMS | frames::END,
            ..Raw::call()
        },
    ];
    for frame in cases {
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        assert_eq!(reply.unwrap().code, INTERNAL, "{frame:?}");
    }
}

/// A client of a server whose replies are made by `reply`.
struct Scripted {
    echo: EchoClient,
    socket: Arc<dyn Transport>,
}

fn scripted(wire: Wire, reply: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Scripted {
    let (client, server) = wire.pair();
    frames::scripted(&server, reply);
    let channel = Channel::builder().socket(client);
    let uri = format!("homa+udp://{}", server.local_addr());
    Scripted {
        echo: EchoClient::new(channel.build(uri).unwrap()),
        socket: server,
    }
}

async fn a_good_reply_made_by_hand_is_understood(wire: Wire) {
    let server = scripted(wire, |id| {
        let reply = Raw {
            initial: b"\0\x01\0\0\0\x01kv".to_vec(),
            trailing: b"\0\x05\0\0\0\x02t-bin\0\xff".to_vec(),
            extensions: vec![0, 9, 0, 0],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let reply = server.echo.say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "hi");
    assert_eq!(reply.metadata().get("k"), Some("v"));
    let trailing = reply.trailing_metadata().unwrap().get_bin("t-bin");
    assert_eq!(trailing.unwrap().unwrap(), b"\0\xff".as_slice());
}

async fn truncated_replies_are_internal_and_flipped_bits_do_no_harm(wire: Wire) {
    let good = Raw::reply(0).bytes().len();
    let cut = AtomicUsize::new(0);
    let server = scripted(wire, move |id| {
        let cut = cut.fetch_add(1, Ordering::SeqCst) + 1;
        Raw::reply(id).bytes()[..cut].to_vec()
    });
    for cut in 1..good {
        let status = server.echo.say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "cut to {cut} bytes");
    }
    assert!(server.echo.say(Msg::default()).await.is_ok(), "not cut");
    let bit = AtomicUsize::new(0);
    let server = scripted(wire, move |id| {
        let bit = bit.fetch_add(1, Ordering::SeqCst);
        let mut bad = Raw::reply(id).bytes();
        if let Some(byte) = bad.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        bad
    });
    for _ in 0..good * 8 {
        drop(server.echo.say(Msg::default()).await);
    }
    assert!(
        server.echo.say(Msg::default()).await.is_ok(),
        "no bit flipped"
    );
}

async fn replies_that_do_not_belong_to_the_call_are_internal_and_name_the_socket(wire: Wire) {
    let cases: [fn(u64) -> Raw; 5] = [
        |id| Raw::reply(id + 1),
        |id| Raw {
            flags: frames::MESSAGE | frames::END | 0x0004,
            ..Raw::reply(id)
        },
        |id| Raw {
            kind: 0x82,
            ..Raw::reply(id)
        },
        |id| Raw {
            path: b"/a/b",
            ..Raw::reply(id)
        },
        |id| Raw {
            code: 5,
            status_message: vec![0xff],
            ..Raw::reply(id)
        },
    ];
    for reply in cases {
        let server = scripted(wire, move |id| reply(id).bytes());
        let status = server.echo.say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        let name = server.socket.local_addr().to_string();
        assert!(status.message().contains(&name), "{status}");
    }
}

async fn a_reply_of_another_version_is_unimplemented_naming_both(wire: Wire) {
    let server = scripted(wire, |id| {
        Raw {
            version: 2,
            ..Raw::reply(id)
        }
        .bytes()
    });
    let status = server.echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("version 2"), "{status}");
    assert!(status.message().contains("version 1"), "{status}");
}

async fn success_without_a_message_is_an_error(wire: Wire) {
    let server = scripted(wire, |id| {
        let reply = Raw {
            flags: frames::END,
            message: vec![],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let status = server.echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

async fn an_unknown_status_code_is_unknown_with_its_number(wire: Wire) {
    let server = scripted(wire, |id| {
        let reply = Raw {
            flags: frames::END,
            code: 99,
            message: vec![],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let status = server.echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.message().contains("99"), "{status}");
}

on_every_wire!(
    a_frame_by_the_specification_is_understood_and_answered_by_it,
    every_truncation_and_bit_flip_gets_a_reply_and_the_socket_goes_on,
    an_unknown_version_is_unimplemented_naming_both,
    what_must_be_understood_and_is_not_is_unimplemented,
    frames_for_a_call_that_nobody_knows_say_so,
    a_unary_call_may_come_as_a_stream_of_one_item,
    contents_that_make_no_sense_are_internal,
    a_good_reply_made_by_hand_is_understood,
    truncated_replies_are_internal_and_flipped_bits_do_no_harm,
    replies_that_do_not_belong_to_the_call_are_internal_and_name_the_socket,
    a_reply_of_another_version_is_unimplemented_naming_both,
    success_without_a_message_is_an_error,
    an_unknown_status_code_is_unknown_with_its_number,
);
