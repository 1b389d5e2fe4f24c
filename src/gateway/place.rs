//! Where a listener is: one place per shard, spelled in the id of every event, so that `Last-Event-ID` goes on behind it.
//!
//! ```text
//!   0:7361044480:3:17                 one shard: shard, tx, row, reflex of the last firing
//!   0:7361044480:3                    the same of the log: shard, tx, how many of its entries were told
//!   1:7361044499:0:17,0:7361044480    several: this event's first, then how far each other shard had come
//! ```
//!
//! With `shard:tx` alone a place is behind everything of its `tx`. What different shards tell is not ordered, so one shard's
//! place says nothing of another's: a shard that is not named begins behind the smallest `tx` of which all was told, and
//! may repeat events, but leaves none out.

use myelin_client::{FiringPlace, TailPlace};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::Split;

/// A place in what one shard tells.
pub trait Place: Copy + PartialEq {
    /// Behind everything of `tx` or before.
    fn behind(tx: u64) -> Self;

    /// In the middle of `tx`, as the numbers say; `None` when they are other numbers than a place has.
    fn within(tx: u64, numbers: Split<'_, char>) -> Option<Self>;

    /// The transaction, and the numbers that say where in it.
    fn spelled(&self) -> (u64, String);
}

impl Place for FiringPlace {
    fn behind(tx: u64) -> Self {
        Self::behind(tx)
    }

    fn within(tx: u64, mut numbers: Split<'_, char>) -> Option<Self> {
        let (n, reflex) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().is_none().then_some(Self { tx, n, reflex })
    }

    fn spelled(&self) -> (u64, String) {
        (self.tx, format!("{}:{}", self.n, self.reflex))
    }
}

impl Place for TailPlace {
    fn behind(tx: u64) -> Self {
        Self::behind(tx)
    }

    fn within(tx: u64, mut numbers: Split<'_, char>) -> Option<Self> {
        let entries = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(Self { tx, entries })
    }

    fn spelled(&self) -> (u64, String) {
        (self.tx, self.entries.to_string())
    }
}

/// The last place of every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places<P>(BTreeMap<u16, P>);

impl<P> Default for Places<P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<P: Place> Places<P> {
    /// Reads an event's id; also gives the first place of it that is in the middle of a `tx`. `None` when it is none.
    pub fn read(text: &str) -> Option<(Self, Option<P>)> {
        let (mut places, mut within) = (BTreeMap::new(), None);
        for item in text.trim().split(',') {
            let mut numbers = item.split(':');
            let shard: u16 = numbers.next()?.parse().ok()?;
            let tx: u64 = numbers.next()?.parse().ok()?;
            let place = if numbers.clone().next().is_some() {
                let place = P::within(tx, numbers)?;
                within.get_or_insert(place);
                place
            } else {
                P::behind(tx)
            };
            places.insert(shard, place);
        }
        Some((Self(places), within))
    }

    /// Notes how far a shard had come, unless more is known.
    pub fn note_first(&mut self, shard: u16, place: P) {
        self.0.entry(shard).or_insert(place);
    }

    /// Notes how far a shard has come.
    pub fn note(&mut self, shard: u16, place: P) {
        self.0.insert(shard, place);
    }

    /// How far a shard has come; nothing of one that is not noted.
    pub fn of(&self, shard: u16) -> Option<P> {
        self.0.get(&shard).copied()
    }

    /// A place for each of so many shards, where they begin: noted, so that none counts as seen further on. None where nothing
    /// is noted.
    pub fn begin_all(&mut self, shards: u16) -> Vec<(u16, P)> {
        let whole = |place: &P| {
            let (tx, _) = place.spelled();
            if *place == P::behind(tx) { tx } else { tx.saturating_sub(1) }
        };
        let Some(least) = self.0.values().map(whole).min() else { return Vec::new() };
        (0..shards).map(|shard| (shard, *self.0.entry(shard).or_insert(P::behind(least)))).collect()
    }

    /// The id of an event, this shard's place first.
    pub fn id(&self, first: Option<u16>) -> String {
        let mut id = String::new();
        let first = first.and_then(|shard| self.0.get_key_value(&shard));
        let others = self.0.iter().filter(|(shard, _)| first.is_none_or(|(first, _)| first != *shard));
        for (shard, place) in first.into_iter().chain(others) {
            if !id.is_empty() {
                id.push(',');
            }
            let (tx, within) = place.spelled();
            let _ = match *place == P::behind(tx) {
                true => write!(id, "{shard}:{tx}"),
                false => write!(id, "{shard}:{tx}:{within}"),
            };
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn check<P: Place + Debug + Eq>(sound: &[(&str, Option<P>)], unsound: &[&str]) {
        for (text, within) in sound {
            let (places, found) = Places::<P>::read(text).unwrap();
            let first = text.split(':').next().unwrap().parse().unwrap();
            assert_eq!((places.id(Some(first)).as_str(), found), (*text, *within));
        }
        for text in ["", "0", "x:1", "0:1,", "0:1:", "70000:1", "0:-1"].iter().chain(unsound) {
            assert_eq!(Places::<P>::read(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_read_back_and_what_is_none_is_refused() {
        let firing = |tx, n, reflex| Some(FiringPlace { tx, n, reflex });
        let firings = [("0:5:3:17", firing(5, 3, 17)), ("1:9:0:4,0:7,2:8:1:4", firing(9, 0, 4)), ("0:5", None)];
        check(&firings, &["0:1:2", "0:1:2:3:4"]);
        let entries = |tx, entries| Some(TailPlace { tx, entries });
        let tails = [("0:5:3", entries(5, 3)), ("1:9,0:7:1,2:8:4", entries(7, 1)), ("0:5", None)];
        check(&tails, &["0:1:2:3"]);
    }

    #[test]
    fn a_shard_that_is_not_named_begins_where_nothing_is_left_out() {
        let (mut places, _) = Places::read("1:9:0:4,2:7:1:4").unwrap();
        assert_eq!(places.begin_all(3)[0], (0, FiringPlace::behind(6)));
        places.note_first(0, FiringPlace::behind(100));
        assert_eq!(places.id(None), "0:6,1:9:0:4,2:7:1:4", "what is begun there is not seen further on");
        let (mut places, _) = Places::read("1:9:4,2:7:1").unwrap();
        assert_eq!(places.begin_all(3)[0], (0, TailPlace::behind(6)));
        assert_eq!(Places::read("1:9:4,2:7").unwrap().0.begin_all(1), [(0, TailPlace::behind(7))]);
        assert_eq!(Places::<TailPlace>::default().begin_all(3), []);
    }
}
