//! CPU kernels per instruction set and the thread team that runs them.
