//! What each service of a layer has.

/// Functions of `$service` that give back the service of type `$inner` that it is around, in its field `inner`.
macro_rules! gives_back_inner {
    ($service:ident<$inner:ident, $other:ident>) => {
        impl<$inner, $other> $service<$inner, $other> {
            /// The service inside.
            #[must_use]
            pub const fn get_ref(&self) -> &$inner {
                &self.inner
            }

            /// The service inside, to be changed.
            #[must_use]
            pub const fn get_mut(&mut self) -> &mut $inner {
                &mut self.inner
            }

            /// The service inside alone.
            #[must_use]
            pub fn into_inner(self) -> $inner {
                self.inner
            }
        }
    };
}

pub(crate) use gives_back_inner;
