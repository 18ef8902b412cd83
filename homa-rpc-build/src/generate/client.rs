use proc_macro2::TokenStream;
use quote::quote;

use super::{
    Method, Service, Shape, TraitMethod, allowed_lints, async_attribute, descriptor, trait_method,
};

/// `pub mod greeter_client { .. }`
pub(super) fn module(service: &Service, shape: Shape) -> TokenStream {
    let module = service.client_module();
    let module_docs = format!(" Client of `{}`.", service.name);
    let mod_attributes = &service.client_mod_attributes;
    let lints = allowed_lints();
    let client = client(service);
    let client_trait = shape
        .build_client_trait
        .then(|| client_trait(service, shape.native_async));

    quote! {
        #[doc = #module_docs]
        #mod_attributes
        pub mod #module {
            #lints
            use homa_rpc::codegen;

            #client
            #client_trait
        }
    }
}

/// The client and its methods.
fn client(service: &Service) -> TokenStream {
    let client = service.client();
    let docs = service.docs(&format!("Client of `{}`.", service.name));
    let deprecated = service.deprecated();
    let attributes = &service.client_attributes;
    let methods = service.methods.iter().map(|method| call(service, method));

    quote! {
        #docs
        #deprecated
        #attributes
        #[derive(Debug, Clone)]
        pub struct #client<T = codegen::Channel> {
            inner: codegen::Caller<T>,
        }

        impl<T> #client<T>
        where
            T: codegen::CallService,
        {
            /// A client that makes its calls on `service`, a channel or layers around one.
            #[must_use]
            pub fn new(service: T) -> Self {
                Self { inner: codegen::Caller::new(service) }
            }

            /// A client that lets `interceptor` see all its calls on `service`.
            #[must_use]
            pub fn with_interceptor<I>(
                service: T,
                interceptor: I,
            ) -> #client<codegen::InterceptedService<T, I>>
            where
                I: codegen::Interceptor,
            {
                let service = codegen::InterceptedService::new(service, interceptor);
                #client { inner: codegen::Caller::new(service) }
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

fn call(service: &Service, method: &Method) -> TokenStream {
    let docs = service.method_docs(method, "Calls");
    let deprecated = method.deprecated();
    let (ident, request, response) = (&method.ident, &method.request, &method.response);
    let (codec, kind) = (&method.codec, method.kind.function());
    let descriptor = descriptor(service, method);
    let (argument, into_request) = if method.kind.client_streaming {
        let argument = quote!(codegen::IntoStreamingRequest<Message = #request>);
        (argument, quote!(into_streaming_request))
    } else {
        (quote!(codegen::IntoRequest<#request>), quote!(into_request))
    };
    let result = result(method);

    quote! {
        #docs
        #deprecated
        pub fn #ident<M>(
            &self,
            request: M,
        ) -> impl std::future::Future<
            Output = std::result::Result<codegen::Response<#result>, codegen::Status>,
        > + std::marker::Send + 'static + use<T, M>
        where
            M: #argument,
        {
            static METHOD: codegen::MethodDescriptor = #descriptor;
            let codec = #codec::<#request, #response>::default();
            self.inner.#kind(request.#into_request(), &METHOD, codec)
        }
    }
}

/// What the response of a call holds.
fn result(method: &Method) -> TokenStream {
    let response = &method.response;
    if method.kind.server_streaming {
        quote!(codegen::Streaming<#response>)
    } else {
        response.clone()
    }
}

/// A trait with the methods of the client, which the client implements and mocks can.
fn client_trait(service: &Service, native_async: bool) -> TokenStream {
    let (api, client) = (service.api(), service.client());
    let docs = format!(" The methods of [`{client}`], for code that is tested with another.");
    let deprecated = service.deprecated();
    let async_attribute = async_attribute(native_async);
    let signature = |method: &Method| {
        let request = &method.request;
        let method = TraitMethod {
            ident: &method.ident,
            receiver: quote!(&self),
            argument: quote!(request),
            // Boxed, so that the trait can be an object.
            request: if method.kind.client_streaming {
                quote!(codegen::BoxRequestStream<#request>)
            } else {
                request.clone()
            },
            response: result(method),
        };
        trait_method(&method, native_async)
    };
    let declared = service.methods.iter().map(|method| {
        let (docs, deprecated) = (service.method_docs(method, "Calls"), method.deprecated());
        let signature = signature(method);
        quote!(#docs #deprecated #signature;)
    });
    let forwarded = service.methods.iter().map(|method| {
        let (ident, signature) = (&method.ident, signature(method));
        let awaited = (!native_async).then(|| quote!(.await));
        quote!(#signature { Self::#ident(self, request) #awaited })
    });

    quote! {
        #[doc = #docs]
        #deprecated
        #async_attribute
        pub trait #api: std::marker::Send + std::marker::Sync + 'static {
            #(#declared)*
        }

        #async_attribute
        impl<T> #api for #client<T>
        where
            T: codegen::CallService + std::marker::Sync,
        {
            #(#forwarded)*
        }
    }
}
