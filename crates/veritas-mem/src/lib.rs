//! Aligned buffers and memory-mapped files.
