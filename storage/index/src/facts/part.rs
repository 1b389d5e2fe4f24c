//! Datoms in memory: five sorted sets of keys.
//!
//! Invariants: a datom stands in EAVT, AEVT and TEAV, in AVET if its attribute is indexed or unique, in VAET if it is a
//! reference; it stands in exactly one part or run. Deliberately absent: deletion (a retraction is a datom).

use std::collections::BTreeSet;
use std::collections::btree_set::Range;
use std::ops::Bound;

use myelin_datom::{Datom, Tx, ValueType};

use super::key::{self, Key, Order};
use super::schema::Attribute;

/// **Units:** bytes of a key's entry in its tree, with its share of nodes that are not full.
const ENTRY_BYTES: usize = 48;

/// Datoms in memory.
#[derive(Debug, Default)]
pub(crate) struct Part {
    orders: [BTreeSet<Key>; 5],
    datoms: u64,
    bytes: usize,
    first_tx: Option<Tx>,
    scratch: Vec<u8>,
}

impl Part {
    pub(crate) fn insert(&mut self, attribute: &Attribute, datom: &Datom<'_>) {
        for order in Order::KEPT {
            let stands = match order {
                Order::Eavt | Order::Aevt | Order::Teav => true,
                Order::Avet => attribute.is_indexed(),
                Order::Vaet => attribute.value_type == ValueType::Ref,
            };
            if stands {
                self.scratch.clear();
                key::write(order, attribute.form(), datom, &mut self.scratch);
                let new = self.orders[order.at()].insert(Key::new(&self.scratch));
                assert!(new, "a datom is stored once");
                self.bytes += self.scratch.len() + ENTRY_BYTES;
            }
        }
        self.datoms += 1;
        self.first_tx.get_or_insert(datom.tx);
    }

    /// Keys from this place on.
    pub(crate) fn from(&self, order: Order, seek: &Key) -> Range<'_, Key> {
        self.orders[order.at()].range((Bound::Included(seek), Bound::Unbounded))
    }

    pub(crate) fn keys(&self, order: Order) -> impl Iterator<Item = &Key> {
        self.orders[order.at()].iter()
    }

    pub(crate) fn datoms(&self) -> u64 {
        self.datoms
    }

    /// **Units:** bytes of memory, rounded.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first_tx(&self) -> Option<Tx> {
        self.first_tx
    }
}

/// The part that was newest until it was frozen: immutable, readable, on its way into a run.
#[derive(Debug)]
pub struct FrozenFacts {
    pub(crate) part: Part,
    pub(crate) upto: Tx,
}

impl FrozenFacts {
    /// **Units:** datoms.
    #[must_use]
    pub fn datoms(&self) -> u64 {
        self.part.datoms()
    }

    /// The last transaction before it was frozen.
    #[must_use]
    pub fn upto(&self) -> Tx {
        self.upto
    }
}
