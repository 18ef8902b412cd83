use proc_macro2::TokenStream;
use prost_build::Method;
use quote::{format_ident, quote};

use super::{Named, Options, allowed_lints, deprecated, names};

/// `pub mod greeter_client { .. }`
pub(super) fn module(named: &Named<'_>, options: &Options) -> TokenStream {
    let service = named.service;
    let module = names::module(&service.name, "client");
    let client = format_ident!("{}Client", service.name.trim_start_matches("r#"));
    let module_docs = format!(" Client of `{}`.", named.name);
    let fallback = format!("Client of `{}`.", named.name);
    let docs = options.docs(&named.full, &service.comments, &fallback);
    let mod_attributes = options.client_mod_attributes.of(&service.package);
    let attributes = options.client_attributes.of(&named.full);
    let deprecated = deprecated(service.options.deprecated());
    let lints = allowed_lints();
    let methods = service
        .methods
        .iter()
        .map(|method| call(named, method, options));

    quote! {
        #[doc = #module_docs]
        #mod_attributes
        pub mod #module {
            #lints
            use homa_rpc::codegen;

            #docs
            #deprecated
            #attributes
            #[derive(Debug, Clone)]
            pub struct #client<T = homa_rpc::Channel> {
                inner: homa_rpc::client::Caller<T>,
            }

            impl<T> #client<T>
            where
                T: homa_rpc::client::CallService,
            {
                /// A client that makes its calls on `service`, a channel or layers around one.
                #[must_use]
                pub fn new(service: T) -> Self {
                    Self { inner: homa_rpc::client::Caller::new(service) }
                }

                /// Refuses replies longer than `limit` bytes.
                #[must_use]
                pub fn max_decoding_message_size(self, limit: usize) -> Self {
                    Self { inner: self.inner.max_decoding_message_size(limit) }
                }

                /// Refuses to send requests longer than `limit` bytes.
                #[must_use]
                pub fn max_encoding_message_size(self, limit: usize) -> Self {
                    Self { inner: self.inner.max_encoding_message_size(limit) }
                }

                #(#methods)*
            }
        }
    }
}

fn call(named: &Named<'_>, method: &Method, options: &Options) -> TokenStream {
    let docs = named.method_docs(method, options, "Calls");
    let deprecated = deprecated(method.options.deprecated());
    let ident = names::method(method);
    let request = names::message(&method.input_type);
    let response = names::message(&method.output_type);
    let codec = &options.codec;
    let (service, name, path) = (&named.name, &method.proto_name, named.path(method));

    quote! {
        #docs
        #deprecated
        pub fn #ident<M>(
            &self,
            request: M,
        ) -> impl std::future::Future<
            Output = std::result::Result<codegen::Response<#response>, codegen::Status>,
        > + std::marker::Send + 'static + use<T, M>
        where
            M: codegen::IntoRequest<#request>,
        {
            static METHOD: codegen::MethodDescriptor =
                codegen::MethodDescriptor::unary(#service, #name, #path);
            let codec = #codec::<#request, #response>::default();
            self.inner.unary(request.into_request(), &METHOD, codec)
        }
    }
}
