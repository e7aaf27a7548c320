//! A buffer of numbers that starts on a cache line.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::Error;

/// Every [`AlignedBuf`] starts at a multiple of this: a cache line, and the widest vector register.
pub const BUFFER_ALIGNMENT: usize = 64;

mod sealed {
    pub trait Sealed {}
}

/// Plain numbers: all-zero bytes are a value of the type, and it needs no drop.
///
/// Sealed: the types that implement it are listed here and nowhere else.
pub trait Plain: Copy + sealed::Sealed + 'static {}

macro_rules! plain {
    ($($ty:ty)*) => { $(
        impl sealed::Sealed for $ty {}
        impl Plain for $ty {}
    )* };
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// A buffer of zeroed numbers, aligned to [`BUFFER_ALIGNMENT`] bytes. It never grows while it is borrowed, and a
/// length of 0 allocates nothing.
pub struct AlignedBuf<T: Plain> {
    start: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone, and T is a plain number (`Plain` is sealed), which is Send and Sync.
unsafe impl<T: Plain> Send for AlignedBuf<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Plain> Sync for AlignedBuf<T> {}

impl<T: Plain> AlignedBuf<T> {
    /// `len` zeros.
    ///
    /// # Panics
    /// Aborts like `Vec` when the memory cannot be had; use [`AlignedBuf::try_zeroed`] for a size that comes from a
    /// file or a user.
    pub fn zeroed(len: usize) -> Self {
        match Self::try_zeroed(len) {
            Ok(buffer) => buffer,
            Err(_) => match Self::layout(len) {
                Some(layout) => handle_alloc_error(layout),
                None => panic!("a buffer of {len} elements does not fit in the address space"),
            },
        }
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the system refuses the memory or the size overflows.
    pub fn try_zeroed(len: usize) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len: 0, capacity: 0 });
        }
        let layout = Self::layout(len).ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        // SAFETY: the layout's size is not zero, because len is not and no Plain type is zero-sized.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start.cast::<T>()).ok_or(Error::OutOfMemory { bytes: layout.size() })?;
        Ok(Self { start, len, capacity: len })
    }

    /// Makes the length `len`, reusing the memory where it suffices. What the elements hold afterwards is some
    /// numbers that were in the buffer before, or zeros: a caller that wants zeros says so with `fill`.
    ///
    /// # Panics
    /// As [`AlignedBuf::zeroed`].
    pub fn resize(&mut self, len: usize) {
        if len > self.capacity {
            // Half as much again, so that lengths that creep up do not allocate each time.
            let mut grown = Self::zeroed(len.max(self.capacity + self.capacity / 2));
            grown.len = len;
            *self = grown;
        } else {
            self.len = len;
        }
    }

    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>())?;
        Layout::from_size_align(bytes, BUFFER_ALIGNMENT).ok()
    }
}

impl<T: Plain> Default for AlignedBuf<T> {
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0, capacity: 0 }
    }
}

impl<T: Plain> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        if self.capacity == 0 {
            return;
        }
        let layout = Self::layout(self.capacity).expect("the layout was valid when the memory was allocated");
        // SAFETY: capacity is not 0, so start came from alloc_zeroed with this very layout, and is freed once.
        unsafe { dealloc(self.start.as_ptr().cast(), layout) };
    }
}

impl<T: Plain> Deref for AlignedBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: start is valid for capacity >= len elements, initialised by alloc_zeroed (all-zero bytes are a T),
        // or dangling and aligned with len 0. The borrow of self keeps it alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref; the exclusive borrow of self makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Clone for AlignedBuf<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Plain> fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_and_aligned_and_writable() {
        let mut buffer = AlignedBuf::<f32>::zeroed(1001);
        assert!(buffer.iter().all(|&x| x == 0.0));
        assert_eq!(buffer.as_ptr() as usize % BUFFER_ALIGNMENT, 0);
        buffer[1000] = 2.5;
        assert_eq!(buffer.clone()[1000], 2.5);
    }

    #[test]
    fn an_empty_buffer_allocates_nothing_and_can_grow_and_shrink() {
        let mut buffer = AlignedBuf::<i8>::default();
        assert!(buffer.is_empty());
        buffer.resize(100);
        buffer.fill(3);
        buffer.resize(10);
        assert_eq!(&buffer[..], [3; 10]);
        buffer.resize(1000);
        assert_eq!(buffer.len(), 1000);
        assert_eq!(buffer.as_ptr() as usize % BUFFER_ALIGNMENT, 0);
    }

    #[test]
    fn a_size_that_overflows_is_an_error() {
        assert!(matches!(AlignedBuf::<u64>::try_zeroed(usize::MAX / 4), Err(Error::OutOfMemory { .. })));
    }
}
