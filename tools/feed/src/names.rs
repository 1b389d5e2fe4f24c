//! The table of market names: each distinct name once, in order of appearance, found by its bytes.
//!
//! A name is checked when it is first seen; later rows pay one hash and one compare. The table is bounded, because a
//! file whose market column is really an id column would otherwise grow it without end.
//!
//! Deliberately absent: ids. The caller owns the map from this table's index to an `EntityId`.

use hashbrown::HashTable;
use myelin_datom::{MarketName, NameError};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) struct Names {
    names: Vec<String>,
    by_hash: HashTable<u32>,
    limit: usize,
}

/// Why a name got no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRefused {
    /// It can never be a market's name.
    Bad(&'static str),
    /// It could be, but there are too many already.
    Full,
}

impl Names {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize);
        Self { names: Vec::new(), by_hash: HashTable::new(), limit }
    }

    pub(crate) fn as_slice(&self) -> &[String] {
        &self.names
    }

    #[inline]
    pub(crate) fn index_of(&mut self, name: &[u8]) -> Result<u32, NameRefused> {
        let hash = xxh3_64(name);
        let known = self.by_hash.find(hash, |&at| self.names[at as usize].as_bytes() == name);
        match known {
            Some(&at) => Ok(at),
            None => self.add(hash, name),
        }
    }

    #[cold]
    fn add(&mut self, hash: u64, name: &[u8]) -> Result<u32, NameRefused> {
        let name = str::from_utf8(name).map_err(|_| NameRefused::Bad("a market name in UTF-8"))?;
        MarketName::new(name).map_err(|error| {
            NameRefused::Bad(match error {
                NameError::Empty => "a market name",
                NameError::TooLong => "a market name of at most 200 bytes",
                NameError::BadCharacter { .. } => "a market name without white space, control characters and *",
            })
        })?;
        if self.names.len() >= self.limit {
            return Err(NameRefused::Full);
        }
        let at = self.names.len() as u32;
        self.names.push(name.to_owned());
        let names = &self.names;
        self.by_hash.insert_unique(hash, at, |&other| xxh3_64(names[other as usize].as_bytes()));
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_the_index_of_its_first_appearance() {
        let mut names = Names::new(1_000);
        for round in 0..2 {
            for n in 0..1_000_u32 {
                assert_eq!(names.index_of(format!("venue:{n}").as_bytes()), Ok(n), "round {round}");
            }
        }
        assert_eq!(
            names.index_of(b"one more"),
            Err(NameRefused::Bad("a market name without white space, control characters and *"))
        );
        assert_eq!(names.index_of(b"one-more"), Err(NameRefused::Full));
        assert_eq!(names.index_of(b"venue:999"), Ok(999));
        assert_eq!(names.index_of(b"\xff"), Err(NameRefused::Bad("a market name in UTF-8")));
        assert_eq!(names.as_slice().len(), 1_000);
    }
}
