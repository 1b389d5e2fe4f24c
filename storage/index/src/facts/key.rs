//! A datom as bytes whose order is that of an index: five layouts, compared byte by byte.
//!
//! ```text
//!   EAVT   e 8 | a 8 | 0 | mark 9 | v          cardinality one: the newest first, so that a value is one seek
//!          e 8 | a 8 | 1 | v | mark 9          cardinality many
//!   AEVT   a 8 | e 8 | as above
//!   AVET   a 8 | v | e 8 | mark 9              indexed attributes
//!          a 8 | v | slot 2 | mark 9 | e 8 | 2          unique ones: whoever had the value last stands first
//!   VAET   v 8 | a 8 | e 8 | mark 9            references
//!   TEAV   tx 8 | e 8 | a 8 | 0 retracted, 1 asserted | v       the log: what was said, in the order in which it was
//!   mark   complement of tx 8 | 0 asserted, 1 retracted
//!   group  a key without its mark and what follows it: the datoms of a group are one fact's history, newest first
//! ```
//! Ids are big-endian, `v` is the key of `storage/datom/src/value.rs`. Invariants: a key says all of its datom; at a basis
//! the first key of a group at or below it decides whether the fact holds; a cardinality never changes once an attribute
//! has datoms, so a group never has two forms. Deliberately absent: compression.

use core::cmp::Ordering;

use myelin_datom::{Datom, EntityId, Slot, Tx, Value};

/// An index's order; its number is on the wire and in runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Order {
    /// By entity.
    Eavt = 1,
    /// By attribute, then entity.
    Aevt = 2,
    /// By attribute, then value: indexed and unique attributes.
    Avet = 3,
    /// By who is pointed at: references.
    Vaet = 4,
    /// By transaction: the log. It is read in one direction (`log.rs`), and not asked what holds.
    Teav = 5,
}

impl Order {
    /// Those that can be asked what holds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Eavt, Self::Aevt, Self::Avet, Self::Vaet];
    /// Those that parts and runs keep, in the order of their numbers.
    pub const KEPT: [Self; 5] = [Self::Eavt, Self::Aevt, Self::Avet, Self::Vaet, Self::Teav];

    /// The order with this number that can be asked what holds.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|order| *order as u8 == number)
    }

    /// The order with this number that runs keep.
    pub(crate) fn kept(number: u8) -> Option<Self> {
        Self::KEPT.into_iter().find(|order| *order as u8 == number)
    }

    pub(crate) const fn at(self) -> usize {
        self as usize - 1
    }

    const fn leads_with_entity(self) -> bool {
        matches!(self, Self::Eavt | Self::Aevt)
    }
}

/// Every key is longer than this, and compares by it first. **Units:** bytes.
const HEAD_BYTES: usize = 16;
/// **Units:** bytes.
pub(crate) const MARK_BYTES: usize = 9;
const ONE: u8 = 0;
const MANY: u8 = 1;
/// Where the mark of a cardinality of one begins.
const ONE_MARK_AT: usize = 17;
/// The last byte of a unique attribute's key in AVET; others end with their mark, which ends with 0 or 1.
const HELD: u8 = 2;

/// What of an attribute decides the layout of its keys; it never changes once there are datoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Many values at once.
    pub many: bool,
    /// A value belongs to one entity.
    pub unique: bool,
}
/// Where TEAV says whether it was asserted; the value follows.
const SAID_AT: usize = 24;

/// A key that lies somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    head: u128,
    pub bytes: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// Any bytes as a place among keys: shorter ones stand before everything that begins with them.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let head = match bytes.first_chunk::<HEAD_BYTES>() {
            Some(head) => u128::from_be_bytes(*head),
            None => {
                let mut head = [0; HEAD_BYTES];
                head[..bytes.len()].copy_from_slice(bytes);
                u128::from_be_bytes(head)
            }
        };
        Self { head, bytes }
    }
}

impl Ord for KeyRef<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // The first bytes stand in the tree's own nodes: most comparisons touch no other memory.
        self.head.cmp(&other.head).then_with(|| {
            let rest = |bytes: &'_ [u8]| bytes.len().min(HEAD_BYTES);
            self.bytes[rest(self.bytes)..].cmp(&other.bytes[rest(other.bytes)..])
        })
    }
}

impl PartialOrd for KeyRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for KeyRef<'_> {}

/// A key that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    head: u128,
    bytes: Box<[u8]>,
}

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self { head: KeyRef::new(bytes).head, bytes: bytes.into() }
    }

    /// Of bytes that are nobody else's any more.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { head: KeyRef::new(&bytes).head, bytes: bytes.into_boxed_slice() }
    }

    #[inline]
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { head: self.head, bytes: &self.bytes }
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// Appends the key of a datom. **Panics** when VAET is asked of something that is no reference: the caller looked.
pub(crate) fn write(order: Order, form: Form, datom: &Datom<'_>, out: &mut Vec<u8>) {
    if order == Order::Teav {
        for word in [datom.tx.bits(), datom.e.bits(), datom.a.bits()] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.push(u8::from(datom.added));
        return datom.v.write_key(out);
    }
    let mark = mark(datom.tx, datom.added);
    if order == Order::Avet && form.unique {
        write_held(datom.a, &datom.v, datom.e.slot(), out);
        out.extend_from_slice(&mark);
        out.extend_from_slice(&datom.e.bits().to_be_bytes());
        out.push(HELD);
        return;
    }
    write_group(order, form.many, datom.e, datom.a, &datom.v, out);
    out.extend_from_slice(&mark);
    if order.leads_with_entity() && !form.many {
        datom.v.write_key(out);
    }
}

/// Appends what all datoms of a unique attribute's value begin with in AVET, in one partition: its holders, newest first.
pub(crate) fn write_held(a: EntityId, v: &Value<'_>, slot: Slot, out: &mut Vec<u8>) {
    out.extend_from_slice(&a.bits().to_be_bytes());
    v.write_key(out);
    out.extend_from_slice(&slot.number().to_be_bytes());
}

/// Appends what all datoms of one fact begin with.
pub(crate) fn write_group(order: Order, many: bool, e: EntityId, a: EntityId, v: &Value<'_>, out: &mut Vec<u8>) {
    let (e, a) = (e.bits().to_be_bytes(), a.bits().to_be_bytes());
    match order {
        Order::Eavt => out.extend_from_slice(&[e, a].concat()),
        Order::Aevt => out.extend_from_slice(&[a, e].concat()),
        Order::Avet => {
            out.extend_from_slice(&a);
            v.write_key(out);
            out.extend_from_slice(&e);
        }
        Order::Vaet => {
            let Value::Ref(target) = v else { unreachable!("only references stand in VAET") };
            out.extend_from_slice(&target.bits().to_be_bytes());
            out.extend_from_slice(&a);
            out.extend_from_slice(&e);
        }
        Order::Teav => unreachable!("the log has no groups"),
    }
    if order.leads_with_entity() {
        out.push(if many { MANY } else { ONE });
        if many {
            v.write_key(out);
        }
    }
}

/// The group of a fact of cardinality one in EAVT: what a point read seeks.
pub(crate) fn one_group(e: EntityId, a: EntityId) -> [u8; ONE_MARK_AT] {
    let mut group = [ONE; ONE_MARK_AT];
    group[..8].copy_from_slice(&e.bits().to_be_bytes());
    group[8..16].copy_from_slice(&a.bits().to_be_bytes());
    group
}

/// The mark of a transaction, and of every assertion and retraction in it at or behind the seek.
pub(crate) fn mark(tx: Tx, added: bool) -> [u8; MARK_BYTES] {
    let mut mark = [u8::from(!added); MARK_BYTES];
    mark[..8].copy_from_slice(&(!tx.bits()).to_be_bytes());
    mark
}

/// Where the mark of a key begins: its group's length. `None` when the bytes are no key.
#[inline]
pub(crate) fn mark_at(order: Order, bytes: &[u8]) -> Option<usize> {
    if order.leads_with_entity() && *bytes.get(HEAD_BYTES)? == ONE {
        return (bytes.len() > ONE_MARK_AT + MARK_BYTES).then_some(ONE_MARK_AT);
    }
    if order == Order::Avet && bytes.last() == Some(&HELD) {
        // Behind the mark stand the entity and this byte, before it the attribute, a value and the partition.
        let at = bytes.len().checked_sub(MARK_BYTES + 9)?;
        return (at > 8 + 2).then_some(at);
    }
    let at = bytes.len().checked_sub(MARK_BYTES)?;
    (at > HEAD_BYTES).then_some(at)
}

/// Transaction and polarity of a key. `None` when the bytes are no key.
#[inline]
pub(crate) fn said(bytes: &[u8], mark_at: usize) -> Option<(Tx, bool)> {
    let mark: &[u8; MARK_BYTES] = bytes.get(mark_at..)?.first_chunk()?;
    let tx = !u64::from_be_bytes(*mark.first_chunk()?);
    match mark[8] {
        0 => Some((Tx::from_bits(tx), true)),
        1 => Some((Tx::from_bits(tx), false)),
        _ => None,
    }
}

/// The attribute of a key. `None` when the bytes are no key.
#[inline]
pub(crate) fn attribute(order: Order, bytes: &[u8]) -> Option<EntityId> {
    let at = match order {
        Order::Eavt | Order::Vaet => 8,
        Order::Aevt | Order::Avet => 0,
        Order::Teav => 16,
    };
    Some(EntityId::from_bits(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?)))
}

/// Transaction and polarity of a key of any order. `None` when the bytes are no key.
pub(crate) fn said_by(order: Order, bytes: &[u8]) -> Option<(Tx, bool)> {
    if order == Order::Teav {
        let tx = u64::from_be_bytes(*bytes.first_chunk()?);
        return Some((Tx::from_bits(tx), *bytes.get(SAID_AT)? == 1));
    }
    said(bytes, mark_at(order, bytes)?)
}

/// The datom of a key. `None` when the bytes are no key. **Cost:** borrows the value.
pub(crate) fn read(order: Order, bytes: &[u8]) -> Option<Datom<'_>> {
    if order == Order::Teav {
        return read_log(bytes);
    }
    let mark_at = mark_at(order, bytes)?;
    let (tx, added) = said(bytes, mark_at)?;
    let id = |at: usize| Some(EntityId::from_bits(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?)));
    let value = |from: usize, upto: usize| {
        let key = bytes.get(from..upto)?;
        Value::read_key(key).filter(|(_, len)| *len == key.len()).map(|(value, _)| value)
    };
    let in_entity = || {
        if mark_at == ONE_MARK_AT && bytes[HEAD_BYTES] == ONE {
            value(ONE_MARK_AT + MARK_BYTES, bytes.len())
        } else {
            value(ONE_MARK_AT, mark_at)
        }
    };
    let (e, a, v) = match order {
        Order::Eavt => (id(0)?, id(8)?, in_entity()?),
        Order::Aevt => (id(8)?, id(0)?, in_entity()?),
        Order::Avet if bytes.last() == Some(&HELD) => {
            (id(mark_at + MARK_BYTES)?, id(0)?, value(8, mark_at.checked_sub(2)?)?)
        }
        Order::Avet => (id(mark_at - 8)?, id(0)?, value(8, mark_at - 8)?),
        Order::Vaet => (id(16)?, id(8)?, Value::Ref(id(0)?)),
        Order::Teav => return None,
    };
    Some(Datom { e, a, v, tx, added })
}

fn read_log(bytes: &[u8]) -> Option<Datom<'_>> {
    let (tx, added) = said_by(Order::Teav, bytes)?;
    let id = |at: usize| Some(EntityId::from_bits(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?)));
    let key = bytes.get(SAID_AT + 1..)?;
    let (v, _) = Value::read_key(key).filter(|(_, len)| *len == key.len())?;
    Some(Datom { e: id(8)?, a: id(16)?, v, tx, added })
}

/// The first place behind everything that begins so; `None` when there is none.
pub(crate) fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_datom_and_newer_ones_of_a_fact_stand_first() {
        check(&Order::ALL, &Value::Ref(EntityId::from_bits(0x3001_0000_0000_0009)));
        check(&[Order::Eavt, Order::Aevt, Order::Avet], &Value::string(""));
        check(&[Order::Eavt, Order::Aevt, Order::Avet], &Value::Bool(true));
    }

    fn check(orders: &[Order], v: &Value<'static>) {
        let datom = |tx, added| Datom {
            e: EntityId::from_bits(0x3001_0000_0000_0007),
            a: EntityId::from_bits(0x5000_0000_0000_0401),
            v: v.clone(),
            tx: Tx::from_bits(tx),
            added,
        };
        for order in orders.iter().copied() {
            for form in [(false, false), (true, false), (false, true)].map(|(many, unique)| Form { many, unique }) {
                let keys: Vec<Vec<u8>> = [datom(9, true), datom(9, false), datom(4, true), datom(0, false)]
                    .iter()
                    .map(|datom| {
                        let mut key = Vec::new();
                        write(order, form, datom, &mut key);
                        assert_eq!(read(order, &key).as_ref(), Some(datom), "{order:?}");
                        key
                    })
                    .collect();
                assert!(keys.is_sorted_by(|a, b| KeyRef::new(a) < KeyRef::new(b)));
                let groups: Vec<_> = keys.iter().map(|key| &key[..mark_at(order, key).unwrap()]).collect();
                assert!(groups.windows(2).all(|two| two[0] == two[1]), "one fact, one group");
                for cut in 0..keys[0].len() {
                    assert_ne!(read(order, &keys[0][..cut]).as_ref(), Some(&datom(9, true)));
                }
            }
        }
    }

    #[test]
    fn a_key_of_the_log_gives_back_its_datom_and_later_ones_stand_behind() {
        let datom = |tx, e, added| Datom {
            e: EntityId::from_bits(e),
            a: EntityId::from_bits(0x5000_0000_0000_0401),
            v: Value::string("x"),
            tx: Tx::from_bits(tx),
            added,
        };
        let in_order = [datom(4, 9, true), datom(5, 1, false), datom(5, 1, true), datom(5, 2, false)];
        let keys = in_order.map(|datom| {
            let mut key = Vec::new();
            write(Order::Teav, Form { many: false, unique: false }, &datom, &mut key);
            assert_eq!(read(Order::Teav, &key), Some(datom.clone()));
            assert_eq!(said_by(Order::Teav, &key), Some((datom.tx, datom.added)));
            for cut in 0..key.len() {
                assert_eq!(read(Order::Teav, &key[..cut]), None);
            }
            key
        });
        assert!(keys.is_sorted_by(|a, b| KeyRef::new(a) < KeyRef::new(b)));
    }

    #[test]
    fn behind_a_prefix_comes_everything_that_does_not_begin_with_it() {
        assert_eq!(behind(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(behind(&[0xff, 0xff]), None);
        assert_eq!(behind(&[]), None);
    }
}
