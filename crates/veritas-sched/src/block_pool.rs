//! Pages of the KV cache by number: free, or held by one or more sequences.

use std::collections::VecDeque;

/// Number of a page in the arena of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Reference counts and the free list. The page that was freed longest ago is handed out first.
#[derive(Clone, Debug)]
pub struct BlockPool {
    n_holders: Vec<u32>,
    free: VecDeque<BlockId>,
}

impl BlockPool {
    /// A pool of `n_blocks` free pages.
    pub fn new(n_blocks: u32) -> Self {
        Self { n_holders: vec![0; n_blocks as usize], free: (0..n_blocks).map(BlockId).collect() }
    }

    /// All pages, free or not.
    pub fn n_blocks(&self) -> usize {
        self.n_holders.len()
    }

    /// Pages that nobody holds.
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free page, with one holder; `None` if there is none.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop_front()?;
        self.n_holders[block.0 as usize] = 1;
        Some(block)
    }

    /// Adds a holder to a page that somebody holds.
    ///
    /// # Panics
    /// If nobody holds it: sharing a free page is a bug.
    pub fn share(&mut self, block: BlockId) {
        let n_holders = &mut self.n_holders[block.0 as usize];
        assert!(*n_holders > 0, "{block:?} is free and cannot be shared");
        *n_holders += 1;
    }

    /// Drops a holder; the last one frees the page.
    ///
    /// # Panics
    /// If nobody holds it: releasing twice is a bug.
    pub fn release(&mut self, block: BlockId) {
        let n_holders = &mut self.n_holders[block.0 as usize];
        assert!(*n_holders > 0, "{block:?} is released twice");
        *n_holders -= 1;
        if *n_holders == 0 {
            self.free.push_back(block);
        }
    }

    /// How many hold the page.
    pub fn n_holders(&self, block: BlockId) -> u32 {
        self.n_holders[block.0 as usize]
    }

    /// Checks that the free list holds each page without holders once and no other.
    ///
    /// # Errors
    /// What is wrong, for a test to print.
    pub fn check(&self) -> Result<(), String> {
        let mut listed = vec![false; self.n_blocks()];
        for block in &self.free {
            if std::mem::replace(&mut listed[block.0 as usize], true) {
                return Err(format!("{block:?} is listed as free twice"));
            }
        }
        for (index, (&n_holders, &listed)) in self.n_holders.iter().zip(&listed).enumerate() {
            if listed != (n_holders == 0) {
                return Err(format!("block {index} has {n_holders} holders, free: {listed}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_page_is_free_only_when_its_last_holder_lets_go() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().unwrap();
        pool.share(block);
        pool.release(block);
        assert_eq!((pool.n_free(), pool.n_holders(block)), (1, 1));
        pool.release(block);
        assert_eq!(pool.n_free(), 2);
        pool.check().unwrap();
    }

    #[test]
    fn an_empty_pool_hands_out_nothing() {
        let mut pool = BlockPool::new(1);
        assert_eq!(pool.allocate(), Some(BlockId(0)));
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn releasing_twice_is_caught() {
        let mut pool = BlockPool::new(1);
        let block = pool.allocate().unwrap();
        pool.release(block);
        pool.release(block);
    }
}
