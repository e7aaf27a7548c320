//! Any calls to the scheduler, held against a naive one and a memory that remembers who wrote what.

use proptest::prelude::*;

proptest! {
    /// Hunts for lost and doubly used pages, stale and foreign contents, plans beyond the budget, tokens that depend on
    /// what else runs, and sequences that never end.
    #[test]
    fn whatever_is_called_each_sequence_gets_the_tokens_that_it_gets_alone(
        bytes in prop::collection::vec(any::<u8>(), 4..300),
    ) {
        veritas_testkit::fuzz::sched::check(&bytes);
    }
}
