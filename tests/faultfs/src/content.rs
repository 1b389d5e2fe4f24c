//! What a file holds: 4 KiB pages, in a volatile version that reads see and a durable one that survives a power cut.
//!
//!   write -> volatile, page marked dirty      sync -> dirty pages copied      cut -> volatile = durable (+ a lucky few)
//!
//! Pages are shared between the versions until one of them is written. A page that is absent reads as zeros and takes no
//! space. Deliberately absent: any idea of what the file is called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::power::{Loss, Random};

/// What the kernel's page cache works in.
pub(crate) const PAGE: u64 = 4096;
/// What a disk writes as a whole, even while the power fails.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE as usize]>;

#[derive(Clone, Default)]
struct Version {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

/// Both versions of one file, and what distinguishes them.
#[derive(Default)]
pub(crate) struct Content {
    volatile: Version,
    durable: Version,
    dirty: BTreeSet<u64>,
    size_is_dirty: bool,
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.volatile.size
    }

    /// Pages that take space now.
    pub(crate) fn pages(&self) -> u64 {
        self.volatile.pages.len() as u64
    }

    pub(crate) fn dirty_pages(&self) -> u64 {
        self.dirty.len() as u64
    }

    /// Pages that a write or an allocation of this range would add.
    pub(crate) fn missing_pages(&self, offset: u64, length: u64) -> u64 {
        touched(offset, length).filter(|page| !self.volatile.pages.contains_key(page)).count() as u64
    }

    /// The bytes at `offset`, fewer than `length` at the end of the file.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = self.volatile.size.min(offset.saturating_add(length));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        for (page, from, to) in spans(offset, end) {
            match self.volatile.pages.get(&page) {
                Some(found) => bytes.extend_from_slice(&found[from..to]),
                None => bytes.resize(bytes.len() + (to - from), 0),
            }
        }
        bytes
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let mut rest = bytes;
        for (page, from, to) in spans(offset, end) {
            let (now, later) = rest.split_at(to - from);
            self.page(page)[from..to].copy_from_slice(now);
            rest = later;
        }
        self.grow(end);
    }

    pub(crate) fn resize(&mut self, size: u64) {
        if size < self.volatile.size {
            self.dirty.extend(self.volatile.pages.range(size / PAGE..).map(|(page, _)| *page));
            self.volatile.cut_off(size);
        }
        self.size_is_dirty |= size != self.volatile.size;
        self.volatile.size = size;
    }

    /// Space for a range, so that writing there cannot run out of it.
    pub(crate) fn allocate(&mut self, offset: u64, length: u64, keep_size: bool) {
        for page in touched(offset, length) {
            if !self.volatile.pages.contains_key(&page) {
                self.page(page);
            }
        }
        if !keep_size {
            self.grow(offset + length);
        }
    }

    /// Zeros over a range; whole pages give their space back.
    pub(crate) fn punch(&mut self, offset: u64, length: u64) {
        for (page, from, to) in spans(offset, offset + length) {
            if to - from == PAGE as usize {
                if self.volatile.pages.remove(&page).is_some() {
                    self.dirty.insert(page);
                }
            } else if self.volatile.pages.contains_key(&page) {
                self.page(page)[from..to].fill(0);
            }
        }
    }

    /// Everything written so far is durable.
    pub(crate) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            match self.volatile.pages.get(&page) {
                Some(written) => self.durable.pages.insert(page, Arc::clone(written)),
                None => self.durable.pages.remove(&page),
            };
        }
        if std::mem::take(&mut self.size_is_dirty) {
            self.durable.size = self.volatile.size;
        }
    }

    /// A sync failed: what was dirty counts as clean and will never be durable, unless it is written again.
    pub(crate) fn forget_dirty(&mut self) {
        self.dirty.clear();
        self.size_is_dirty = false;
    }

    /// The power fails; with luck, some of what was not synced is there nevertheless, or half of it.
    pub(crate) fn cut(&mut self, mut luck: Option<&mut Random>, loss: &mut Loss) {
        loss.unsynced_pages += self.dirty_pages();
        for page in std::mem::take(&mut self.dirty) {
            let Some(random) = luck.as_deref_mut() else { continue };
            match random.below(3) {
                0 => {}
                1 => {
                    loss.kept_pages += 1;
                    match self.volatile.pages.get(&page) {
                        Some(written) => self.durable.pages.insert(page, Arc::clone(written)),
                        None => self.durable.pages.remove(&page),
                    };
                }
                _ => {
                    loss.torn_pages += 1;
                    self.tear(page, random);
                }
            }
        }
        if std::mem::take(&mut self.size_is_dirty) && luck.is_some_and(|random| random.below(2) == 1) {
            self.durable.size = self.volatile.size;
        }
        self.durable.cut_off(self.durable.size);
        self.volatile = self.durable.clone();
    }

    /// Some sectors of the new page, the others of the old one.
    fn tear(&mut self, page: u64, random: &mut Random) {
        let zeros = || Arc::new([0; PAGE as usize]);
        let new = self.volatile.pages.get(&page).map_or_else(zeros, Arc::clone);
        let old = Arc::make_mut(self.durable.pages.entry(page).or_insert_with(zeros));
        for (old, new) in old.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
            if random.below(2) == 1 {
                old.copy_from_slice(new);
            }
        }
    }

    /// Changes both versions alike: the medium has decayed. False beyond the end of the durable file.
    pub(crate) fn decay(&mut self, offset: u64, mask: u8) -> bool {
        let (page, within) = (offset / PAGE, (offset % PAGE) as usize);
        let mut hit = false;
        for version in [&mut self.volatile, &mut self.durable] {
            if let Some(bytes) = version.pages.get_mut(&page) {
                Arc::make_mut(bytes)[within] ^= mask;
                hit = true;
            }
        }
        hit
    }

    /// The volatile page, to be written.
    fn page(&mut self, page: u64) -> &mut [u8; PAGE as usize] {
        self.dirty.insert(page);
        Arc::make_mut(self.volatile.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize])))
    }

    fn grow(&mut self, end: u64) {
        if end > self.volatile.size {
            self.volatile.size = end;
            self.size_is_dirty = true;
        }
    }
}

impl Version {
    /// Nothing stays beyond `size`: what grows back there is zeros.
    fn cut_off(&mut self, size: u64) {
        let (last, within) = (size / PAGE, (size % PAGE) as usize);
        self.pages.split_off(&(last + u64::from(within > 0)));
        if within > 0
            && let Some(bytes) = self.pages.get_mut(&last)
        {
            Arc::make_mut(bytes)[within..].fill(0);
        }
    }
}

/// The pages of a range.
fn touched(offset: u64, length: u64) -> std::ops::Range<u64> {
    if length == 0 {
        return 0..0;
    }
    offset / PAGE..(offset + length).div_ceil(PAGE)
}

/// The pages of a range, each with the part of it that lies within.
fn spans(offset: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    touched(offset, end.saturating_sub(offset)).map(move |page| {
        let from = offset.saturating_sub(page * PAGE);
        let to = (end - page * PAGE).min(PAGE);
        (page, from as usize, to as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_cut(mut content: Content) -> Vec<u8> {
        content.cut(None, &mut Loss::default());
        content.read(0, 1 << 20)
    }

    #[test]
    fn reads_cross_pages_and_holes() {
        let mut content = Content::default();
        content.write(PAGE - 2, b"abcd");
        content.write(3 * PAGE, b"e");
        assert_eq!(content.read(PAGE - 3, 6), b"\0abcd\0");
        assert_eq!((content.size(), content.pages(), content.read(3 * PAGE, 99).len()), (3 * PAGE + 1, 3, 1));
        assert_eq!(content.read(9 * PAGE, 9), b"");
    }

    #[test]
    fn only_synced_bytes_survive_a_cut() {
        let mut content = Content::default();
        content.write(0, b"first");
        content.sync();
        content.write(0, b"later, and longer");
        assert_eq!(after_cut(content), b"first");
    }

    #[test]
    fn a_failed_sync_loses_what_a_second_sync_seems_to_save() {
        let mut content = Content::default();
        content.write(0, b"first");
        content.sync();
        content.write(0, b"LATER");
        content.forget_dirty();
        content.sync();
        assert_eq!(content.read(0, 5), b"LATER");
        assert_eq!(after_cut(content), b"first");
    }

    #[test]
    fn a_shorter_file_comes_back_at_full_length_unless_synced() {
        for (sync, expected) in [(false, &b"abcdef"[..]), (true, &b"abc"[..])] {
            let mut content = Content::default();
            content.write(0, b"abcdef");
            content.sync();
            content.resize(3);
            if sync {
                content.sync();
            }
            assert_eq!(after_cut(content), expected);
        }
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let mut content = Content::default();
        content.write(0, b"abcdef");
        content.resize(3);
        content.resize(6);
        assert_eq!(content.read(0, 6), b"abc\0\0\0");
    }

    #[test]
    fn a_random_cut_mixes_old_and_new_by_sector_and_repeats_with_its_seed() {
        let cut = |seed| {
            let mut content = Content::default();
            content.write(0, &[1; 64 * PAGE as usize]);
            content.sync();
            content.write(0, &[2; 64 * PAGE as usize]);
            let mut loss = Loss::default();
            content.cut(Some(&mut Random::new(seed)), &mut loss);
            assert!(loss.kept_pages > 0 && loss.torn_pages > 0 && loss.kept_pages + loss.torn_pages < 64, "{loss}");
            content.read(0, 64 * PAGE)
        };
        assert!(cut(1) == cut(1) && cut(1) != cut(2));
        for sector in cut(3).chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is written as a whole");
        }
    }

    #[test]
    fn allocation_takes_space_and_punching_gives_it_back() {
        let mut content = Content::default();
        assert_eq!(content.missing_pages(0, 3 * PAGE), 3);
        content.allocate(0, 3 * PAGE, true);
        assert_eq!((content.size(), content.pages(), content.missing_pages(0, 3 * PAGE)), (0, 3, 0));
        content.write(0, &[1; 3 * PAGE as usize]);
        content.punch(10, 2 * PAGE);
        assert_eq!((content.pages(), content.read(9, 2).as_slice()), (2, &[1, 0][..]));
    }
}
