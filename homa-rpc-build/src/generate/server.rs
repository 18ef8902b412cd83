use proc_macro2::{Ident, TokenStream};
use prost_build::Method;
use quote::{format_ident, quote};

use super::{Named, Options, allowed_lints, deprecated, names};

/// `pub mod greeter_server { .. }`
pub(super) fn module(named: &Named<'_>, options: &Options) -> TokenStream {
    let service = named.service;
    let module = names::module(&service.name, "server");
    let module_docs = format!(" Server of `{}`.", named.name);
    let mod_attributes = options.server_mod_attributes.of(&service.package);
    let lints = allowed_lints();
    let handler = format_ident!("{}", service.name);
    let server = format_ident!("{}Server", service.name.trim_start_matches("r#"));
    let handler_trait = handler_trait(named, &handler, options);
    let server_type = server_type(named, &handler, &server, options);
    let dispatch = dispatch(named, &handler, &server, options);
    let name = &named.name;

    quote! {
        #[doc = #module_docs]
        #mod_attributes
        pub mod #module {
            #lints
            use homa_rpc::codegen;

            #handler_trait
            #server_type
            #dispatch

            impl<T> codegen::NamedService for #server<T> {
                const NAME: &'static str = #name;
            }
        }
    }
}

/// The trait that a user implements.
fn handler_trait(named: &Named<'_>, handler: &Ident, options: &Options) -> TokenStream {
    let service = named.service;
    let fallback = format!("The methods of `{}`, to be implemented.", named.name);
    let docs = options.docs(&named.full, &service.comments, &fallback);
    let deprecated = deprecated(service.options.deprecated());
    let attributes = options.trait_attributes.of(&named.full);
    let methods = service
        .methods
        .iter()
        .map(|method| handler_method(named, method, options));

    quote! {
        #docs
        #deprecated
        #attributes
        #[codegen::async_trait]
        pub trait #handler: std::marker::Send + std::marker::Sync + 'static {
            #(#methods)*
        }
    }
}

fn handler_method(named: &Named<'_>, method: &Method, options: &Options) -> TokenStream {
    let docs = named.method_docs(method, options, "Answers");
    let deprecated = deprecated(method.options.deprecated());
    let ident = names::method(method);
    let request = names::message(&method.input_type);
    let response = names::message(&method.output_type);
    let receiver = if options.use_arc_self {
        quote!(self: std::sync::Arc<Self>)
    } else {
        quote!(&self)
    };
    let (argument, body) = if options.default_stubs {
        let text = format!("{} is not implemented", named.path(method));
        (
            quote!(_request),
            quote!({ Err(codegen::Status::unimplemented(#text)) }),
        )
    } else {
        (quote!(request), quote!(;))
    };

    quote! {
        #docs
        #deprecated
        async fn #ident(
            #receiver,
            #argument: codegen::Request<#request>,
        ) -> std::result::Result<codegen::Response<#response>, codegen::Status> #body
    }
}

/// The type that makes a service of an implementation.
fn server_type(
    named: &Named<'_>,
    handler: &Ident,
    server: &Ident,
    options: &Options,
) -> TokenStream {
    let docs = format!(
        " Serves an implementation of [`{handler}`] as `{}`.",
        named.name
    );
    let deprecated = deprecated(named.service.options.deprecated());
    let attributes = options.server_attributes.of(&named.full);

    quote! {
        #[doc = #docs]
        #deprecated
        #attributes
        #[derive(Debug)]
        pub struct #server<T> {
            inner: std::sync::Arc<T>,
            limits: homa_rpc::server::MessageLimits,
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
                Self { inner, limits: homa_rpc::server::MessageLimits::default() }
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

/// `Service` over HTTP requests: from the path to the method.
fn dispatch(named: &Named<'_>, handler: &Ident, server: &Ident, options: &Options) -> TokenStream {
    let arms = named.service.methods.iter().map(|method| {
        let path = named.path(method);
        let ident = names::method(method);
        let request = names::message(&method.input_type);
        let response = names::message(&method.output_type);
        let codec = &options.codec;
        let receiver = if options.use_arc_self {
            quote!(inner)
        } else {
            quote!(&inner)
        };
        quote! {
            #path => {
                let inner = std::sync::Arc::clone(&self.inner);
                let limits = self.limits;
                let codec = #codec::<#response, #request>::default();
                std::boxed::Box::pin(async move {
                    let handler = move |request| async move {
                        <T as #handler>::#ident(#receiver, request).await
                    };
                    Ok(homa_rpc::server::unary(request, codec, limits, handler).await)
                })
            }
        }
    });

    quote! {
        impl<T, B> codegen::Service<codegen::http::Request<B>> for #server<T>
        where
            T: #handler,
            B: codegen::http_body::Body<Data = codegen::Bytes> + std::marker::Send + 'static,
            B::Error: std::convert::Into<codegen::StdError> + std::marker::Send + 'static,
        {
            type Response = codegen::http::Response<codegen::Body>;
            type Error = std::convert::Infallible;
            type Future = codegen::BoxFuture<Self::Response, Self::Error>;

            fn poll_ready(
                &mut self,
                _context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::result::Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: codegen::http::Request<B>) -> Self::Future {
                match request.uri().path() {
                    #(#arms)*
                    path => {
                        let response = homa_rpc::server::unimplemented_method(path);
                        std::boxed::Box::pin(std::future::ready(Ok(response)))
                    }
                }
            }
        }
    }
}
