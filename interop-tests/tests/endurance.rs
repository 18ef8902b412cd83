//! A long series of calls leaves nothing behind: no RPC, no memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use homa_interop::googleapis::google::cloud::location::{
    GetLocationRequest, ListLocationsRequest, ListLocationsResponse, Location,
    locations_client::LocationsClient,
    locations_server::{Locations, LocationsServer},
};
use homa_rpc::{Channel, Request, Response, Server, Status};
use homa_transport::{Config, Socket, Transport};

struct Echo;

#[homa_rpc::async_trait]
impl Locations for Echo {
    async fn list_locations(
        &self,
        _request: Request<ListLocationsRequest>,
    ) -> Result<Response<ListLocationsResponse>, Status> {
        Ok(Response::new(ListLocationsResponse::default()))
    }

    async fn get_location(
        &self,
        request: Request<GetLocationRequest>,
    ) -> Result<Response<Location>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(Location {
            name,
            ..Location::default()
        }))
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_hundred_thousand_sequential_calls_leave_no_rpc_and_no_memory_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let server = Arc::new(Socket::udp(loopback, Config::default()).unwrap());
        let socket = Arc::new(Socket::udp_client(Config::default()).unwrap());
        let uri = format!("homa+udp://{}", server.local_addr());
        let bound = Server::builder().add_service(LocationsServer::new(Echo));
        let bound = bound
            .bind("homa+mem://endurance")
            .unwrap()
            .bind_socket(server.clone());
        drop(tokio::spawn(bound.serve()));
        let channel = Channel::builder()
            .socket(socket.clone())
            .build(uri)
            .unwrap();
        let calls = tokio::spawn(async move {
            let client = LocationsClient::new(channel);
            let mut settled = 0;
            for i in 0..100_000_u32 {
                let name = format!("locations/{i}");
                let request = GetLocationRequest { name: name.clone() };
                let reply = client.get_location(request).await.unwrap();
                assert_eq!(reply.into_inner().name, name);
                if i == 30_000 {
                    settled = resident();
                }
            }
            resident().saturating_sub(settled)
        });
        let grown = calls.await.unwrap();
        assert!(grown < 4 << 20, "memory grew by {grown} bytes");
        assert_eq!(socket.stats().rpcs_live, 0);
        while server.stats().rpcs_live > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One Homa RPC per call: nothing else was ever sent.
        assert_eq!(socket.stats().requests_sent, 100_000);
        assert_eq!(server.stats().requests_received, 100_000);
    });
}
