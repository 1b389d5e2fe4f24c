//! Attributes: those every shard is born with, and those that facts installed.
//!
//! ```text
//!   an attribute is an entity with db/ident and db/value-type; its other db/.. facts say what its values must be
//!   born with: kind system, slot 0, fixed sequence numbers below 1,024          law: their facts lie in every database
//!   installed: kind system, the partition's slot                                allocated in apply
//! ```
//! Idents are unique within a partition (a slot), so partitions of one shard do not share a schema, and one can move to
//! another shard with its own. Invariants: this table is a function of the facts, read again at a restart; value type,
//! cardinality and index never change once an attribute has datoms. Deliberately absent: deletion of an attribute that has
//! datoms.

use std::collections::{BTreeMap, BTreeSet};

use myelin_datom::{Datom, Decimal, EntityId, Keep, Kind, Slot, Tx, Value, ValueType};

use super::key::Form;
use super::part::Part;
use super::retention;

/// How a value of an attribute belongs to one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unique {
    /// Asserting it of a new entity means the one that has it.
    Identity,
    /// A second entity is refused.
    Value,
}

/// What the values of an attribute must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its entity.
    pub id: EntityId,
    /// `db/ident`.
    pub ident: Box<str>,
    /// `db/value-type`.
    pub value_type: ValueType,
    /// `db/cardinality`: many values at once.
    pub many: bool,
    /// `db/unique`.
    pub unique: Option<Unique>,
    /// `db/component`: what it points at goes with the entity.
    pub component: bool,
    /// `db/index`.
    pub index: bool,
    /// `db/min`: of i64, f64, decimal, instant.
    pub min: Option<Decimal>,
    /// `db/max`.
    pub max: Option<Decimal>,
    /// `db/one-of`: of strings and keywords; empty = anything.
    pub one_of: Vec<Box<str>>,
    /// `db/pattern`: of strings and keywords; `*` any text, `?` any character.
    pub pattern: Option<Box<str>>,
    /// `db/retention`: what is kept of its past.
    pub keep: Keep,
}

impl Attribute {
    /// True when its datoms stand in AVET.
    #[must_use]
    pub const fn is_indexed(&self) -> bool {
        self.index || self.unique.is_some()
    }

    /// What decides the layout of its keys.
    pub(crate) const fn form(&self) -> Form {
        Form { many: self.many, unique: self.unique.is_some() }
    }

    /// Whether the checks allow a value of the right type.
    #[must_use]
    pub fn allows(&self, value: &Value<'_>) -> bool {
        let in_range =
            |number: Decimal| self.min.is_none_or(|min| min <= number) && self.max.is_none_or(|max| number <= max);
        match value {
            Value::I64(number) | Value::Instant(number) => in_range(Decimal::whole(*number)),
            Value::Decimal(number) => in_range(*number),
            Value::F64(number) => {
                self.min.is_none_or(|min| min.to_f64() <= *number) && self.max.is_none_or(|max| *number <= max.to_f64())
            }
            Value::String(text) | Value::Keyword(text) => {
                (self.one_of.is_empty() || self.one_of.iter().any(|one| **one == **text))
                    && self.pattern.as_ref().is_none_or(|pattern| matches(pattern, text))
            }
            _ => true,
        }
    }
}

/// `*` any text, `?` any character. **Cost:** O(pattern x text) at worst, no recursion.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Attributes that every shard is born with.
pub mod born {
    use super::{EntityId, Kind, Slot};

    macro_rules! attributes {
        ($($(#[$doc:meta])* $name:ident = $sequence:literal, $ident:literal, $type:ident, $many:literal, $unique:expr, $index:literal, $text:literal;)*) => {
            $($(#[$doc])* #[doc = $text] pub const $name: EntityId = id($sequence);)*
            pub(super) const TABLE: &[super::Born] = &[$(super::Born {
                id: $name, ident: $ident, value_type: super::ValueType::$type, many: $many, unique: $unique, index: $index, doc: $text,
            },)*];
        };
    }

    /// The first sequence number that an installed attribute can have.
    pub const FIRST_FREE: u32 = 1024;

    const fn id(sequence: u32) -> EntityId {
        let Some(slot) = Slot::new(0) else { unreachable!() };
        EntityId::new(Kind::System, slot, 0, sequence)
    }

    /// True for an attribute that every shard is born with.
    #[must_use]
    pub fn is_born(id: EntityId) -> bool {
        id.kind() == Some(Kind::System) && id.slot().number() == 0 && id.ordinal() == 0 && id.sequence() < FIRST_FREE
    }

    /// True for an attribute that only the shard itself states.
    #[must_use]
    pub fn is_ours(id: EntityId) -> bool {
        is_born(id) && (id == TX_ID || id == TX_INSTANT || (30..40).contains(&id.sequence()))
            || [MARKET_HORIZON, MARKET_PRUNED_ROWS, HORIZON, PRUNED_DATOMS].contains(&id)
    }

    const IDENTITY: Option<super::Unique> = Some(super::Unique::Identity);

    attributes! {
        IDENT = 1, "db/ident", Keyword, false, IDENTITY, false, "An entity's name, unique in its partition.";
        VALUE_TYPE = 2, "db/value-type", Keyword, false, None, true, "Makes its entity an attribute: bool, i64, f64, string, bytes, keyword, instant, uuid, decimal, ref or vector.";
        CARDINALITY = 3, "db/cardinality", Keyword, false, None, false, "one (the default) or many.";
        UNIQUE = 4, "db/unique", Keyword, false, None, false, "identity: asserting it means the entity that has it; value: a second entity is refused.";
        COMPONENT = 5, "db/component", Bool, false, None, false, "What it points at is retracted with the entity.";
        INDEX = 6, "db/index", Bool, false, None, false, "Its datoms can be read by value.";
        MIN = 7, "db/min", Decimal, false, None, false, "The least number allowed.";
        MAX = 8, "db/max", Decimal, false, None, false, "The greatest number allowed.";
        ONE_OF = 9, "db/one-of", String, true, None, false, "The texts allowed.";
        PATTERN = 10, "db/pattern", String, false, None, false, "What a text must look like: * any text, ? any character.";
        DOC = 11, "db/doc", String, false, None, false, "What it is for.";
        RETENTION = 12, "db/retention", String, false, None, false, "What is kept of its past: all, latest, last N (assertions), window LENGTH (as in 7d). What holds always is.";
        HORIZON = 13, "db/horizon", I64, false, None, false, "A transaction up to which what no longer held of an attribute was dropped: moments before it are refused. Stated when twice as much has gone.";
        PRUNED_DATOMS = 14, "db/pruned-datoms", I64, false, None, false, "Datoms of an attribute that were dropped by then.";
        TX_ID = 20, "tx/id", I64, false, IDENTITY, false, "A transaction's number, of the entity that stands for it.";
        TX_INSTANT = 21, "tx/instant", Instant, false, None, true, "When a transaction was stamped, to the millisecond.";
        FEED_GAP = 30, "feed/gap", Ref, false, None, true, "The market whose feed skipped ids.";
        FEED_GAP_FIRST = 31, "feed/gap-first", Decimal, false, None, false, "The first id that is missing.";
        FEED_GAP_LAST = 32, "feed/gap-last", Decimal, false, None, false, "The last id that is missing.";
        FEED_GAP_ROWS = 33, "feed/gap-rows", Keyword, false, None, false, "tick or quote.";
        FEED_GAP_MISSING = 34, "feed/gap-missing", I64, false, None, false, "Where several gaps are stated as one: how many ids are missing in between.";
        MARKET_EVENT = 40, "market/event", String, false, None, true, "What several markets are about.";
        MARKET_HORIZON = 41, "market/horizon", I64, false, None, false, "A transaction that pruned it: moments before it are refused. Stated when twice as much has gone.";
        MARKET_PRUNED_ROWS = 42, "market/pruned-rows", I64, false, None, false, "Ticks and quotes of it that pruning had let go by then.";
    }
}

pub(crate) struct Born {
    id: EntityId,
    ident: &'static str,
    value_type: ValueType,
    many: bool,
    unique: Option<Unique>,
    index: bool,
    doc: &'static str,
}

impl Born {
    fn attribute(&self) -> Attribute {
        Attribute {
            id: self.id,
            ident: self.ident.into(),
            value_type: self.value_type,
            many: self.many,
            unique: self.unique,
            component: false,
            index: self.index,
            min: None,
            max: None,
            one_of: Vec::new(),
            pattern: None,
            keep: Keep::All,
        }
    }

    /// The facts about it.
    fn facts(&self) -> Vec<(EntityId, Value<'static>)> {
        let mut facts = vec![
            (born::IDENT, Value::keyword(self.ident)),
            (born::VALUE_TYPE, Value::keyword(self.value_type.name())),
            (born::CARDINALITY, Value::keyword(if self.many { "many" } else { "one" })),
            (born::DOC, Value::string(self.doc)),
        ];
        facts.extend(self.unique.map(|_| (born::UNIQUE, Value::keyword("identity"))));
        facts.extend(self.index.then_some((born::INDEX, Value::Bool(true))));
        facts
    }
}

/// Every attribute of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    by_id: BTreeMap<EntityId, Attribute>,
    by_ident: BTreeMap<Slot, BTreeMap<Box<str>, EntityId>>,
    born: BTreeMap<&'static str, EntityId>,
    /// Attributes whose past is not kept for good.
    thinned: BTreeSet<EntityId>,
}

impl Schema {
    /// What every shard is born with, and the facts about it: a part that no file holds.
    pub(crate) fn born() -> (Self, Part) {
        let by_id = born::TABLE.iter().map(|one| (one.id, one.attribute())).collect();
        let born = born::TABLE.iter().map(|one| (one.ident, one.id)).collect();
        let schema = Self { by_id, by_ident: BTreeMap::new(), born, thinned: BTreeSet::new() };
        let mut part = Part::default();
        for one in born::TABLE {
            for (a, v) in one.facts() {
                let datom = Datom { e: one.id, a, v, tx: Tx::ZERO, added: true };
                part.insert(&schema.by_id[&a], &datom);
            }
        }
        (schema, part)
    }

    pub(crate) fn get(&self, id: EntityId) -> Option<&Attribute> {
        self.by_id.get(&id)
    }

    /// The attribute of this name, as a partition sees it.
    pub(crate) fn named(&self, slot: Slot, ident: &str) -> Option<EntityId> {
        self.born_as(ident).or_else(|| self.by_ident.get(&slot)?.get(ident).copied())
    }

    /// The entity that every shard is born with under this name.
    pub(crate) fn born_as(&self, ident: &str) -> Option<EntityId> {
        self.born.get(ident).copied()
    }

    /// How many were installed.
    pub(crate) fn installed(&self) -> usize {
        self.by_id.len() - self.born.len()
    }

    /// Attributes whose past is not kept for good, from this id on.
    pub(crate) fn thinned(&self, from: EntityId) -> impl Iterator<Item = EntityId> {
        self.thinned.range(from..).copied()
    }

    /// Puts an attribute in the place of what had its id; none takes it away.
    pub(crate) fn install(&mut self, id: EntityId, attribute: Option<Attribute>) {
        if let Some(before) = self.by_id.remove(&id)
            && let Some(names) = self.by_ident.get_mut(&id.slot())
            && names.get(&before.ident) == Some(&id)
        {
            names.remove(&before.ident);
        }
        self.thinned.remove(&id);
        if let Some(attribute) = attribute {
            if attribute.keep != Keep::All {
                self.thinned.insert(id);
            }
            self.by_ident.entry(id.slot()).or_default().insert(attribute.ident.clone(), id);
            self.by_id.insert(id, attribute);
        }
    }
}

/// The attributes whose facts make an attribute.
pub(crate) const SCHEMA: [EntityId; 11] = [
    born::IDENT,
    born::VALUE_TYPE,
    born::CARDINALITY,
    born::UNIQUE,
    born::COMPONENT,
    born::INDEX,
    born::MIN,
    born::MAX,
    born::ONE_OF,
    born::PATTERN,
    born::RETENTION,
];

/// The attribute that these facts describe. `Ok(None)` when they describe none; an error names the fact that is wrong.
pub(crate) fn described(id: EntityId, facts: &[(EntityId, Value<'_>)]) -> Result<Option<Attribute>, EntityId> {
    let of = |a: EntityId| facts.iter().find(|(attribute, _)| *attribute == a).map(|(_, value)| value);
    let word = |a: EntityId| match of(a) {
        Some(Value::Keyword(word)) => Some(&**word),
        _ => None,
    };
    let flag = |a: EntityId| matches!(of(a), Some(Value::Bool(true)));
    let number = |a: EntityId| match of(a) {
        Some(Value::Decimal(number)) => Some(*number),
        _ => None,
    };
    let Some(type_name) = word(born::VALUE_TYPE) else {
        // Without a type it is no attribute, and what only an attribute has says nothing.
        let stray = facts.iter().find(|(a, _)| *a != born::IDENT);
        return stray.map_or(Ok(None), |(a, _)| Err(*a));
    };
    let value_type = ValueType::from_name(type_name).ok_or(born::VALUE_TYPE)?;
    let ident = word(born::IDENT).ok_or(born::IDENT)?;
    let many = match word(born::CARDINALITY) {
        None | Some("one") => false,
        Some("many") => true,
        Some(_) => return Err(born::CARDINALITY),
    };
    let unique = match word(born::UNIQUE) {
        None => None,
        Some("identity") => Some(Unique::Identity),
        Some("value") => Some(Unique::Value),
        Some(_) => return Err(born::UNIQUE),
    };
    if unique.is_some() && many {
        return Err(born::UNIQUE);
    }
    let component = flag(born::COMPONENT);
    if component && value_type != ValueType::Ref {
        return Err(born::COMPONENT);
    }
    let is_number = matches!(value_type, ValueType::I64 | ValueType::F64 | ValueType::Decimal | ValueType::Instant);
    let is_text = matches!(value_type, ValueType::String | ValueType::Keyword);
    let (min, max) = (number(born::MIN), number(born::MAX));
    for (a, given, fits) in [
        (born::MIN, min.is_some(), is_number),
        (born::MAX, max.is_some(), is_number && min.zip(max).is_none_or(|(min, max)| min <= max)),
        (born::ONE_OF, of(born::ONE_OF).is_some(), is_text),
        (born::PATTERN, of(born::PATTERN).is_some(), is_text),
    ] {
        if given && !fits {
            return Err(a);
        }
    }
    let text = |value: &Value<'_>| match value {
        Value::String(text) => Some(Box::from(&**text)),
        _ => None,
    };
    let one_of = facts.iter().filter(|(a, _)| *a == born::ONE_OF).filter_map(|(_, value)| text(value)).collect();
    let pattern = of(born::PATTERN).and_then(text);
    let keep = match of(born::RETENTION) {
        None => Keep::All,
        Some(Value::String(text)) => retention::read(text).ok_or(born::RETENTION)?,
        Some(_) => return Err(born::RETENTION),
    };
    let (ident, index) = (ident.into(), flag(born::INDEX));
    Ok(Some(Attribute { id, ident, value_type, many, unique, component, index, min, max, one_of, pattern, keep }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_any_text_and_any_character() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*@*.*", "ann@example.org", true),
            ("**x*y", "xxzy", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_describes_no_sound_attribute_names_the_fact_that_is_wrong() {
        let id = EntityId::from_bits(7);
        let keyword = |word: &'static str| Value::keyword(word);
        let sound = vec![(born::IDENT, keyword("a/b")), (born::VALUE_TYPE, keyword("i64"))];
        assert!(described(id, &sound).unwrap().is_some());
        assert_eq!(described(id, &sound[..1]), Ok(None));
        for (a, v) in [
            (born::CARDINALITY, keyword("three")),
            (born::UNIQUE, keyword("yes")),
            (born::COMPONENT, Value::Bool(true)),
            (born::PATTERN, Value::string("x")),
            (born::ONE_OF, Value::string("x")),
            (born::RETENTION, Value::string("for ever")),
        ] {
            let facts = [sound.clone(), vec![(a, v)]].concat();
            assert_eq!(described(id, &facts), Err(a));
        }
        assert_eq!(described(id, &sound[1..]), Err(born::IDENT));
    }
}
