//! [`Store`]: the service of the `keyvalue` example.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use homa_rpc::{Request, Response, Status};

use crate::keyvalue::{
    DeleteRequest, Entry, GetRequest, ListReply, ListRequest, PutRequest,
    key_value_server::KeyValue,
};

/// Metadata by which a caller recognises its request: it comes back with the reply.
pub const REQUEST_ID: &str = "request-id";
/// Metadata of a reply: the version of the entry.
pub const VERSION: &str = "kv-version";

const KEY_BYTES_MAX: usize = 1_000;
const VALUE_BYTES_MAX: usize = 100_000;
const ENTRIES_MAX: usize = 10_000;
const LIST_DEFAULT: u32 = 100;
const LIST_MAX: u32 = 1_000;
/// A page ends early rather than be too long for one message.
const LIST_BYTES_MAX: usize = 500_000;

/// A bounded key-value store in memory.
#[derive(Debug, Default)]
pub struct Store {
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Store {
    /// No method panics while it holds the lock, so what is in there is whole.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_entry(&self, request: &GetRequest) -> Result<Entry, Status> {
        self.entries()
            .get(&request.key)
            .cloned()
            .ok_or_else(|| no_entry(&request.key))
    }

    fn put_entry(&self, request: PutRequest) -> Result<Entry, Status> {
        check_length("key", request.key.len(), 1, KEY_BYTES_MAX)?;
        check_length("value", request.value.len(), 0, VALUE_BYTES_MAX)?;
        let mut entries = self.entries();
        let version = entries.get(&request.key).map_or(0, |entry| entry.version);
        if let Some(expected) = request.expected_version
            && expected != version
        {
            let text = format!("expected version {expected}, the entry has {version}");
            return Err(Status::failed_precondition(text));
        }
        if version == 0 && entries.len() >= ENTRIES_MAX {
            let text = format!("the store is full: it holds {ENTRIES_MAX} entries");
            return Err(Status::resource_exhausted(text));
        }
        let PutRequest { key, value, .. } = request;
        let entry = Entry {
            key: key.clone(),
            value,
            version: version + 1,
        };
        entries.insert(key, entry.clone());
        Ok(entry)
    }

    fn delete_entry(&self, request: &DeleteRequest) -> Result<(), Status> {
        self.entries()
            .remove(&request.key)
            .map(drop)
            .ok_or_else(|| no_entry(&request.key))
    }

    fn list_entries(&self, request: &ListRequest) -> Result<ListReply, Status> {
        let limit = match request.limit {
            0 => LIST_DEFAULT,
            limit @ 1..=LIST_MAX => limit,
            limit => {
                let text = format!("limit must be at most {LIST_MAX}, not {limit}");
                return Err(Status::invalid_argument(text));
            }
        };
        let start = if request.after < request.prefix {
            Bound::Included(request.prefix.as_str())
        } else {
            Bound::Excluded(request.after.as_str())
        };
        let entries = self.entries();
        let mut fitting = entries
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(&request.prefix))
            .peekable();
        let mut page = Vec::new();
        let mut bytes = 0;
        for _ in 0..limit {
            let next = fitting.next_if(|entry| {
                bytes += entry.key.len() + entry.value.len();
                bytes <= LIST_BYTES_MAX
            });
            let Some(entry) = next else { break };
            page.push(entry.clone());
        }
        let more = fitting.peek().is_some();
        Ok(ListReply {
            entries: page,
            more,
        })
    }
}

#[homa_rpc::async_trait]
impl KeyValue for Store {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Entry>, Status> {
        let result = self.get_entry(request.get_ref()).and_then(with_version);
        echo_request_id(&request, result)
    }

    async fn put(&self, mut request: Request<PutRequest>) -> Result<Response<Entry>, Status> {
        let message = std::mem::take(request.get_mut());
        echo_request_id(&request, self.put_entry(message).and_then(with_version))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let result = self.delete_entry(request.get_ref()).map(Response::new);
        echo_request_id(&request, result)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let result = self.list_entries(request.get_ref()).map(Response::new);
        echo_request_id(&request, result)
    }
}

fn no_entry(key: &str) -> Status {
    Status::not_found(format!("no entry with the key `{key}`"))
}

fn check_length(what: &str, length: usize, min: usize, max: usize) -> Result<(), Status> {
    if (min..=max).contains(&length) {
        return Ok(());
    }
    let text = format!("the {what} must have {min} to {max} bytes, not {length}");
    Err(Status::invalid_argument(text))
}

fn with_version(entry: Entry) -> Result<Response<Entry>, Status> {
    let version = entry.version.to_string();
    let mut response = Response::new(entry);
    let inserted = response.metadata_mut().insert(VERSION, &version);
    inserted.map_err(|error| Status::internal(error.to_string()))?;
    Ok(response)
}

/// Copies the id of the request, if it has one, to the reply, be it good or bad.
fn echo_request_id<T, U>(
    request: &Request<T>,
    mut result: Result<Response<U>, Status>,
) -> Result<Response<U>, Status> {
    if let Some(id) = request.metadata().get(REQUEST_ID) {
        let metadata = match &mut result {
            Ok(response) => response.metadata_mut(),
            Err(status) => status.metadata_mut(),
        };
        metadata
            .insert(REQUEST_ID, id)
            .map_err(|error| Status::internal(error.to_string()))?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use homa_rpc::Code;

    fn put(key: &str, value: &[u8], expected_version: Option<u64>) -> PutRequest {
        PutRequest {
            key: key.to_owned(),
            value: value.to_owned(),
            expected_version,
        }
    }

    fn list(store: &Store, prefix: &str, after: &str, limit: u32) -> (Vec<String>, bool) {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            limit,
        };
        let reply = store.list_entries(&request).unwrap();
        (
            reply.entries.into_iter().map(|entry| entry.key).collect(),
            reply.more,
        )
    }

    #[test]
    fn versions_count_writes_and_guard_them() {
        let store = Store::default();
        assert_eq!(store.put_entry(put("k", b"a", Some(0))).unwrap().version, 1);
        assert_eq!(store.put_entry(put("k", b"b", None)).unwrap().version, 2);
        let error = store.put_entry(put("k", b"c", Some(1))).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(error.message(), "expected version 1, the entry has 2");
        let get = GetRequest {
            key: "k".to_owned(),
        };
        assert_eq!(store.get_entry(&get).unwrap().value, b"b");
    }

    #[test]
    fn lengths_are_checked_at_their_limits() {
        let store = Store::default();
        let code = |request| {
            store
                .put_entry(request)
                .map_or_else(|status| status.code(), |_| Code::Ok)
        };
        assert_eq!(code(put("", b"", None)), Code::InvalidArgument);
        assert_eq!(code(put(&"k".repeat(KEY_BYTES_MAX), b"", None)), Code::Ok);
        assert_eq!(
            code(put(&"k".repeat(KEY_BYTES_MAX + 1), b"", None)),
            Code::InvalidArgument
        );
        assert_eq!(code(put("k", &vec![0; VALUE_BYTES_MAX], None)), Code::Ok);
        assert_eq!(
            code(put("k", &vec![0; VALUE_BYTES_MAX + 1], None)),
            Code::InvalidArgument
        );
    }

    #[test]
    fn a_full_store_takes_no_new_keys_but_overwrites() {
        let store = Store::default();
        for number in 0..ENTRIES_MAX {
            store
                .put_entry(put(&number.to_string(), b"", None))
                .unwrap();
        }
        let error = store.put_entry(put("another", b"", None)).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(store.put_entry(put("7", b"", None)).unwrap().version, 2);
    }

    #[test]
    fn list_pages_through_a_prefix_in_order() {
        let store = Store::default();
        for key in ["b2", "a", "b1", "b3", "c"] {
            store.put_entry(put(key, b"", None)).unwrap();
        }
        assert_eq!(
            list(&store, "b", "", 2),
            (vec!["b1".to_owned(), "b2".to_owned()], true)
        );
        assert_eq!(list(&store, "b", "b2", 2), (vec!["b3".to_owned()], false));
        assert_eq!(list(&store, "b", "c", 2), (Vec::new(), false));
        assert_eq!(list(&store, "", "", 0).0.len(), 5);
    }

    #[test]
    fn list_pages_end_before_they_are_too_long_for_a_message() {
        let store = Store::default();
        for key in ["a", "b", "c", "d", "e", "f"] {
            store
                .put_entry(put(key, &vec![0; VALUE_BYTES_MAX], None))
                .unwrap();
        }
        let (keys, more) = list(&store, "", "", 0);
        assert_eq!((keys.len(), more), (4, true));
        assert_eq!(
            list(&store, "", "d", 0),
            (vec!["e".to_owned(), "f".to_owned()], false)
        );
    }

    #[test]
    fn list_limit_is_bounded() {
        let request = |limit| ListRequest {
            limit,
            ..ListRequest::default()
        };
        assert!(Store::default().list_entries(&request(LIST_MAX)).is_ok());
        let error = Store::default()
            .list_entries(&request(LIST_MAX + 1))
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}
