//! What a server knows of its methods: looked up once per call, by the path.

use std::collections::HashMap;
use std::sync::Arc;

use super::quota::MethodQuota;
use super::router::Route;
use super::routes::Routes;
use crate::message::method::MethodDescriptor;
use crate::util::name_map::ByName;

/// What is known of methods, by path.
#[derive(Debug, Default)]
pub(super) struct Methods(ByName<String, Method>);

/// What is known of a method.
#[derive(Debug, Default)]
pub(super) struct Method {
    pub(super) descriptor: Option<&'static MethodDescriptor>,
    pub(super) quota: Option<Arc<MethodQuota>>,
    /// Its service, and its place among the methods of that.
    pub(super) route: Option<(Route, usize)>,
}

impl Methods {
    /// All methods of `routes`, and those with limits of their own.
    pub(super) fn new(routes: &Routes, limits: HashMap<String, usize>) -> Self {
        let mut methods = ByName::<String, Method>::default();
        for (route, index, descriptor) in routes.methods() {
            let method = methods.entry(descriptor.path().to_owned()).or_default();
            method.descriptor = Some(descriptor);
            method.route = Some((route.clone(), index));
        }
        for (path, limit) in limits {
            methods.entry(path).or_default().quota = Some(MethodQuota::new(limit));
        }
        Self(methods)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }
}
