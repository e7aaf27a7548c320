//! The loop that BPE and SentencePiece share: of all neighbours that may merge, the best merges first.
//!
//! A queue holds the candidates, so that a word of n symbols takes O(n log n) steps. Candidates whose symbols have
//! changed since stay in the queue and are recognised when they come out. For the few symbols of a common word a
//! scan over all candidates is faster than the queue; both give the same result as the obvious loop, which the tests
//! hold them to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// What it is: an id of the caller.
    pub(crate) id: u32,
    /// Where it begins in the word, in bytes.
    pub(crate) start: u32,
    /// Where it ends.
    pub(crate) end: u32,
}

/// Words of at most this many symbols are scanned.
const SCAN_MAX: usize = 32;

/// Merges neighbours while `pair(left, right)` gives a rank and a merged id; the lowest rank goes first, then the
/// leftmost. `pair` must depend on nothing but its arguments.
pub(crate) fn merge(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    if symbols.len() <= SCAN_MAX {
        merge_by_scan(symbols, pair);
    } else {
        merge_by_queue(symbols, pair);
    }
}

/// The candidate of a place, rank above place, so that the least number is the best candidate.
fn candidate(rank: u32, at: usize) -> u64 {
    u64::from(rank) << 32 | at as u64
}

/// No candidate. No place is so high.
const NO_CANDIDATE: u64 = u64::MAX;

fn merge_by_scan(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    let n = symbols.len();
    // By the place of the left symbol: the candidate, and what it would become.
    let mut candidates = [NO_CANDIDATE; SCAN_MAX];
    let mut merged = [0; SCAN_MAX];
    // Neighbours of the symbols that are left; those merged away are in no list.
    let mut next: [u8; SCAN_MAX] = std::array::from_fn(|at| at as u8 + 1);
    let mut previous: [u8; SCAN_MAX] = std::array::from_fn(|at| (at as u8).wrapping_sub(1));
    for (at, two) in symbols.windows(2).enumerate() {
        if let Some((rank, id)) = pair(two[0], two[1]) {
            candidates[at] = candidate(rank, at);
            merged[at] = id;
        }
    }
    loop {
        let best = candidates[..n].iter().copied().min().unwrap_or(NO_CANDIDATE);
        if best == NO_CANDIDATE {
            break;
        }
        let at = best as u32 as usize;
        let right = usize::from(next[at]);
        let after = usize::from(next[right]);
        symbols[at] = Symbol { id: merged[at], end: symbols[right].end, ..symbols[at] };
        candidates[right] = NO_CANDIDATE;
        next[at] = after as u8;
        candidates[at] = NO_CANDIDATE;
        if after < n {
            previous[after] = at as u8;
            if let Some((rank, id)) = pair(symbols[at], symbols[after]) {
                candidates[at] = candidate(rank, at);
                merged[at] = id;
            }
        }
        let before = usize::from(previous[at]);
        if at > 0 {
            candidates[before] = NO_CANDIDATE;
            if let Some((rank, id)) = pair(symbols[before], symbols[at]) {
                candidates[before] = candidate(rank, before);
                merged[before] = id;
            }
        }
    }
    let (mut at, mut kept) = (0, 0);
    while at < n {
        symbols[kept] = symbols[at];
        kept += 1;
        at = usize::from(next[at]);
    }
    symbols.truncate(kept);
}

/// No symbol.
const NONE: u32 = u32::MAX;

/// Symbols in a list; a merged symbol stays at the place of its left part.
struct Chain {
    symbols: Vec<Symbol>,
    previous: Vec<u32>,
    next: Vec<u32>,
}

fn merge_by_queue(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    let n = symbols.len() as u32;
    let mut chain = Chain {
        symbols: std::mem::take(symbols),
        previous: (0..n).map(|at| at.wrapping_sub(1)).collect(),
        next: (1..=n).map(|at| if at == n { NONE } else { at }).collect(),
    };
    // Rank, left place, merged id, and the end of the pair, which tells whether it is still the same: a symbol
    // only ever grows to the right, and the left one must still end where it did, which `middle` holds.
    let mut queue = BinaryHeap::new();
    let push = |queue: &mut BinaryHeap<_>, chain: &Chain, left: u32| {
        let right = chain.next[left as usize];
        if right == NONE {
            return;
        }
        let (l, r) = (chain.symbols[left as usize], chain.symbols[right as usize]);
        if let Some((rank, id)) = pair(l, r) {
            queue.push(Reverse((rank, left, id, r.start, r.end)));
        }
    };
    for left in 0..n {
        push(&mut queue, &chain, left);
    }
    while let Some(Reverse((_, left, id, middle, end))) = queue.pop() {
        let at = left as usize;
        let right = chain.next[at];
        if right == NONE || chain.symbols[at].end != middle || chain.symbols[right as usize].end != end {
            continue;
        }
        chain.symbols[at].id = id;
        chain.symbols[at].end = end;
        let after = chain.next[right as usize];
        chain.next[at] = after;
        // A place that was merged away never equals a live candidate again.
        chain.next[right as usize] = NONE;
        if after != NONE {
            chain.previous[after as usize] = left;
        }
        if chain.previous[at] != NONE {
            push(&mut queue, &chain, chain.previous[at]);
        }
        push(&mut queue, &chain, left);
    }
    let mut at = 0;
    while at != NONE {
        symbols.push(chain.symbols[at as usize]);
        at = chain.next[at as usize];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious implementation.
    fn merge_obviously(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
        loop {
            let candidates = symbols.windows(2).enumerate();
            let candidates =
                candidates.filter_map(|(at, two)| pair(two[0], two[1]).map(|(rank, id)| (rank, at, id)));
            let Some((_, at, id)) = candidates.min() else { return };
            symbols[at] = Symbol { id, end: symbols[at + 1].end, ..symbols[at] };
            symbols.remove(at + 1);
        }
    }

    proptest! {
        #[test]
        fn the_queue_and_the_scan_merge_as_the_obvious_loop_does(
            word in proptest::collection::vec(0u32..4, 1..=SCAN_MAX), seed: u32
        ) {
            let symbols: Vec<Symbol> =
                word.iter().enumerate().map(|(i, &id)| Symbol { id, start: i as u32, end: i as u32 + 1 }).collect();
            // Some rule that merges often and whose ranks collide.
            let pair = |l: Symbol, r: Symbol| {
                let mixed = (l.id.wrapping_mul(31) ^ r.id.wrapping_mul(17)).wrapping_add(seed);
                (mixed % 3 != 0 && l.id + r.id < 40).then_some((mixed % 5, l.id + r.id + 1))
            };
            let (mut scanned, mut queued, mut expected) = (symbols.clone(), symbols.clone(), symbols);
            merge_obviously(&mut expected, pair);
            merge_by_scan(&mut scanned, pair);
            merge_by_queue(&mut queued, pair);
            prop_assert_eq!(&scanned, &expected);
            prop_assert_eq!(&queued, &expected);
        }
    }

    #[test]
    fn a_megabyte_that_merges_into_one_word_does_not_take_quadratic_time() {
        let n = 1 << 20;
        let mut symbols: Vec<Symbol> = (0..n).map(|i| Symbol { id: 1, start: i, end: i + 1 }).collect();
        // Equal neighbours of length 2^k merge into 2^(k+1).
        merge(&mut symbols, |l, r| (l.id == r.id).then_some((l.id, l.id + 1)));
        assert_eq!(symbols, [Symbol { id: 21, start: 0, end: n }]);
    }
}
