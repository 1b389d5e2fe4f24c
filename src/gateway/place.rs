//! Where a watcher is: one place per shard, spelled in the id of every event, so that `Last-Event-ID` goes on behind it.
//!
//! ```text
//!   0:7361044480:3:17                 one shard: shard, tx, row, reflex of the last firing
//!   1:7361044499:0:17,0:7361044480    several: this event's first, then how far each other shard had come
//! ```
//!
//! Without row and reflex a place is behind everything of its `tx`. Firings of different shards are not ordered, so one
//! shard's place says nothing of another's: a shard that is not named begins behind the smallest `tx` that is, and may
//! repeat firings, but leaves none out.

use myelin_client::FiringPlace;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The last place of every shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<u16, FiringPlace>);

impl Places {
    /// Reads an event's id; also gives the reflex of its firing. `None` when it is none.
    pub fn read(text: &str) -> Option<(Self, Option<u64>)> {
        let (mut places, mut reflex) = (BTreeMap::new(), None);
        for item in text.trim().split(',') {
            let mut numbers = item.split(':');
            let shard: u16 = numbers.next()?.parse().ok()?;
            let tx: u64 = numbers.next()?.parse().ok()?;
            let place = match (numbers.next(), numbers.next(), numbers.next()) {
                (None, ..) => FiringPlace::behind(tx),
                (Some(n), Some(of), None) => {
                    let of = of.parse().ok()?;
                    reflex.get_or_insert(of);
                    FiringPlace { tx, n: n.parse().ok()?, reflex: of }
                }
                _ => return None,
            };
            places.insert(shard, place);
        }
        Some((Self(places), reflex))
    }

    /// Notes how far a shard had come, unless more is known.
    pub fn note_first(&mut self, shard: u16, place: FiringPlace) {
        self.0.entry(shard).or_insert(place);
    }

    /// Notes how far a shard has come.
    pub fn note(&mut self, shard: u16, place: FiringPlace) {
        self.0.insert(shard, place);
    }

    /// True when a shard's firing at this place lies at or before what is noted.
    pub fn seen(&self, shard: u16, place: FiringPlace) -> bool {
        self.0.get(&shard).is_some_and(|known| place <= *known)
    }

    /// A place for each of so many shards.
    pub fn of_all(&self, shards: u16) -> Vec<(u16, FiringPlace)> {
        let Some(least) = self.0.values().map(|place| place.tx).min() else { return Vec::new() };
        let place = |shard| self.0.get(&shard).copied().unwrap_or(FiringPlace::behind(least));
        (0..shards).map(|shard| (shard, place(shard))).collect()
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
            let FiringPlace { tx, n, reflex } = *place;
            let _ = match *place == FiringPlace::behind(tx) {
                true => write!(id, "{shard}:{tx}"),
                false => write!(id, "{shard}:{tx}:{n}:{reflex}"),
            };
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_what_is_none_is_refused() {
        for (text, reflex) in [("0:5:3:17", Some(17)), ("1:9:0:4,0:7,2:8:1:4", Some(4)), ("0:5", None)] {
            let (places, found) = Places::read(text).unwrap();
            let first = text.split(':').next().unwrap().parse().unwrap();
            assert_eq!((places.id(Some(first)).as_str(), found), (text, reflex));
        }
        for text in ["", "0", "x:1", "0:1:2", "0:1:2:3:4", "0:1,", "70000:1", "0:-1"] {
            assert_eq!(Places::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_shard_that_is_not_named_begins_behind_the_smallest_tx() {
        let (places, _) = Places::read("1:9:0:4,2:7:1:4").unwrap();
        assert_eq!(places.of_all(3)[0], (0, FiringPlace::behind(7)));
        assert_eq!(Places::default().of_all(3), []);
    }
}
