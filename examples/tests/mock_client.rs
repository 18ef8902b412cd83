//! How code that calls a service is tested: with a mock of the client, or with the real client and
//! the service in one process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;

use homa_examples::{
    keyvalue::{
        DeleteRequest, Entry, GetRequest, ListReply, ListRequest, PutRequest,
        key_value_client::{KeyValueApi, KeyValueClient},
        key_value_server::KeyValueServer,
    },
    rename::rename,
    store::Store,
};
use homa_rpc::{Channel, Code, Request, Response, Server, Status};
use tokio::sync::oneshot;

/// Writes down what is called, and fails where it is told to.
#[derive(Default)]
struct Mock {
    calls: Mutex<Vec<String>>,
    put_fails: bool,
}

impl Mock {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

#[homa_rpc::async_trait]
impl KeyValueApi for Mock {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Entry>, Status> {
        let key = request.into_inner().key;
        self.note(format!("get {key}"));
        let value = b"value".to_vec();
        let version = 7;
        Ok(Response::new(Entry {
            key,
            value,
            version,
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Entry>, Status> {
        let put = request.into_inner();
        self.note(format!("put {} {:?}", put.key, put.expected_version));
        if self.put_fails {
            return Err(Status::failed_precondition("there is one"));
        }
        Ok(Response::new(Entry::default()))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        self.note(format!("delete {}", request.into_inner().key));
        Ok(Response::new(()))
    }

    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        Err(Status::unimplemented("not used here"))
    }
}

#[tokio::test]
async fn the_old_entry_is_removed_after_the_new_one_is_written() {
    let mock = Mock::default();
    rename(&mock, "a", "b").await.unwrap();
    assert_eq!(
        *mock.calls.lock().unwrap(),
        ["get a", "put b Some(0)", "delete a"]
    );
}

#[tokio::test]
async fn the_old_entry_stays_if_the_new_one_cannot_be_written() {
    let mock = Mock {
        put_fails: true,
        ..Mock::default()
    };
    let status = rename(&mock, "a", "b").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(*mock.calls.lock().unwrap(), ["get a", "put b Some(0)"]);
}

#[tokio::test]
async fn the_real_client_is_one_too() {
    let server = Server::builder()
        .add_service(KeyValueServer::new(Store::default()))
        .bind("homa+mem://mock-client")
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));
    let client = KeyValueClient::new(Channel::new("homa+mem://mock-client").unwrap());

    let status = rename(&client, "a", "b").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let put = PutRequest {
        key: "a".to_owned(),
        ..PutRequest::default()
    };
    client.put(put).await.unwrap();
    rename(&client, "a", "b").await.unwrap();
    let gone = GetRequest {
        key: "a".to_owned(),
    };
    assert_eq!(client.get(gone).await.unwrap_err().code(), Code::NotFound);

    drop(stop);
    serving.await.unwrap().unwrap();
}
