//! State of a message that goes by grants alone, as newer modules send them.

/// State of a message that goes by grants alone.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct Start {
    /// Bytes that go unasked in the older scheme.
    unscheduled: u32,
    /// START_MSG was sent.
    pub(in crate::endpoint) sent: bool,
}

impl Start {
    pub(in crate::endpoint) const fn new(unscheduled: u32) -> Self {
        Self {
            unscheduled,
            sent: false,
        }
    }

    /// Bytes that go unasked in the older scheme.
    pub(in crate::endpoint) const fn unscheduled(self) -> u32 {
        self.unscheduled
    }
}
