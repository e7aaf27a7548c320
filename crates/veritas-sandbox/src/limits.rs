//! Limits of this crate, each with its reason.

/// Bytes of a policy file. The default one has some 10 KiB; nobody writes a hundred times that by hand.
pub(crate) const POLICY_BYTES_MAX: usize = 1 << 20;

/// Descriptors that a worker can be given. A model has a handful of parts, and the kernel checks each copy.
pub(crate) const FILES_MAX: usize = 256;

/// Bytes of all arguments of a worker together; far below what the kernel takes (128 KiB for one).
pub(crate) const ARGS_BYTES_MAX: usize = 64 << 10;

/// Values in one `is` of a condition: each becomes a rule of the filter.
pub(crate) const VALUES_MAX: usize = 64;

/// Divisor of the physical memory that `auto` leaves to the rest of the machine …
pub(crate) const RESERVE_DIVISOR: u64 = 16;

/// … but at least this many bytes: what a small system with a supervisor uses besides. Never more than half of the
/// memory, so that `auto` is of use on the smallest machine as well.
pub(crate) const RESERVE_BYTES_MIN: u64 = 512 << 20;

/// What `auto` means on a machine with so much memory.
pub(crate) fn automatic_memory_bytes(physical_bytes: u64) -> u64 {
    let reserve = (physical_bytes / RESERVE_DIVISOR).max(RESERVE_BYTES_MIN).min(physical_bytes / 2);
    physical_bytes - reserve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_memory_leaves_a_sixteenth_or_half_a_gibibyte_and_never_more_than_half() {
        assert_eq!(automatic_memory_bytes(64 << 30), 60 << 30);
        assert_eq!(automatic_memory_bytes(4 << 30), (4 << 30) - (512 << 20));
        assert_eq!(automatic_memory_bytes(512 << 20), 256 << 20);
        assert_eq!(automatic_memory_bytes(0), 0);
    }
}
