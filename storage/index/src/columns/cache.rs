//! Decoded pages of sealed blocks, kept for point reads: a bounded amount, the recently used ones.
//!
//! ```text
//!   insert, hit --> young --(half the limit)--> old --(the next turn)--> gone
//! ```
//! Invariants: never more than the limit plus one page; one cache per thread, so no lock: what threads share are the runs.
//! Deliberately absent: pages of scans, which would push everything else out; scans decode into buffers of their own.

use std::cell::RefCell;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hashbrown::HashMap;

use super::part::{IdHasher, TxRun};

/// Which page of which column of which block of which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// The run's content hash, folded.
    pub run: u64,
    /// Block 32 bits, column 8, page 8.
    pub place: u64,
}

/// Column number of a block's transactions, whose pages are theirs.
pub(crate) const TXS: usize = 254;
/// Column number of a block's id index.
pub(crate) const IDS: usize = 255;

impl PageKey {
    pub(crate) fn new(run: u64, block: usize, column: usize, page: usize) -> Self {
        Self { run, place: (block as u64) << 16 | (column as u64) << 8 | page as u64 }
    }
}

/// A page, decoded.
#[derive(Debug)]
pub(crate) enum Page {
    /// The same cell in every row.
    Constant(u64),
    /// A cell per row.
    Cells(Vec<u64>),
    /// A page of a block's transactions.
    Runs(Vec<TxRun>),
    /// Ids of a block, ascending, equal ones by row.
    Ids(Vec<(u64, u32)>),
}

impl Page {
    fn bytes(&self) -> usize {
        64 + match self {
            Self::Constant(_) => 0,
            Self::Cells(cells) => cells.len() * 8,
            Self::Runs(runs) => runs.len() * 16,
            Self::Ids(ids) => ids.len() * 16,
        }
    }
}

type Pages = HashMap<PageKey, Arc<Page>, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Generations {
    young: Pages,
    old: Pages,
    young_bytes: usize,
    old_bytes: usize,
}

/// Decoded pages, for one thread.
pub struct Cache {
    half_bytes_max: usize,
    pages: RefCell<Generations>,
}

impl Cache {
    /// **Units:** bytes of decoded pages.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { half_bytes_max: bytes_max / 2, pages: RefCell::default() }
    }

    /// **Units:** bytes of decoded pages held now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pages = self.pages.borrow();
        pages.young_bytes + pages.old_bytes
    }

    /// The page, decoded by `decode` if it is not there.
    pub(crate) fn page<E>(&self, key: PageKey, decode: impl FnOnce() -> Result<Page, E>) -> Result<Arc<Page>, E> {
        if let Some(page) = self.pages.borrow().young.get(&key) {
            return Ok(Arc::clone(page));
        }
        let old = self.pages.borrow_mut().take_old(key);
        let page = match old {
            Some(page) => page,
            None => Arc::new(decode()?),
        };
        self.pages.borrow_mut().put(key, Arc::clone(&page), self.half_bytes_max);
        Ok(page)
    }
}

impl Generations {
    fn take_old(&mut self, key: PageKey) -> Option<Arc<Page>> {
        let page = self.old.remove(&key)?;
        self.old_bytes -= page.bytes();
        Some(page)
    }

    fn put(&mut self, key: PageKey, page: Arc<Page>, half_bytes_max: usize) {
        let bytes = page.bytes();
        if self.young_bytes + bytes > half_bytes_max {
            core::mem::swap(&mut self.young, &mut self.old);
            self.old_bytes = core::mem::take(&mut self.young_bytes);
            self.young.clear();
        }
        self.young_bytes += bytes;
        self.young.insert(key, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_limit_and_keeps_what_is_used() {
        let cache = Cache::new(100_000);
        let page = |n| Ok::<_, ()>(Page::Cells(vec![n; 125]));
        cache.page(PageKey::new(1, 0, 0, 0), || page(7)).unwrap();
        for block in 1..1000 {
            cache.page(PageKey::new(1, block, 0, 0), || page(0)).unwrap();
            let kept = cache.page(PageKey::new(1, 0, 0, 0), || Err(())).unwrap();
            assert!(matches!(&*kept, Page::Cells(cells) if cells[0] == 7));
            assert!(cache.bytes() <= 100_000 + 1064);
        }
    }
}
