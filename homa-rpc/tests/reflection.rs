//! The reflection service: what it tells of descriptors, and what it does with bad ones and bad questions.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::stream;
use homa_rpc::reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use homa_rpc::reflection::pb::v1::server_reflection_request::MessageRequest;
use homa_rpc::reflection::pb::v1::server_reflection_response::MessageResponse;
use homa_rpc::reflection::pb::v1::{
    ErrorResponse, ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
};
use homa_rpc::reflection::pb::{v1, v1alpha};
use homa_rpc::reflection::server::{Builder, Error};
use homa_rpc::{Code, Status};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn field(name: &str, number: i32, extendee: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: some(name),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Int32.into()),
        extendee: extendee.map(str::to_owned),
        ..Default::default()
    }
}

fn enumeration(name: &str, value: &str) -> EnumDescriptorProto {
    let value = EnumValueDescriptorProto {
        name: some(value),
        number: Some(0),
        ..Default::default()
    };
    EnumDescriptorProto {
        name: some(name),
        value: vec![value],
        ..Default::default()
    }
}

/// A file that declares something of each kind.
fn shop() -> FileDescriptorProto {
    let nested = DescriptorProto {
        name: some("Size"),
        extension: vec![field("weight", 101, Some(".shop.Item"))],
        ..Default::default()
    };
    let item = DescriptorProto {
        name: some("Item"),
        field: vec![field("price", 1, None)],
        nested_type: vec![nested],
        enum_type: vec![enumeration("Colour", "RED")],
        oneof_decl: vec![OneofDescriptorProto {
            name: some("kind"),
            ..Default::default()
        }],
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: some("Shop"),
        method: vec![MethodDescriptorProto {
            name: some("Buy"),
            ..Default::default()
        }],
        ..Default::default()
    };
    FileDescriptorProto {
        name: some("shop/shop.proto"),
        package: some("shop"),
        dependency: vec!["shop/base.proto".to_owned(), "not/here.proto".to_owned()],
        message_type: vec![item],
        enum_type: vec![enumeration("Day", "MONDAY")],
        service: vec![service],
        extension: vec![field("rebate", 100, Some(".shop.Item"))],
        ..Default::default()
    }
}

/// A file in no package, imported by the other one.
fn base() -> FileDescriptorProto {
    FileDescriptorProto {
        name: some("shop/base.proto"),
        message_type: vec![DescriptorProto {
            name: some("Base"),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn builder(files: &[FileDescriptorProto]) -> Builder<'static> {
    let file = files.to_vec();
    Builder::configure().register_file_descriptor_set(FileDescriptorSet { file })
}

/// Asks all of it on one stream.
async fn ask(
    builder: Builder<'_>,
    questions: impl IntoIterator<Item = MessageRequest>,
) -> Vec<MessageResponse> {
    let questions = questions.into_iter().map(Some).collect();
    let answers = exchange(builder, questions).await.unwrap();
    let answers = answers.into_iter().map(|answer| answer.message_response);
    answers.map(Option::unwrap).collect()
}

async fn exchange(
    builder: Builder<'_>,
    questions: Vec<Option<MessageRequest>>,
) -> Result<Vec<ServerReflectionResponse>, Status> {
    let requests = questions.into_iter().map(request);
    let client = ServerReflectionClient::new(builder.build_v1().unwrap());
    let answers = client
        .server_reflection_info(stream::iter(requests))
        .await?;
    let mut answers = answers.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

fn request(message_request: Option<MessageRequest>) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: "some-host".to_owned(),
        message_request,
    }
}

fn symbol(name: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(name.to_owned())
}

fn file(name: &str) -> MessageRequest {
    MessageRequest::FileByFilename(name.to_owned())
}

fn extension(containing_type: &str, extension_number: i32) -> MessageRequest {
    MessageRequest::FileContainingExtension(ExtensionRequest {
        containing_type: containing_type.to_owned(),
        extension_number,
    })
}

fn numbers(of: &str) -> MessageRequest {
    MessageRequest::AllExtensionNumbersOfType(of.to_owned())
}

fn list() -> MessageRequest {
    MessageRequest::ListServices(String::new())
}

/// The files of an answer.
#[track_caller]
fn files(answer: &MessageResponse) -> &[Bytes] {
    match answer {
        MessageResponse::FileDescriptorResponse(files) => &files.file_descriptor_proto,
        other => panic!("expected files, got {other:?}"),
    }
}

#[track_caller]
fn names(answer: &MessageResponse) -> Vec<String> {
    let name = |file: &Bytes| {
        let file = FileDescriptorProto::decode(file.clone()).unwrap();
        file.name().to_owned()
    };
    files(answer).iter().map(name).collect()
}

#[track_caller]
fn error(answer: &MessageResponse) -> (Code, &str) {
    match answer {
        MessageResponse::ErrorResponse(ErrorResponse {
            error_code,
            error_message,
        }) => (Code::try_from(*error_code).unwrap(), error_message),
        other => panic!("expected an error, got {other:?}"),
    }
}

#[track_caller]
fn services(answer: &MessageResponse) -> Vec<&str> {
    match answer {
        MessageResponse::ListServicesResponse(list) => {
            let names = list.service.iter().map(|service| service.name.as_str());
            names.collect()
        }
        other => panic!("expected services, got {other:?}"),
    }
}

#[tokio::test]
async fn every_kind_of_symbol_leads_to_its_file() {
    let symbols = [
        "shop.Item",
        "shop.Item.price",
        "shop.Item.kind",
        "shop.Item.Size",
        "shop.Item.Size.weight",
        "shop.Item.Colour",
        "shop.Item.RED",
        "shop.Day",
        "shop.MONDAY",
        "shop.rebate",
        "shop.Shop",
        "shop.Shop.Buy",
    ];
    for name in symbols {
        let answers = ask(builder(&[shop(), base()]), [symbol(name)]).await;
        assert_eq!(names(&answers[0])[0], "shop/shop.proto", "{name}");
    }
    let answers = ask(builder(&[shop(), base()]), [symbol("Base")]).await;
    assert_eq!(names(&answers[0]), ["shop/base.proto"]);
}

#[tokio::test]
async fn extensions_are_found_by_message_and_number() {
    let questions = [
        extension("shop.Item", 100),
        extension("shop.Item", 101),
        extension("shop.Item", 102),
        extension("shop.Nothing", 100),
        numbers("shop.Item"),
        numbers("shop.Item.Size"),
        numbers("shop.Nothing"),
        // Not a message.
        numbers("shop.Shop"),
    ];
    let answers = ask(builder(&[shop(), base()]), questions).await;
    assert_eq!(names(&answers[0])[0], "shop/shop.proto");
    assert_eq!(names(&answers[1])[0], "shop/shop.proto");
    assert_eq!(error(&answers[2]).0, Code::NotFound);
    assert!(error(&answers[2]).1.contains("102"), "{:?}", answers[2]);
    assert_eq!(error(&answers[3]).0, Code::NotFound);
    let extensions = |answer: &MessageResponse| match answer {
        MessageResponse::AllExtensionNumbersResponse(all) => {
            (all.base_type_name.clone(), all.extension_number.clone())
        }
        other => panic!("expected numbers, got {other:?}"),
    };
    let expected = ("shop.Item".to_owned(), vec![100, 101]);
    assert_eq!(extensions(&answers[4]), expected);
    let expected = ("shop.Item.Size".to_owned(), vec![]);
    assert_eq!(extensions(&answers[5]), expected);
    assert_eq!(error(&answers[6]).0, Code::NotFound);
    assert_eq!(error(&answers[7]).0, Code::NotFound);
}

#[tokio::test]
async fn a_file_comes_with_its_imports_and_these_only_once() {
    let questions = [
        symbol("shop.Shop"),
        symbol("shop.Item"),
        file("shop/base.proto"),
    ];
    let answers = ask(builder(&[base(), shop()]), questions).await;
    assert_eq!(names(&answers[0]), ["shop/shop.proto", "shop/base.proto"]);
    // What is asked for is sent whether it was before or not.
    assert_eq!(names(&answers[1]), ["shop/shop.proto"]);
    assert_eq!(names(&answers[2]), ["shop/base.proto"]);
}

/// A file with imports, and a message with a long name.
fn importing(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: some(name),
        dependency: imports.iter().map(|name| (*name).to_owned()).collect(),
        message_type: vec![DescriptorProto {
            name: Some(format!("M{name}{}", "x".repeat(100_000))),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// What general clients do: they ask for a symbol, and then for the imports that they miss.
#[tokio::test]
async fn imports_without_room_in_a_response_can_be_asked_for() {
    let all = ["a", "b", "c", "d", "e"];
    let tree = [
        importing("a", &["b", "c"]),
        importing("b", &["d"]),
        importing("c", &["d", "e"]),
        importing("d", &[]),
        // A circle, which no compiler makes.
        importing("e", &["a"]),
    ];
    let mut known = BTreeSet::new();
    let mut rounds = 0;
    while let Some(missing) = all.iter().find(|name| !known.contains(**name)) {
        let answers = ask(builder(&tree), [file(missing)]).await;
        let bytes: usize = files(&answers[0]).iter().map(Bytes::len).sum();
        assert!(bytes < 300_000, "{bytes}");
        known.extend(names(&answers[0]));
        rounds += 1;
        assert!(rounds <= all.len());
    }
    assert!(rounds > 1, "all came at once");
    // On one stream the client is never told twice, but for what it asks for.
    let answers = ask(builder(&tree), [file("a"), file("e"), file("a")]).await;
    assert_eq!(names(&answers[0]), ["a", "b"]);
    assert_eq!(names(&answers[1]), ["e", "c"]);
    assert_eq!(names(&answers[2]), ["a", "d"]);
}

#[tokio::test]
async fn what_is_not_there_is_an_error_in_the_response_and_the_stream_goes_on() {
    let questions = vec![
        Some(file("no/such.proto")),
        Some(symbol("no.Such")),
        None,
        Some(list()),
    ];
    let answers = exchange(builder(&[shop()]), questions.clone()).await;
    let answers = answers.unwrap();
    for (answer, question) in answers.iter().zip(questions) {
        assert_eq!(answer.valid_host, "some-host");
        assert_eq!(answer.original_request, Some(request(question)));
    }
    let answer = |index: usize| answers[index].message_response.as_ref().unwrap();
    assert_eq!(error(answer(0)).0, Code::NotFound);
    assert!(error(answer(0)).1.contains("\"no/such.proto\""));
    assert_eq!(error(answer(1)).0, Code::NotFound);
    assert_eq!(error(answer(2)).0, Code::InvalidArgument);
    assert_eq!(services(answer(3)).len(), 2);
}

#[tokio::test]
async fn services_are_listed_as_the_builder_says() {
    let own = "grpc.reflection.v1.ServerReflection";
    let set = || builder(&[base(), shop()]);
    let answers = ask(set(), [list()]).await;
    assert_eq!(services(&answers[0]), ["shop.Shop", own]);
    let answers = ask(
        set().include_reflection_service(false),
        [list(), symbol(own)],
    )
    .await;
    assert_eq!(services(&answers[0]), ["shop.Shop"]);
    assert_eq!(error(&answers[1]).0, Code::NotFound);
    let named = set()
        .with_service_name("a.A")
        .with_service_name("shop.Shop");
    let answers = ask(named, [list(), symbol(own)]).await;
    assert_eq!(services(&answers[0]), ["a.A", "shop.Shop"]);
    assert_eq!(names(&answers[1]), ["grpc/reflection/v1/reflection.proto"]);
}

/// Both versions have the same messages on the wire, so either client can read either.
#[tokio::test]
async fn version_1_alpha_says_the_same_under_its_own_name() {
    let server = builder(&[shop(), base()]).build_v1alpha().unwrap();
    let client = v1alpha::server_reflection_client::ServerReflectionClient::new(server);
    let requests = [list(), symbol("grpc.reflection.v1alpha.ServerReflection")];
    let requests = requests.map(|question| request(Some(question)));
    let answers = client.server_reflection_info(stream::iter(requests));
    let mut answers = answers.await.unwrap().into_inner();
    let listed = answers.message().await.unwrap().unwrap();
    let listed = services(listed.message_response.as_ref().unwrap()).join(" ");
    assert_eq!(listed, "shop.Shop grpc.reflection.v1alpha.ServerReflection");
    let found = answers.message().await.unwrap().unwrap();
    let found = found.message_response.unwrap();
    assert_eq!(names(&found), ["grpc/reflection/v1alpha/reflection.proto"]);
    assert_eq!(answers.message().await.unwrap(), None);
}

/// prost knows no custom options: they would be lost if the file were encoded anew.
#[tokio::test]
async fn files_are_told_as_they_were_registered() {
    let mut encoded = shop().encode_to_vec();
    // Field 8, the options, with field 50,000 in it.
    encoded.extend([0x42, 4, 0x80, 0xb5, 0x18, 7]);
    let mut set = vec![0x0a];
    prost::encoding::encode_varint(encoded.len() as u64, &mut set);
    set.extend(&encoded);
    let builder = Builder::configure().register_encoded_file_descriptor_set(&set);
    let answers = ask(builder, [symbol("shop.Shop")]).await;
    assert_eq!(files(&answers[0])[0], encoded);
}

#[test]
fn sets_without_sense_are_typed_errors() {
    let truncated = v1::FILE_DESCRIPTOR_SET.split_last().unwrap().1;
    let error = Builder::configure()
        .register_encoded_file_descriptor_set(truncated)
        .build_v1()
        .unwrap_err();
    assert!(matches!(error, Error::DecodeError(_)), "{error:?}");

    let nameless_message = FileDescriptorProto {
        message_type: vec![DescriptorProto::default()],
        ..base()
    };
    let nameless_file = FileDescriptorProto {
        name: None,
        ..shop()
    };
    let mut nameless_value = base();
    nameless_value.enum_type = vec![enumeration("Day", "")];
    let mut other = shop();
    other.service[0].name = some("Other");
    for (files, part) in [
        (vec![nameless_message], "message"),
        (vec![nameless_file], "\"shop\" has no name"),
        (vec![nameless_value], "enum value"),
        (vec![shop(), other], "shop.Other"),
    ] {
        let error = builder(&files).build_v1alpha().unwrap_err();
        assert!(matches!(error, Error::InvalidFileDescriptorSet(_)));
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_file_may_be_registered_twice() {
    let twice = builder(&[shop(), base(), shop(), base()]);
    let answers = ask(twice.include_reflection_service(false), [list()]).await;
    assert_eq!(services(&answers[0]), ["shop.Shop"]);
}

#[tokio::test]
async fn damaged_sets_are_refused_or_served_and_nothing_panics() {
    let set = FileDescriptorSet {
        file: vec![shop(), base()],
    };
    let set = set.encode_to_vec();
    let (mut refused, mut served) = (0, 0);
    for index in 0..set.len() {
        for bit in [0, 3, 7] {
            let mut damaged = set.clone();
            damaged[index] ^= 1 << bit;
            let builder = Builder::configure()
                .include_reflection_service(false)
                .register_encoded_file_descriptor_set(&damaged);
            if builder.clone().build_v1().is_err() {
                refused += 1;
                continue;
            }
            served += 1;
            let questions = [list(), symbol("shop.Shop"), numbers("shop.Item")];
            assert_eq!(ask(builder, questions).await.len(), 3);
        }
    }
    assert!(refused > 100 && served > 100, "{refused}, {served}");
}

#[tokio::test]
async fn hostile_questions_get_short_errors() {
    let long = "é".repeat(100_000);
    let questions = [
        file(&long),
        symbol(&long),
        numbers(&long),
        extension(&long, i32::MIN),
        symbol(""),
        file(""),
        symbol("."),
        symbol("shop."),
        extension("", 0),
    ];
    for answer in ask(builder(&[shop(), base()]), questions).await {
        let (code, text) = error(&answer);
        assert_eq!(code, Code::NotFound);
        assert!(text.len() < 500, "{} bytes", text.len());
    }
}

#[tokio::test]
async fn questions_that_are_no_protobuf_end_their_call() {
    let builder = builder(&[shop()]);
    let server = builder.build_v1().unwrap();
    let caller = homa_rpc::client::Caller::new(server);
    static METHOD: homa_rpc::MethodDescriptor = homa_rpc::MethodDescriptor::bidi_streaming(
        "grpc.reflection.v1.ServerReflection",
        "ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    );
    // A text where the messages have a number.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Wrong {
        #[prost(int32, tag = "1")]
        host: i32,
    }
    let codec = homa_rpc::ProstCodec::<Wrong, ServerReflectionResponse>::default();
    let requests = homa_rpc::Request::new(stream::iter([Wrong { host: 7 }]));
    let answers = caller.bidi_streaming(requests, &METHOD, codec).await;
    let status = match answers {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Internal, "{status}");
}
