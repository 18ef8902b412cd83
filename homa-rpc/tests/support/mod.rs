//! What the tests share: a handwritten service in the shape of generated code, and a server with a
//! channel to it over each kind of transport.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of a test")]

pub mod frames;
pub mod net;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use homa_rpc::codegen::BoxFuture;
use homa_rpc::server::Router;
use homa_rpc::{Body, BoundServer, BoxError, Channel, Request, Response, ServerError, Status};
use homa_rpc::{Server, ServerBuilder, ServerMonitor};
use homa_transport::{Config, Socket, Transport};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tower::Service;
use tower::layer::Layer;

pub use echo_client::EchoClient;
pub use echo_server::{Echo, EchoServer};

/// The message of all test methods, both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Msg {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

impl Msg {
    pub fn of(text: &str) -> Self {
        Self {
            data: bytes::Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }
}

macro_rules! echo_service {
    ($client_mod:ident, $server_mod:ident, $client:ident, $server:ident, $trait:ident, $name:literal) => {
        pub mod $client_mod {
            use homa_rpc::codegen::*;

            #[derive(Debug, Clone)]
            pub struct $client<T = Channel> {
                inner: Caller<T>,
            }

            impl<T: CallService> $client<T> {
                pub fn new(service: T) -> Self {
                    Self {
                        inner: Caller::new(service),
                    }
                }

                pub fn max_decoding_message_size(self, bytes: usize) -> Self {
                    Self {
                        inner: self.inner.max_decoding_message_size(bytes),
                    }
                }

                pub fn max_encoding_message_size(self, bytes: usize) -> Self {
                    Self {
                        inner: self.inner.max_encoding_message_size(bytes),
                    }
                }

                pub fn say<M: IntoRequest<super::Msg>>(
                    &self,
                    request: M,
                ) -> impl Future<Output = Result<Response<super::Msg>, Status>>
                + Send
                + 'static
                + use<T, M> {
                    static METHOD: MethodDescriptor =
                        MethodDescriptor::unary($name, "Say", concat!("/", $name, "/Say"));
                    self.inner.unary(
                        request.into_request(),
                        &METHOD,
                        ProstCodec::<super::Msg, super::Msg>::default(),
                    )
                }

                /// A method that the server does not have.
                pub fn missing<M: IntoRequest<super::Msg>>(
                    &self,
                    request: M,
                ) -> impl Future<Output = Result<Response<super::Msg>, Status>>
                + Send
                + 'static
                + use<T, M> {
                    static METHOD: MethodDescriptor =
                        MethodDescriptor::unary($name, "Missing", concat!("/", $name, "/Missing"));
                    self.inner.unary(
                        request.into_request(),
                        &METHOD,
                        ProstCodec::<super::Msg, super::Msg>::default(),
                    )
                }
            }
        }

        pub mod $server_mod {
            use homa_rpc::codegen::*;

            #[async_trait]
            pub trait $trait: Send + Sync + 'static {
                async fn say(
                    &self,
                    request: Request<super::Msg>,
                ) -> Result<Response<super::Msg>, Status>;
            }

            #[derive(Debug)]
            pub struct $server<T> {
                inner: Arc<T>,
                limits: MessageLimits,
            }

            impl<T> $server<T> {
                pub fn new(inner: T) -> Self {
                    Self {
                        inner: Arc::new(inner),
                        limits: MessageLimits::default(),
                    }
                }

                pub fn max_decoding_message_size(mut self, bytes: usize) -> Self {
                    self.limits = self.limits.max_decoding_message_size(bytes);
                    self
                }

                pub fn max_encoding_message_size(mut self, bytes: usize) -> Self {
                    self.limits = self.limits.max_encoding_message_size(bytes);
                    self
                }
            }

            impl<T> Clone for $server<T> {
                fn clone(&self) -> Self {
                    Self {
                        inner: Arc::clone(&self.inner),
                        limits: self.limits,
                    }
                }
            }

            impl<T: $trait> UnaryService for $server<T> {
                fn limits(&self) -> MessageLimits {
                    self.limits
                }

                fn serve(&self, call: UnaryCall) -> UnaryFuture {
                    match call.method_index(<Self as NamedService>::METHODS) {
                        Some(0) => {
                            let inner = Arc::clone(&self.inner);
                            unary(
                                call,
                                ProstCodec::<super::Msg, super::Msg>::default(),
                                self.limits,
                                async move |request| inner.say(request).await,
                            )
                        }
                        _ => unimplemented_method(&call),
                    }
                }
            }

            impl<T: $trait, B> Service<http::Request<B>> for $server<T>
            where
                B: http_body::Body<Data = Bytes> + Send + 'static,
                B::Error: Into<StdError> + Send + 'static,
            {
                type Response = http::Response<Body>;
                type Error = Infallible;
                type Future = HttpFuture;

                fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                    Poll::Ready(Ok(()))
                }

                fn call(&mut self, request: http::Request<B>) -> HttpFuture {
                    serve_http(self, request)
                }
            }

            impl<T: $trait> NamedService for $server<T> {
                fn unary(&self) -> Option<&dyn UnaryService> {
                    Some(self)
                }

                const NAME: &'static str = $name;
                const METHODS: &'static [MethodDescriptor] = &[MethodDescriptor::unary(
                    $name,
                    "Say",
                    concat!("/", $name, "/Say"),
                )];
            }
        }
    };
}

echo_service!(
    echo_client,
    echo_server,
    EchoClient,
    EchoServer,
    Echo,
    "test.Echo"
);
echo_service!(
    other_client,
    other_server,
    OtherClient,
    OtherServer,
    Other,
    "test.Other"
);

type Handler =
    Box<dyn Fn(Request<Msg>) -> BoxFuture<Response<Msg>, Status> + Send + Sync + 'static>;

/// A service made of a closure.
pub struct Handle(Handler);

#[async_trait::async_trait]
impl Echo for Handle {
    async fn say(&self, request: Request<Msg>) -> Result<Response<Msg>, Status> {
        (self.0)(request).await
    }
}

#[async_trait::async_trait]
impl other_server::Other for Handle {
    async fn say(&self, request: Request<Msg>) -> Result<Response<Msg>, Status> {
        (self.0)(request).await
    }
}

/// The test service with this closure as its method.
pub fn handler<F, Fut>(f: F) -> EchoServer<Handle>
where
    F: Fn(Request<Msg>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Msg>, Status>> + Send + 'static,
{
    EchoServer::new(Handle(Box::new(move |request| Box::pin(f(request)))))
}

/// The other test service with this closure as its method.
pub fn other_handler<F, Fut>(f: F) -> other_server::OtherServer<Handle>
where
    F: Fn(Request<Msg>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Msg>, Status>> + Send + 'static,
{
    other_server::OtherServer::new(Handle(Box::new(move |request| Box::pin(f(request)))))
}

/// A service that says it has begun and waits for `go`.
pub fn gated(go: &Arc<Notify>, come: &Arc<Notify>) -> EchoServer<Handle> {
    let (go, come) = (Arc::clone(go), Arc::clone(come));
    handler(move |request: Request<Msg>| {
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        async move {
            come.notify_one();
            go.notified().await;
            Ok(Response::new(request.into_inner()))
        }
    })
}

/// Answers with the request's message.
pub fn echo() -> EchoServer<Handle> {
    handler(async |request| Ok(Response::new(request.into_inner())))
}

/// A running server and a client socket that reaches it.
pub struct Running {
    pub channel: Channel,
    pub uri: String,
    pub client: Arc<dyn Transport>,
    pub server: Arc<dyn Transport>,
    pub monitor: ServerMonitor,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    /// Tells the server to shut down.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub fn echo(&self) -> EchoClient {
        EchoClient::new(self.channel.clone())
    }
}

/// Serves on a socket and makes a channel from another one to it.
pub fn run<L, B>(
    builder: ServerBuilder<L>,
    (client, server): (Arc<dyn Transport>, Arc<dyn Transport>),
) -> Running
where
    L: Layer<Router>,
    L::Service: Service<http::Request<Body>, Response = http::Response<B>>,
    L::Service: Clone + Send + Sync + 'static,
    <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError>,
    <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let bound: BoundServer = builder.bind_socket(Arc::clone(&server)).unwrap();
    let monitor = bound.monitor();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(bound.serve_with_shutdown(async move {
        // A test that ends without stopping its server drops the sender.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    let uri = format!("homa+udp://{}", server.local_addr());
    let builder = Channel::builder().socket(Arc::clone(&client));
    Running {
        channel: builder.build(&uri).unwrap(),
        uri,
        client,
        server,
        monitor,
        stop: Some(stop),
        task,
    }
}

/// What carries the messages of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    /// The switch of [`net`], without Homa.
    Net,
    /// Homa over UDP on the loopback interface.
    Udp,
    /// Homa in process.
    Mem,
}

static NEXT_NAME: AtomicUsize = AtomicUsize::new(0);

impl Wire {
    /// A client socket and a server socket.
    pub fn pair(self) -> (Arc<dyn Transport>, Arc<dyn Transport>) {
        let config = Config::default;
        match self {
            Self::Net => net::pair(),
            Self::Udp => {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let client = Socket::udp(any, config()).unwrap();
                let server = Socket::udp(any, config()).unwrap();
                (Arc::new(client), Arc::new(server))
            }
            Self::Mem => {
                let name = format!("pair-{}", NEXT_NAME.fetch_add(1, Ordering::Relaxed));
                let client = Socket::mem_client(config()).unwrap();
                let server = Socket::mem_listen(&name, config()).unwrap();
                (Arc::new(client), Arc::new(server))
            }
        }
    }

    /// An address at which nobody listens.
    pub fn dead(self) -> SocketAddr {
        match self {
            Self::Net => ([127, 9, 9, 8], 77).into(),
            Self::Udp => {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.local_addr().unwrap()
            }
            Self::Mem => "[100::ffff:ffff]:1".parse().unwrap(),
        }
    }

    /// A server with one service, and a channel to it.
    pub fn run_echo(self, service: EchoServer<Handle>) -> Running {
        run(Server::builder().add_service(service), self.pair())
    }
}

/// Makes tests of functions that take the wire to run on.
#[macro_export]
macro_rules! on_every_wire {
    ($($name:ident,)+) => {
        $crate::on_every_wire!(@ over_net Net $($name)+);
        $crate::on_every_wire!(@ over_udp Udp $($name)+);
        $crate::on_every_wire!(@ over_mem Mem $($name)+);
    };
    (@ $module:ident $wire:ident $($name:ident)+) => {
        mod $module {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Wire::$wire).await;
            })+
        }
    };
}
