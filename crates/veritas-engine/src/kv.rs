//! How the KV cache stores keys and values.

use veritas_kernels::CacheType;

/// The element types of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTypes {
    /// Of keys.
    pub key: CacheType,
    /// Of values.
    pub value: CacheType,
}

impl Default for CacheTypes {
    fn default() -> Self {
        Self { key: CacheType::F16, value: CacheType::F16 }
    }
}
