//! [`Conversation`]: from requests to responses, in either version of the service.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{FileId, Index};
use crate::message::status::Code;
use crate::reflection::pb::v1::server_reflection_request::MessageRequest;
use crate::reflection::pb::v1::server_reflection_response::MessageResponse;
use crate::reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

/// Characters of a name in the text of an error at most: it comes from the client.
const QUOTED_CHARS_MAX: usize = 200;

/// What a service can tell.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) index: Index,
    /// Full names of the services that are listed.
    pub(super) services: Vec<String>,
}

/// One stream of requests.
#[derive(Debug)]
pub(super) struct Conversation {
    known: Arc<Knowledge>,
    /// The client has these files.
    sent: HashSet<FileId>,
}

impl Conversation {
    pub(super) fn new(known: Arc<Knowledge>) -> Self {
        Self {
            known,
            sent: HashSet::new(),
        }
    }

    pub(super) fn answer(&mut self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let answer = match &request.message_request {
            Some(asked) => self.respond(asked),
            None => Err((
                Code::InvalidArgument,
                "expected one of the five requests, got none".to_owned(),
            )),
        };
        let answer = answer.unwrap_or_else(|(code, error_message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.number().into(),
                error_message,
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
    }

    fn respond(&mut self, asked: &MessageRequest) -> Result<MessageResponse, (Code, String)> {
        let known = Arc::clone(&self.known);
        let index = &known.index;
        let missing = |what: &str, name: &str| {
            let end = name.char_indices().nth(QUOTED_CHARS_MAX);
            let quoted = end.and_then(|(end, _)| name.get(..end)).unwrap_or(name);
            (Code::NotFound, format!("{what} {quoted:?} is known here"))
        };
        match asked {
            MessageRequest::FileByFilename(name) => {
                let file = index.named(name);
                let file = file.ok_or_else(|| missing("no file", name))?;
                Ok(self.file(file))
            }
            MessageRequest::FileContainingSymbol(name) => {
                let file = index.declaring(name);
                let file = file.ok_or_else(|| missing("no symbol", name))?;
                Ok(self.file(file))
            }
            MessageRequest::FileContainingExtension(of) => {
                let number = of.extension_number;
                let file = index.extending(&of.containing_type, number);
                let what = format!("no extension with the number {number} of the message");
                let file = file.ok_or_else(|| missing(&what, &of.containing_type))?;
                Ok(self.file(file))
            }
            MessageRequest::AllExtensionNumbersOfType(name) => {
                let numbers = index.extension_numbers(name);
                let extension_number = numbers.ok_or_else(|| missing("no message", name))?;
                let response = ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number,
                };
                Ok(MessageResponse::AllExtensionNumbersResponse(response))
            }
            MessageRequest::ListServices(_) => {
                let names = known.services.iter().cloned();
                let service = names.map(|name| ServiceResponse { name }).collect();
                let response = ListServiceResponse { service };
                Ok(MessageResponse::ListServicesResponse(response))
            }
        }
    }

    fn file(&mut self, file: FileId) -> MessageResponse {
        let files = self.known.index.with_imports(file, &mut self.sent);
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: files,
        })
    }
}
