//! Malformed frames in either direction: that call fails, everything else goes on.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use homa_rpc::{Channel, Code};
use homa_transport::Transport;
use support::frames::{self, Raw};
use support::{EchoClient, Msg, echo, net, run_echo};

const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;

fn full_call() -> Raw {
    Raw {
        extensions: vec![0, 1, 0, 1, 9],
        initial: b"\0\x01\0\0\0\x01kv\0\x05\0\0\0\x01k-bin\xff".to_vec(),
        time_or_load: u64::MAX,
        ..Raw::call()
    }
}

#[tokio::test]
async fn a_frame_by_the_specification_is_understood_and_answered_by_it() {
    let running = run_echo(echo());
    let frame = full_call().bytes();
    let reply = frames::send(&running.client, running.server.local_addr(), frame).await;
    let reply = reply.unwrap();
    assert_eq!(reply.version, 1);
    assert_eq!(reply.kind, 0x81);
    assert_eq!(reply.flags, frames::MESSAGE | frames::END);
    assert_eq!(reply.code, 0);
    assert_eq!(reply.call_id, Raw::call().call_id);
    assert_eq!(reply.message, Raw::call().message);
}

#[tokio::test]
async fn every_truncation_and_bit_flip_gets_a_reply_and_the_server_goes_on() {
    let running = run_echo(echo());
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

#[tokio::test]
async fn an_unknown_version_is_unimplemented_naming_both() {
    let running = run_echo(echo());
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

#[tokio::test]
async fn what_is_specified_but_not_built_is_unimplemented() {
    let running = run_echo(echo());
    let server = running.server.local_addr();
    let streaming = frames::MESSAGE | frames::SINGLE;
    let cases = [
        Raw {
            kind: frames::PART,
            ..Raw::call()
        },
        Raw {
            kind: frames::PULL,
            ..Raw::call()
        },
        Raw {
            flags: streaming,
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

#[tokio::test]
async fn contents_that_make_no_sense_are_internal() {
    let running = run_echo(echo());
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
    ];
    for frame in cases {
        let reply = frames::send(&running.client, server, frame.bytes()).await;
        assert_eq!(reply.unwrap().code, INTERNAL, "{frame:?}");
    }
}

/// A channel to a server whose replies are made by `reply`.
fn scripted(reply: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> EchoClient {
    let (client, server): (Arc<dyn Transport>, Arc<dyn Transport>) = net::pair();
    frames::scripted(&server, reply);
    // The registry of nodes holds servers weakly.
    std::mem::forget(Arc::clone(&server));
    let channel = Channel::builder().socket(client);
    let uri = format!("homa+udp://{}", server.local_addr());
    EchoClient::new(channel.build(uri).unwrap())
}

#[tokio::test]
async fn a_good_reply_made_by_hand_is_understood() {
    let echo = scripted(|id| {
        let reply = Raw {
            initial: b"\0\x01\0\0\0\x01kv".to_vec(),
            trailing: b"\0\x05\0\0\0\x02t-bin\0\xff".to_vec(),
            extensions: vec![0, 9, 0, 0],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let reply = echo.say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "hi");
    assert_eq!(reply.metadata().get("k"), Some("v"));
    let trailing = reply.trailing_metadata().unwrap().get_bin("t-bin");
    assert_eq!(trailing.unwrap().unwrap(), b"\0\xff".as_slice());
}

#[tokio::test]
async fn truncated_replies_are_internal_and_flipped_bits_do_no_harm() {
    let len = Raw::reply(0).bytes().len();
    for cut in 1..len {
        let echo = scripted(move |id| Raw::reply(id).bytes()[..cut].to_vec());
        let status = echo.say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "cut to {cut} bytes");
    }
    for bit in 0..len * 8 {
        let echo = scripted(move |id| {
            let mut bad = Raw::reply(id).bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        });
        drop(echo.say(Msg::default()).await);
    }
}

#[tokio::test]
async fn replies_that_do_not_belong_to_the_call_are_internal_and_name_the_server() {
    let cases: [fn(u64) -> Raw; 4] = [
        |id| Raw::reply(id + 1),
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
        let echo = scripted(move |id| reply(id).bytes());
        let status = echo.say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(status.message().contains("127.9.9.9:"), "{status}");
    }
}

#[tokio::test]
async fn a_reply_of_another_version_is_unimplemented_naming_both() {
    let echo = scripted(|id| {
        Raw {
            version: 2,
            ..Raw::reply(id)
        }
        .bytes()
    });
    let status = echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("version 2"), "{status}");
    assert!(status.message().contains("version 1"), "{status}");
}

#[tokio::test]
async fn success_without_a_message_is_an_error() {
    let echo = scripted(|id| {
        let reply = Raw {
            flags: frames::END,
            message: vec![],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let status = echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_unknown_status_code_is_unknown_with_its_number() {
    let echo = scripted(|id| {
        let reply = Raw {
            flags: frames::END,
            code: 99,
            message: vec![],
            ..Raw::reply(id)
        };
        reply.bytes()
    });
    let status = echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.message().contains("99"), "{status}");
}
