//! Who may use how much memory, who waits for some, and when it goes back.

pub(in crate::endpoint) mod admission;
pub(in crate::endpoint) mod release;
pub(in crate::endpoint) mod wait_list;
