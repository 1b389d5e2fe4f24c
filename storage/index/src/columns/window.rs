//! Which of the last 16,384 ids below the greatest were seen: one bit each, in a ring.
//!
//! ```text
//!   ids   least ........ greatest-16383 ............ greatest
//!         |  id index  | bit = id mod capacity, 1 = seen |  greater: new
//! ```
//! Invariants: the capacity is a power of two of at most [`WINDOW_BITS`]; while it is smaller than that, it covers every
//! id from the least ever seen, so a market with few rows pays eight bytes. Deliberately absent: rows; a set bit says
//! that a row exists, not where.

use super::wire::{Input, Malformed};

/// Ids below the greatest that are known without a lookup.
pub const WINDOW_BITS: u64 = 16_384;

/// The ids one market has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdWindow {
    greatest: u64,
    least: u64,
    words: Vec<u64>,
}

/// What the window alone can say about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Never seen.
    New,
    /// Seen: a row has it, unless it was pruned.
    Seen,
    /// Below the window: the id index of the parts knows.
    Below,
}

impl IdWindow {
    #[inline]
    fn capacity(&self) -> u64 {
        self.words.len() as u64 * 64
    }

    #[inline]
    fn place(&self, id: u64) -> (usize, u64) {
        ((id >> 6) as usize & (self.words.len() - 1), 1 << (id & 63))
    }

    #[inline]
    pub(crate) fn known(&self, id: u64) -> Known {
        if id > self.greatest || id < self.least {
            return Known::New;
        }
        if self.greatest - id >= self.capacity() {
            return Known::Below;
        }
        let (word, bit) = self.place(id);
        if self.words[word] & bit == 0 { Known::New } else { Known::Seen }
    }

    /// Notes an id as seen; gives the greatest id before it if this one is greater.
    #[inline]
    pub(crate) fn note(&mut self, id: u64) -> Option<u64> {
        let before = self.greatest;
        if id > before {
            if before == 0 {
                self.least = id;
            }
            if id - self.least >= self.capacity() {
                self.grow(id - self.least);
            }
            self.forget(before, id);
            self.greatest = id;
        } else if id < self.least {
            self.least = id;
            if before - id >= self.capacity() {
                self.grow(before - id);
            }
        }
        if self.greatest - id < self.capacity() {
            let (word, bit) = self.place(id);
            self.words[word] |= bit;
        }
        (id > before).then_some(before)
    }

    /// Clears the bits of the ids that `to` brings into the window.
    #[inline]
    fn forget(&mut self, greatest: u64, to: u64) {
        let jump = to - greatest;
        if jump == 1 {
            let (word, bit) = self.place(to);
            self.words[word] &= !bit;
        } else if jump >= self.capacity() {
            self.words.fill(0);
        } else {
            let mut id = greatest + 1;
            while id <= to {
                let upto = to.min(id | 63);
                let (word, _) = self.place(id);
                let above = u64::MAX.checked_shl((upto & 63) as u32 + 1).unwrap_or(0);
                self.words[word] &= above | !(u64::MAX << (id & 63));
                if upto == u64::MAX {
                    break;
                }
                id = upto + 1;
            }
        }
    }

    #[cold]
    fn grow(&mut self, span: u64) {
        let bits = span.saturating_add(1).min(WINDOW_BITS).next_power_of_two().max(64);
        if bits == self.capacity() {
            return;
        }
        let old = core::mem::replace(&mut self.words, vec![0; (bits / 64) as usize]);
        let seen = |id: u64| old[(id >> 6) as usize & (old.len() - 1)] >> (id & 63) & 1 == 1;
        for back in 0..(old.len() as u64 * 64).min(self.greatest) {
            let id = self.greatest - back;
            if seen(id) {
                let (word, bit) = self.place(id);
                self.words[word] |= bit;
            }
        }
    }

    /// The missing ids of `first..=last`, as ranges; a span that the window does not hold is one range.
    pub(crate) fn missing(&self, first: u64, last: u64, mut report: impl FnMut(u64, u64)) {
        if self.greatest - first >= self.capacity() {
            return report(first, last);
        }
        let mut from = None;
        for id in first..=last {
            match (self.known(id) == Known::Seen, from) {
                (false, None) => from = Some(id),
                (true, Some(start)) => {
                    report(start, id - 1);
                    from = None;
                }
                _ => {}
            }
        }
        if let Some(start) = from {
            report(start, last);
        }
    }

    /// **Shape:** greatest, least, words (u32), the words.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.greatest.to_le_bytes());
        out.extend_from_slice(&self.least.to_le_bytes());
        out.extend_from_slice(&(self.words.len() as u32).to_le_bytes());
        self.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let (greatest, least, words) = (input.u64()?, input.u64()?, input.u32()?);
        input.expect("a window's words", words == 0 || (words.is_power_of_two() && words <= 256), 256, words.into())?;
        input.expect("a window's least id", least <= greatest && (least == 0) == (words == 0), greatest, least)?;
        let words = (0..words).map(|_| input.u64()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { greatest, least, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_every_id(
            steps in prop::collection::vec((any::<bool>(), 1_u64..40_000, any::<u8>()), 1..400),
        ) {
            let mut window = IdWindow::default();
            let mut set = BTreeSet::new();
            let mut at = 50_000_u64;
            for (up, by, wide) in steps {
                let by = if wide < 240 { by % 70 } else { by };
                at = if up { at + by } else { at.saturating_sub(by).max(1) };
                match window.known(at) {
                    Known::New => prop_assert!(!set.contains(&at)),
                    Known::Seen => prop_assert!(set.contains(&at)),
                    Known::Below => prop_assert!(set.last().unwrap() - at >= WINDOW_BITS),
                }
                window.note(at);
                set.insert(at);
                prop_assert_eq!(window.greatest, *set.last().unwrap());
                let mut bytes = Vec::new();
                window.write(&mut bytes);
                prop_assert_eq!(&IdWindow::read(&mut Input::new(&bytes)).unwrap(), &window);
            }
        }
    }

    #[test]
    fn a_market_with_few_ids_pays_eight_bytes() {
        let mut window = IdWindow::default();
        (1_000_000..1_000_050).for_each(|id| _ = window.note(id));
        assert_eq!(window.words.len(), 1);
    }

    #[test]
    fn the_greatest_id_there_is_does_not_overflow() {
        let mut window = IdWindow::default();
        for id in [1, u64::MAX - 70, u64::MAX, u64::MAX - 1] {
            assert_eq!(window.known(id), Known::New);
            window.note(id);
            assert_eq!(window.known(id), Known::Seen);
        }
    }
}
