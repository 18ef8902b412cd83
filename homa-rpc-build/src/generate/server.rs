use proc_macro2::{Literal, TokenStream};
use quote::quote;

use super::{
    Method, Service, Shape, TraitMethod, allowed_lints, async_attribute, descriptor, trait_method,
};

/// `pub mod greeter_server { .. }`
pub(super) fn module(service: &Service, shape: Shape) -> TokenStream {
    let module = service.server_module();
    let module_docs = format!(" Server of `{}`.", service.name);
    let mod_attributes = &service.server_mod_attributes;
    let lints = allowed_lints();
    let (handler, server) = (service.handler(), service.server());
    let handler_trait = handler_trait(service, shape);
    let server_type = server_type(service);
    let dispatch = dispatch(service, shape);
    let name = &service.name;
    let descriptors = service
        .methods
        .iter()
        .map(|method| descriptor(service, method));

    quote! {
        #[doc = #module_docs]
        #mod_attributes
        pub mod #module {
            #lints
            use homa_rpc::codegen;

            /// Full name of the service, by which it is served.
            pub const SERVICE_NAME: &str = #name;

            #handler_trait
            #server_type
            #dispatch

            impl<T> codegen::NamedService for #server<T>
            where
                T: self::#handler,
            {
                const NAME: &'static str = SERVICE_NAME;
                const METHODS: &'static [codegen::MethodDescriptor] = &[#(#descriptors),*];

                fn unary(&self) -> std::option::Option<&dyn codegen::UnaryService> {
                    Some(self)
                }
            }
        }
    }
}

/// The trait that a user implements.
fn handler_trait(service: &Service, shape: Shape) -> TokenStream {
    let handler = service.handler();
    let docs = service.docs(&format!(
        "The methods of `{}`, to be implemented.",
        service.name
    ));
    let deprecated = service.deprecated();
    let attributes = &service.trait_attributes;
    let async_attribute = async_attribute(shape.native_async);
    let diagnostics = diagnostics(service, shape);
    let methods = service
        .methods
        .iter()
        .map(|method| handler_method(service, method, shape));

    quote! {
        #docs
        #deprecated
        #attributes
        #diagnostics
        #async_attribute
        pub trait #handler: std::marker::Send + std::marker::Sync + 'static {
            #(#methods)*
        }
    }
}

/// What rustc says when something else is given for an implementation.
fn diagnostics(service: &Service, shape: Shape) -> TokenStream {
    let (handler, server) = (service.handler(), service.server());
    let message = format!(
        "`{{Self}}` is no implementation of the service `{}`",
        service.name
    );
    let label = format!("expected a type with `impl {handler} for ..`");
    let attribute = if shape.native_async {
        ""
    } else {
        "#[homa_rpc::async_trait] "
    };
    let how = format!("the trait is implemented by `{attribute}impl {handler} for {{Self}}`");
    let shared = format!("an `Arc` of an implementation goes to `{server}::from_arc`");
    quote! {
        #[diagnostic::on_unimplemented(
            message = #message,
            label = #label,
            note = #how,
            note = #shared,
        )]
    }
}

fn handler_method(service: &Service, method: &Method, shape: Shape) -> TokenStream {
    let docs = service.method_docs(method, "Answers");
    let deprecated = method.deprecated();
    let receiver = if shape.use_arc_self {
        quote!(self: std::sync::Arc<Self>)
    } else {
        quote!(&self)
    };
    let (argument, body) = if shape.default_stubs {
        let text = format!("{} is not implemented", service.path(method));
        let answer = quote!(Err(codegen::Status::unimplemented(#text)));
        let body = if shape.native_async {
            quote!({ std::future::ready(#answer) })
        } else {
            quote!({ #answer })
        };
        (quote!(_request), body)
    } else {
        (quote!(request), quote!(;))
    };
    let (stream_type, response) = result(method, shape);
    let request = &method.request;
    let signature = TraitMethod {
        ident: &method.ident,
        receiver,
        argument,
        request: if method.kind.client_streaming {
            quote!(codegen::Streaming<#request>)
        } else {
            request.clone()
        },
        response,
    };
    let signature = trait_method(&signature, shape.native_async);
    quote!(#stream_type #docs #deprecated #signature #body)
}

/// What the response of a handler holds, with the declaration of its type if the implementation names that.
fn result(method: &Method, shape: Shape) -> (TokenStream, TokenStream) {
    let response = &method.response;
    let Some(stream) = method.stream_type() else {
        return (TokenStream::new(), response.clone());
    };
    if shape.default_stubs {
        // An associated type can have no default.
        return (TokenStream::new(), quote!(codegen::BoxStream<#response>));
    }
    let docs = format!(" The responses of `{}`.", method.name);
    let declaration = quote! {
        #[doc = #docs]
        type #stream: codegen::Stream<
            Item = std::result::Result<#response, codegen::Status>,
        > + std::marker::Send + 'static;
    };
    (declaration, quote!(Self::#stream))
}

/// The type that makes a service of an implementation.
fn server_type(service: &Service) -> TokenStream {
    let (handler, server) = (service.handler(), service.server());
    let docs = format!(
        " Serves an implementation of [`{handler}`] as `{}`.",
        service.name
    );
    let deprecated = service.deprecated();
    let attributes = &service.server_attributes;

    quote! {
        #[doc = #docs]
        #deprecated
        #attributes
        #[derive(Debug)]
        pub struct #server<T> {
            inner: std::sync::Arc<T>,
            limits: codegen::MessageLimits,
        }

        impl<T> #server<T> {
            /// Serves `inner`.
            #[must_use]
            pub fn new(inner: T) -> Self {
                Self::from_arc(std::sync::Arc::new(inner))
            }

            /// Serves `inner`, which others may hold too.
            #[must_use]
            pub fn from_arc(inner: std::sync::Arc<T>) -> Self {
                Self { inner, limits: codegen::MessageLimits::default() }
            }

            /// Serves `inner`, and lets `interceptor` see all calls.
            #[must_use]
            pub fn with_interceptor<I>(
                inner: T,
                interceptor: I,
            ) -> codegen::InterceptedService<Self, I>
            where
                I: codegen::Interceptor,
            {
                codegen::InterceptedService::new(Self::new(inner), interceptor)
            }

            /// Refuses requests longer than `limit` bytes.
            #[must_use]
            pub fn max_decoding_message_size(self, limit: usize) -> Self {
                Self { limits: self.limits.max_decoding_message_size(limit), ..self }
            }

            /// Refuses to send replies longer than `limit` bytes.
            #[must_use]
            pub fn max_encoding_message_size(self, limit: usize) -> Self {
                Self { limits: self.limits.max_encoding_message_size(limit), ..self }
            }
        }

        impl<T> std::clone::Clone for #server<T> {
            fn clone(&self) -> Self {
                Self { inner: std::sync::Arc::clone(&self.inner), limits: self.limits }
            }
        }
    }
}

/// From a call to its method, and `Service` over HTTP requests on top of that.
fn dispatch(service: &Service, shape: Shape) -> TokenStream {
    let (handler, server) = (service.handler(), service.server());
    let methods = service.methods.iter().enumerate();
    let (unary, streaming): (Vec<_>, Vec<_>) =
        methods.partition(|(_, method)| method.kind.is_unary());
    let arms = unary.into_iter().map(|(index, method)| {
        let answer = answer(service, method, shape);
        let index = Literal::usize_unsuffixed(index);
        quote!(Some(#index) => #answer)
    });
    let serve_streaming = serve_streaming(service, &streaming, shape);

    // `self::` since a service can have the name of one of the type parameters.
    quote! {
        impl<T> codegen::UnaryService for #server<T>
        where
            T: self::#handler,
        {
            fn limits(&self) -> codegen::MessageLimits {
                self.limits
            }

            fn serve(&self, call: codegen::UnaryCall) -> codegen::UnaryFuture {
                match call.method_index(<Self as codegen::NamedService>::METHODS) {
                    #(#arms)*
                    _ => codegen::unimplemented_method(&call),
                }
            }

            #serve_streaming
        }

        impl<T, B> codegen::Service<codegen::http::Request<B>> for #server<T>
        where
            T: self::#handler,
            B: codegen::http_body::Body<Data = codegen::Bytes> + std::marker::Send + 'static,
            B::Error: std::convert::Into<codegen::StdError> + std::marker::Send + 'static,
        {
            type Response = codegen::http::Response<codegen::Body>;
            type Error = std::convert::Infallible;
            type Future = codegen::HttpFuture;

            fn poll_ready(
                &mut self,
                _context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::result::Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: codegen::http::Request<B>) -> Self::Future {
                codegen::serve_http(self, request)
            }
        }
    }
}

/// From a call to its method, for methods that stream, if there are such.
fn serve_streaming(service: &Service, methods: &[(usize, &Method)], shape: Shape) -> TokenStream {
    if methods.is_empty() {
        return TokenStream::new();
    }
    let arms = methods.iter().map(|&(index, method)| {
        let answer = answer(service, method, shape);
        let index = Literal::usize_unsuffixed(index);
        quote!(#index => #answer)
    });
    quote! {
        fn serve_streaming(&self, call: codegen::StreamingCall) -> codegen::StreamingFuture {
            match call.method_index() {
                #(#arms)*
                _ => codegen::unimplemented_streaming_method(&call),
            }
        }
    }
}

/// Answers a call of this method.
fn answer(service: &Service, method: &Method, shape: Shape) -> TokenStream {
    let handler = service.handler();
    let kind = method.kind.function();
    let (ident, request, response) = (&method.ident, &method.request, &method.response);
    let codec = &method.codec;
    let receiver = if shape.use_arc_self {
        quote!(inner)
    } else {
        quote!(&inner)
    };
    quote! {
        {
            let inner = std::sync::Arc::clone(&self.inner);
            let codec = #codec::<#response, #request>::default();
            let handler = move |request| async move {
                <T as self::#handler>::#ident(#receiver, request).await
            };
            codegen::#kind(call, codec, self.limits, handler)
        }
    }
}
