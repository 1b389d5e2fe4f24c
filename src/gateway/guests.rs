//! Reflexes that a watcher brought along without a name of their own: they stand while somebody watches, and a little
//! longer, so that a watcher whose line was cut can come back; then they are removed.
//!
//! Bounded by [`limits::GUESTS`]. Deliberately absent: memory of them across a restart of the node, after which they stand like
//! any other; who wants a question to stand gives it an id.

use super::{Shared, limits};
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many watch each of them.
#[derive(Debug, Default)]
pub struct Guests(Mutex<HashMap<u64, Guest>>);

#[derive(Debug, Default)]
struct Guest {
    watchers: u32,
    /// Visits so far: tells whether somebody came between two looks.
    visits: u64,
}

impl Guests {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u64, Guest>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a further one; false when there is no place.
    pub fn take_in(&self, reflex: u64) -> bool {
        self.with(|guests| {
            let place = guests.len() < limits::GUESTS;
            if place {
                guests.insert(reflex, Guest::default());
            }
            place
        })
    }

    /// Whether it stands only while somebody watches it.
    pub fn knows(&self, reflex: u64) -> bool {
        self.with(|guests| guests.contains_key(&reflex))
    }

    /// It was removed: another of this id is none of ours.
    pub fn forget(&self, reflex: u64) {
        self.with(|guests| guests.remove(&reflex));
    }
}

/// A watcher of a reflex that may be a guest.
pub struct Visit {
    shared: Arc<Shared>,
    reflex: u64,
}

impl Visit {
    /// Begins to watch.
    pub fn new(shared: &Arc<Shared>, reflex: u64) -> Self {
        shared.guests.with(|guests| {
            if let Some(guest) = guests.get_mut(&reflex) {
                guest.watchers += 1;
                guest.visits += 1;
            }
        });
        Self { shared: Arc::clone(shared), reflex }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (shared, reflex) = (Arc::clone(&self.shared), self.reflex);
        let left = shared.guests.with(|guests| {
            let guest = guests.get_mut(&reflex)?;
            guest.watchers = guest.watchers.saturating_sub(1);
            (guest.watchers == 0).then_some(guest.visits)
        });
        let (Some(visits), Ok(runtime)) = (left, tokio::runtime::Handle::try_current()) else { return };
        drop(runtime.spawn(async move {
            tokio::time::sleep(limits::GUEST_STAYS).await;
            let gone = shared.guests.with(|guests| {
                let alone = guests.get(&reflex).is_some_and(|guest| guest.watchers == 0 && guest.visits == visits);
                alone && guests.remove(&reflex).is_some()
            });
            if let (true, Ok(client)) = (gone, shared.client().await)
                && let Err(error) = client.remove(&[reflex]).await
            {
                tracing::warn!(reflex, %error, "a question that nobody watches could not be removed");
            }
        }));
    }
}
