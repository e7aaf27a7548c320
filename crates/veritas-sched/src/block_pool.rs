//! Pages of the KV cache by number: who holds them, what is in them, and which is handed out next.
//!
//! One list holds the pages that nobody holds. Pages without content are taken from its front first; a page whose
//! content may be wanted again goes to its back, so that the list is an LRU of cached prefixes as well.
//!
//! A whole page is found again by what determines its numbers: the scope, every token before it, and its own tokens.
//! The tokens before it are one [`ContentId`], which is given to one page once and never again, so the comparison is
//! exact: there is no hash that could collide.

use std::collections::BTreeMap;

use veritas_base::TokenId;

use crate::PAGE_TOKENS;

/// Number of a page in the arena of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Clients that may share cached prefixes: one principal, or several that the operator trusts with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// What decides the numbers of a page besides tokens, and who may read them. Model and cache type are the same for all
/// pages of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Who may read them.
    pub group: GroupId,
    /// Whatever else the computation depends on: an adapter, the reach of the rotary factors.
    pub variant: u64,
    /// The one request that may read them, where requests share nothing.
    pub request: Option<u64>,
}

/// Names the content of a whole page with all that comes before it; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentId(u64);

/// What a page follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parent {
    /// Nothing: it is the first page of a sequence.
    Start(Scope),
    /// Another page.
    Page(ContentId),
}

type Key = (Parent, [TokenId; PAGE_TOKENS]);

/// A page that was taken from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The page.
    pub block: BlockId,
    /// Whether it was written for another group and must be overwritten with zeros.
    pub zeroise: bool,
}

#[derive(Clone, Debug)]
struct Page {
    n_holders: u32,
    /// The group that it was last handed out to.
    owner: Option<GroupId>,
    content: Option<(ContentId, Key)>,
    /// Neighbours in the list; only of pages without holders.
    previous: u32,
    next: u32,
}

/// Reference counts, the contents of pages, and the list of those that nobody holds.
#[derive(Clone, Debug)]
pub struct BlockPool {
    /// The last one is not a page but both ends of the list.
    pages: Vec<Page>,
    by_key: BTreeMap<Key, BlockId>,
    keeps_content: bool,
    n_free: usize,
    n_cached: usize,
    n_contents: u64,
}

impl BlockPool {
    /// A pool of `n_blocks` free pages. With `keeps_content`, a page that nobody holds keeps its content until it is
    /// handed out again.
    pub fn new(n_blocks: u32, keeps_content: bool) -> Self {
        let page = |index: u32| Page {
            n_holders: 0,
            owner: None,
            content: None,
            previous: index.checked_sub(1).unwrap_or(n_blocks),
            next: if index == n_blocks { 0 } else { index + 1 },
        };
        Self {
            pages: (0..=n_blocks).map(page).collect(),
            by_key: BTreeMap::new(),
            keeps_content,
            n_free: n_blocks as usize,
            n_cached: 0,
            n_contents: 0,
        }
    }

    /// All pages, free or not.
    pub fn n_blocks(&self) -> usize {
        self.pages.len() - 1
    }

    /// Pages that nobody holds, those with content among them.
    pub fn n_free(&self) -> usize {
        self.n_free
    }

    /// Pages that nobody holds and whose content can be found.
    pub fn n_cached(&self) -> usize {
        self.n_cached
    }

    /// Takes a page for a group, with one holder; `None` if there is none. A cached prefix that nobody has used for the
    /// longest time is given up if no other page is left.
    pub fn allocate(&mut self, group: GroupId) -> Option<Allocated> {
        let index = self.pages[self.n_blocks()].next;
        if index as usize == self.n_blocks() {
            return None;
        }
        let block = BlockId(index);
        self.unlink(block);
        self.forget(block);
        let page = &mut self.pages[index as usize];
        page.n_holders = 1;
        let zeroise = page.owner.is_some_and(|owner| owner != group);
        page.owner = Some(group);
        Some(Allocated { block, zeroise })
    }

    /// Adds a holder to a page that somebody holds or whose content is cached.
    ///
    /// # Panics
    /// If it is neither: sharing a page without content is a bug.
    pub fn share(&mut self, block: BlockId) {
        if self.page(block).n_holders == 0 {
            assert!(self.page(block).content.is_some(), "{block:?} is free and cannot be shared");
            self.unlink(block);
        }
        self.pages[block.0 as usize].n_holders += 1;
    }

    /// Drops a holder; the last one frees the page.
    ///
    /// # Panics
    /// If nobody holds it: releasing twice is a bug.
    pub fn release(&mut self, block: BlockId) {
        let page = &mut self.pages[block.0 as usize];
        assert!(page.n_holders > 0, "{block:?} is released twice");
        page.n_holders -= 1;
        if page.n_holders > 0 {
            return;
        }
        if !self.keeps_content {
            self.forget(block);
        }
        let end = self.n_blocks() as u32;
        if self.page(block).content.is_some() {
            self.link(block, self.pages[end as usize].previous, end);
        } else {
            self.link(block, end, self.pages[end as usize].next);
        }
    }

    /// How many hold the page.
    pub fn n_holders(&self, block: BlockId) -> u32 {
        self.page(block).n_holders
    }

    /// Whether the page is whole and can be found by its content.
    pub fn has_content(&self, block: BlockId) -> bool {
        self.page(block).content.is_some()
    }

    /// Makes a whole page known by its content, and says what a page after it follows. If another page is known by the
    /// same content already, that one stays known and this one does not become so.
    ///
    /// # Panics
    /// If nobody holds the page, or it is known already.
    pub fn register(&mut self, block: BlockId, parent: Parent, tokens: &[TokenId; PAGE_TOKENS]) -> ContentId {
        let key = (parent, *tokens);
        if let Some((_, id)) = self.find(parent, tokens) {
            return id;
        }
        let id = ContentId(self.n_contents);
        self.n_contents += 1;
        let page = &mut self.pages[block.0 as usize];
        assert!(page.n_holders > 0 && page.content.is_none(), "{block:?} cannot be made known");
        page.content = Some((id, key));
        self.by_key.insert(key, block);
        id
    }

    /// The page with this content.
    pub fn find(&self, parent: Parent, tokens: &[TokenId; PAGE_TOKENS]) -> Option<(BlockId, ContentId)> {
        let block = *self.by_key.get(&(parent, *tokens))?;
        self.page(block).content.map(|(id, _)| (block, id))
    }

    fn page(&self, block: BlockId) -> &Page {
        &self.pages[block.0 as usize]
    }

    fn forget(&mut self, block: BlockId) {
        if let Some((_, key)) = self.pages[block.0 as usize].content.take() {
            self.by_key.remove(&key);
        }
    }

    fn link(&mut self, block: BlockId, previous: u32, next: u32) {
        let page = &mut self.pages[block.0 as usize];
        (page.previous, page.next) = (previous, next);
        self.n_cached += usize::from(page.content.is_some());
        self.n_free += 1;
        self.pages[previous as usize].next = block.0;
        self.pages[next as usize].previous = block.0;
    }

    fn unlink(&mut self, block: BlockId) {
        let Page { previous, next, content, .. } = self.pages[block.0 as usize];
        self.n_cached -= usize::from(content.is_some());
        self.n_free -= 1;
        self.pages[previous as usize].next = next;
        self.pages[next as usize].previous = previous;
    }

    /// Checks that the list holds each page without holders once and no other, those without content first, and that
    /// each content is that of the page which is found by it.
    ///
    /// # Errors
    /// What is wrong, for a test to print.
    pub fn check(&self) -> Result<(), String> {
        let end = self.n_blocks();
        let mut listed = vec![false; end];
        let (mut index, mut n_listed, mut n_cached) = (self.pages[end].next as usize, 0, 0);
        while index != end {
            if std::mem::replace(&mut listed[index], true) {
                return Err(format!("block {index} is listed as free twice"));
            }
            if self.pages[self.pages[index].next as usize].previous as usize != index {
                return Err(format!("block {index} has a neighbour that does not know it"));
            }
            n_listed += 1;
            n_cached += usize::from(self.pages[index].content.is_some());
            if n_cached > 0 && self.pages[index].content.is_none() {
                return Err(format!("block {index} has no content and stands behind one that has"));
            }
            index = self.pages[index].next as usize;
        }
        if (n_listed, n_cached) != (self.n_free, self.n_cached) {
            return Err(format!("{n_listed} pages are listed, {n_cached} of them cached: {self:?}"));
        }
        for (index, (page, &listed)) in self.pages[..end].iter().zip(&listed).enumerate() {
            if listed != (page.n_holders == 0) {
                return Err(format!("block {index} has {} holders, free: {listed}", page.n_holders));
            }
            if let Some((_, key)) = page.content
                && self.by_key.get(&key) != Some(&BlockId(index as u32))
            {
                return Err(format!("block {index} is not found by its content"));
            }
        }
        let n_known = self.pages[..end].iter().filter(|page| page.content.is_some()).count();
        if n_known != self.by_key.len() {
            return Err(format!("{n_known} pages have content, {} are found", self.by_key.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: GroupId = GroupId(1);
    const TOKENS: [TokenId; PAGE_TOKENS] = [7; PAGE_TOKENS];

    fn start(group: GroupId) -> Parent {
        Parent::Start(Scope { group, ..Scope::default() })
    }

    fn take(pool: &mut BlockPool, group: GroupId) -> BlockId {
        pool.allocate(group).unwrap().block
    }

    #[test]
    fn a_shared_page_is_free_only_when_its_last_holder_lets_go() {
        let mut pool = BlockPool::new(2, true);
        let block = take(&mut pool, ONE);
        pool.share(block);
        pool.release(block);
        assert_eq!((pool.n_free(), pool.n_holders(block)), (1, 1));
        pool.release(block);
        assert_eq!(pool.n_free(), 2);
        pool.check().unwrap();
    }

    #[test]
    fn an_empty_pool_hands_out_nothing() {
        let mut pool = BlockPool::new(1, true);
        assert_eq!(pool.allocate(ONE), Some(Allocated { block: BlockId(0), zeroise: false }));
        assert_eq!(pool.allocate(ONE), None);
        pool.check().unwrap();
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn releasing_twice_is_caught() {
        let mut pool = BlockPool::new(1, true);
        let block = take(&mut pool, ONE);
        pool.release(block);
        pool.release(block);
    }

    #[test]
    fn the_prefix_that_was_used_longest_ago_is_given_up_first_and_pages_without_content_before_any() {
        let mut pool = BlockPool::new(4, true);
        let blocks = [(); 4].map(|()| take(&mut pool, ONE));
        let contents = [1, 2, 3].map(|token| [token; PAGE_TOKENS]);
        for (block, tokens) in blocks.iter().zip(&contents) {
            pool.register(*block, start(ONE), tokens);
        }
        blocks.iter().for_each(|&block| pool.release(block));
        pool.check().unwrap();
        assert_eq!((pool.n_free(), pool.n_cached()), (4, 3));
        // The first is used again, so that the second was used longest ago.
        pool.share(blocks[0]);
        pool.release(blocks[0]);
        let order = [(); 4].map(|()| take(&mut pool, ONE));
        assert_eq!(order, [blocks[3], blocks[1], blocks[2], blocks[0]]);
        assert!(contents.iter().all(|tokens| pool.find(start(ONE), tokens).is_none()));
        pool.check().unwrap();
    }

    #[test]
    fn a_page_is_found_by_its_group_its_tokens_and_all_that_comes_before() {
        let mut pool = BlockPool::new(3, true);
        let (first, second) = (take(&mut pool, ONE), take(&mut pool, ONE));
        let parent = Parent::Page(pool.register(first, start(ONE), &TOKENS));
        pool.register(second, parent, &TOKENS);
        assert_eq!(pool.find(start(ONE), &TOKENS).unwrap().0, first);
        assert_eq!(pool.find(parent, &TOKENS).unwrap().0, second);
        assert_eq!(pool.find(start(GroupId(2)), &TOKENS), None);
        let other_variant = Parent::Start(Scope { group: ONE, variant: 1, request: None });
        assert_eq!(pool.find(other_variant, &TOKENS), None);
        assert_eq!(pool.find(parent, &[8; PAGE_TOKENS]), None);
        // The same content once more: the page that is known stays so.
        let twin = take(&mut pool, ONE);
        assert_eq!(Parent::Page(pool.register(twin, start(ONE), &TOKENS)), parent);
        assert!(!pool.has_content(twin));
        pool.check().unwrap();
    }

    #[test]
    fn a_page_passes_to_another_group_zeroised_and_within_a_group_as_it_is() {
        let mut pool = BlockPool::new(1, true);
        let mut passes = |group| {
            let allocated = pool.allocate(group).unwrap();
            pool.release(allocated.block);
            allocated.zeroise
        };
        let found = [1, 1, 2, 2, 1].map(|group| passes(GroupId(group)));
        assert_eq!(found, [false, false, true, false, true]);
    }

    #[test]
    fn a_pool_that_keeps_nothing_forgets_a_page_with_its_last_holder() {
        let mut pool = BlockPool::new(1, false);
        let block = take(&mut pool, ONE);
        pool.register(block, start(ONE), &TOKENS);
        assert!(pool.find(start(ONE), &TOKENS).is_some());
        pool.release(block);
        assert_eq!((pool.find(start(ONE), &TOKENS), pool.n_cached()), (None, 0));
        pool.check().unwrap();
    }
}
