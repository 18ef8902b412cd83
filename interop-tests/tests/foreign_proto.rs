//! Google's `Operations` and `Locations`, definitions not written here, served on one port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serve;

use std::{collections::BTreeMap, sync::Mutex};

use homa_interop::googleapis::google::{
    cloud::location::{
        GetLocationRequest, ListLocationsRequest, ListLocationsResponse, Location,
        locations_client::LocationsClient,
        locations_server::{Locations, LocationsServer},
    },
    longrunning::{
        CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
        ListOperationsResponse, Operation, WaitOperationRequest, operation,
        operations_client::OperationsClient,
        operations_server::{Operations, OperationsServer},
    },
    rpc,
};
use homa_rpc::{Channel, Code, Request, Response, Server, Status};
use prost_types::{Any, Duration};
use serve::with_server;

/// Operations by name.
#[derive(Default)]
struct Registry(Mutex<BTreeMap<String, Operation>>);

impl Registry {
    fn with(operations: impl IntoIterator<Item = Operation>) -> Self {
        let named = operations
            .into_iter()
            .map(|operation| (operation.name.clone(), operation));
        Self(Mutex::new(named.collect()))
    }

    fn find<T>(&self, name: &str, then: impl FnOnce(&mut Operation) -> T) -> Result<T, Status> {
        let mut operations = self.0.lock().unwrap();
        let found = operations.get_mut(name).map(then);
        found.ok_or_else(|| Status::not_found(format!("no operation `{name}`")))
    }
}

#[homa_rpc::async_trait]
impl Operations for Registry {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let prefix = &request.get_ref().name;
        let operations = self.0.lock().unwrap();
        let fitting = operations
            .values()
            .filter(|operation| operation.name.starts_with(prefix));
        Ok(Response::new(ListOperationsResponse {
            operations: fitting.cloned().collect(),
            unreachable: vec!["projects/away".to_owned()],
            ..ListOperationsResponse::default()
        }))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.find(&request.get_ref().name, |operation| {
            Response::new(operation.clone())
        })
    }

    async fn delete_operation(
        &self,
        request: Request<DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let removed = self.0.lock().unwrap().remove(&request.get_ref().name);
        removed
            .map(|_| Response::new(()))
            .ok_or_else(|| Status::not_found("no such operation"))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        self.find(&request.get_ref().name, |operation| {
            operation.done = true;
            operation.result = Some(operation::Result::Error(rpc::Status {
                code: 1,
                message: "cancelled".to_owned(),
                details: operation.metadata.iter().cloned().collect(),
            }));
            Response::new(())
        })
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        match request.get_ref().timeout {
            Some(Duration {
                seconds: 3,
                nanos: 7,
            }) => self.find(&request.get_ref().name, |operation| {
                Response::new(operation.clone())
            }),
            other => Err(Status::invalid_argument(format!(
                "expected 3 s and 7 ns, got {other:?}"
            ))),
        }
    }
}

struct Everywhere;

#[homa_rpc::async_trait]
impl Locations for Everywhere {
    async fn list_locations(
        &self,
        _request: Request<ListLocationsRequest>,
    ) -> Result<Response<ListLocationsResponse>, Status> {
        Err(Status::unimplemented("there are too many"))
    }

    async fn get_location(
        &self,
        request: Request<GetLocationRequest>,
    ) -> Result<Response<Location>, Status> {
        Ok(Response::new(Location {
            name: request.into_inner().name,
            labels: [("region".to_owned(), "north".to_owned())].into(),
            ..Location::default()
        }))
    }
}

fn running() -> Operation {
    Operation {
        name: "operations/running".to_owned(),
        metadata: Some(Any {
            type_url: "type.example/Progress".to_owned(),
            value: vec![1, 2, 3],
        }),
        ..Operation::default()
    }
}

fn finished() -> Operation {
    let response = Any {
        type_url: "type.example/Big".to_owned(),
        value: vec![9; 100_000],
    };
    Operation {
        name: "operations/finished".to_owned(),
        done: true,
        result: Some(operation::Result::Response(response)),
        ..Operation::default()
    }
}

async fn check_operations(channel: Channel) {
    let client = OperationsClient::new(channel);
    let name = || "operations/running".to_owned();

    let got = client
        .get_operation(GetOperationRequest {
            name: finished().name,
        })
        .await
        .unwrap();
    assert_eq!(got.into_inner(), finished());

    let list = ListOperationsRequest {
        name: "operations/".to_owned(),
        ..Default::default()
    };
    let list = client.list_operations(list).await.unwrap().into_inner();
    assert_eq!(list.operations, [finished(), running()]);
    assert_eq!(list.unreachable, ["projects/away"]);

    let timeout = Some(Duration {
        seconds: 3,
        nanos: 7,
    });
    let waited = client
        .wait_operation(WaitOperationRequest {
            name: name(),
            timeout,
        })
        .await;
    assert_eq!(waited.unwrap().into_inner(), running());

    let () = client
        .cancel_operation(CancelOperationRequest { name: name() })
        .await
        .unwrap()
        .into_inner();
    let got = client
        .get_operation(GetOperationRequest { name: name() })
        .await
        .unwrap()
        .into_inner();
    let Some(operation::Result::Error(error)) = got.result else {
        panic!("{got:?}")
    };
    assert_eq!(
        (error.code, error.details),
        (1, vec![running().metadata.unwrap()])
    );

    client
        .delete_operation(DeleteOperationRequest { name: name() })
        .await
        .unwrap();
    let gone = client
        .get_operation(GetOperationRequest { name: name() })
        .await
        .unwrap_err();
    assert_eq!(
        (gone.code(), gone.message()),
        (Code::NotFound, "no operation `operations/running`")
    );
}

async fn check_locations(channel: Channel) {
    let client = LocationsClient::new(channel);
    let name = "projects/p/locations/l".to_owned();
    let location = client
        .get_location(GetLocationRequest { name: name.clone() })
        .await
        .unwrap();
    assert_eq!(location.get_ref().name, name);
    let labels = BTreeMap::from_iter(location.into_inner().labels);
    assert_eq!(labels, [("region".to_owned(), "north".to_owned())].into());
    let error = client
        .list_locations(ListLocationsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unimplemented, "there are too many")
    );
}

async fn check_both(uri: &str) {
    let server = Server::builder()
        .add_service(OperationsServer::new(Registry::with([
            running(),
            finished(),
        ])))
        .add_service(LocationsServer::new(Everywhere))
        .bind(uri)
        .unwrap();
    with_server(server, async |channel| {
        check_operations(channel.clone()).await;
        check_locations(channel).await;
    })
    .await;
}

#[tokio::test]
async fn foreign_services_work_in_process() {
    check_both("homa+mem://foreign-proto").await;
}

#[tokio::test]
async fn foreign_services_work_over_udp() {
    check_both("homa+udp://127.0.0.1:0").await;
}

#[tokio::test]
async fn service_that_is_not_served_is_unimplemented() {
    let server = Server::builder()
        .add_service(LocationsServer::new(Everywhere))
        .bind("homa+mem://half-foreign")
        .unwrap();
    with_server(server, async |channel| {
        let client = OperationsClient::new(channel);
        let error = client
            .get_operation(GetOperationRequest::default())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(
            error.message().contains("google.longrunning.Operations"),
            "{}",
            error.message()
        );
    })
    .await;
}
