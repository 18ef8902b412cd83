//! The protocol core.

mod transmit;

pub use transmit::Transmit;

slotmap::new_key_type! {
    /// Handle of an RPC at its endpoint. Generational: the handle of an RPC that is over never
    /// names a later one.
    pub struct RpcKey;
}
