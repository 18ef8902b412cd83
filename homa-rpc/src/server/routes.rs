//! [`Routes`]: services, each under its name.

use std::fmt;

use super::router::Route;
use super::service::NamedService;
use crate::body::CallService;
use crate::message::method::MethodDescriptor;
use crate::util::name_map::{ByName, Names};

/// Services to be served together, for instance those of a library:
/// [`ServerBuilder::add_routes`](super::ServerBuilder::add_routes).
#[derive(Default)]
pub struct Routes {
    pub(super) services: ByName<&'static str, Route>,
    /// Services whose handlers are polled in the driver first.
    pub(super) inline: Names,
    /// A service that was added twice.
    pub(super) twice: Option<&'static str>,
}

impl Routes {
    /// One service. [`Routes::default`] is none.
    #[must_use]
    pub fn new<S: NamedService + CallService + Sync>(service: S) -> Self {
        Self::default().add_service(service)
    }

    /// The same with one more. A name that is served twice is an error of
    /// [`bind`](super::ServerBuilder::bind).
    #[must_use]
    pub fn add_service<S: NamedService + CallService + Sync>(mut self, service: S) -> Self {
        self.insert(S::NAME, Route::of(service));
        self
    }

    fn insert(&mut self, name: &'static str, route: Route) {
        if self.services.insert(name, route).is_some() {
            self.twice = Some(name);
        }
    }

    /// Adds all of `others`.
    pub(super) fn merge(&mut self, others: Self) {
        for (name, route) in others.services {
            self.insert(name, route);
        }
        self.inline.extend(others.inline);
        self.twice = self.twice.or(others.twice);
    }

    /// The service with the path of a method, and its method.
    pub(super) fn methods(
        &self,
    ) -> impl Iterator<Item = (&Route, usize, &'static MethodDescriptor)> {
        self.services.values().flat_map(|route| {
            let methods = route.methods().iter().enumerate();
            methods.map(move |(index, method)| (route, index, method))
        })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.keys()).finish()
    }
}
