//! Single rules of both ends.
