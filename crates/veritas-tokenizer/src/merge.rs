//! The loop that BPE and SentencePiece share: of all neighbours that may merge, the best merges first.
//!
//! A queue holds the candidates, so that a word of n symbols takes O(n log n) steps. Candidates whose symbols have
//! changed since stay in the queue and are recognised when they come out. For the few symbols of a common word a
//! scan over all pairs is faster than the queue; both give the same result.

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
const SCAN_MAX: usize = 24;

/// Merges neighbours while `pair(left, right)` gives a rank and a merged id; the lowest rank goes first, then the
/// leftmost. `pair` must depend on nothing but its arguments.
pub(crate) fn merge(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    if symbols.len() <= SCAN_MAX {
        merge_by_scan(symbols, pair);
    } else {
        merge_by_queue(symbols, pair);
    }
}

/// The obvious implementation.
fn merge_by_scan(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    // The candidate that begins at each symbol, so that a merge asks for two pairs and not for all.
    let mut ranks = [None; SCAN_MAX];
    for (rank, two) in ranks.iter_mut().zip(symbols.windows(2)) {
        *rank = pair(two[0], two[1]);
    }
    loop {
        let best = ranks[..symbols.len()]
            .iter()
            .enumerate()
            .filter_map(|(at, rank)| rank.map(|(rank, id)| (rank, at, id)))
            .min();
        let Some((_, at, id)) = best else { return };
        symbols[at] = Symbol { id, end: symbols[at + 1].end, ..symbols[at] };
        symbols.remove(at + 1);
        ranks.copy_within(at + 2.., at + 1);
        ranks[symbols.len()..].fill(None);
        ranks[at] = symbols.get(at + 1).and_then(|&right| pair(symbols[at], right));
        if at > 0 {
            ranks[at - 1] = pair(symbols[at - 1], symbols[at]);
        }
    }
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

    proptest! {
        #[test]
        fn the_queue_and_the_scan_agree(word in proptest::collection::vec(0u32..4, 1..SCAN_MAX), seed: u32) {
            let symbols: Vec<Symbol> =
                word.iter().enumerate().map(|(i, &id)| Symbol { id, start: i as u32, end: i as u32 + 1 }).collect();
            // Some rule that merges often and whose ranks collide.
            let pair = |l: Symbol, r: Symbol| {
                let mixed = (l.id.wrapping_mul(31) ^ r.id.wrapping_mul(17)).wrapping_add(seed);
                (mixed % 3 != 0 && l.id + r.id < 40).then_some((mixed % 5, l.id + r.id + 1))
            };
            let (mut scanned, mut queued) = (symbols.clone(), symbols);
            merge_by_scan(&mut scanned, pair);
            merge_by_queue(&mut queued, pair);
            prop_assert_eq!(scanned, queued);
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
