//! Code that calls a service and is tested without one: see `tests/mock_client.rs`.

use homa_rpc::{Request, Status};

use crate::keyvalue::{DeleteRequest, GetRequest, PutRequest, key_value_client::KeyValueApi};

/// Moves the entry of `old` to the key `new`, which must be free.
///
/// `store` is a [`KeyValueClient`](crate::keyvalue::key_value_client::KeyValueClient), or what stands
/// for one.
///
/// # Errors
/// NOT_FOUND if there is no entry, FAILED_PRECONDITION if the new key has one. The old entry is only
/// removed after the new one is written.
pub async fn rename(store: &impl KeyValueApi, old: &str, new: &str) -> Result<(), Status> {
    let get = GetRequest {
        key: old.to_owned(),
    };
    let entry = store.get(Request::new(get)).await?.into_inner();
    let put = PutRequest {
        key: new.to_owned(),
        value: entry.value,
        expected_version: Some(0),
    };
    store.put(Request::new(put)).await?;
    let delete = DeleteRequest {
        key: old.to_owned(),
    };
    store.delete(Request::new(delete)).await?;
    Ok(())
}
