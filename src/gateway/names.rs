//! Names and ids of markets, as far as the gateway was told.
//!
//! A market's id never changes and a market is never removed, so what is remembered stays true; what is not remembered is
//! asked for, by one request at a time. Bounded: above [`limits::MARKETS`] everything is forgotten and asked for again.

use super::failure::Failure;
use super::limits;
use hashbrown::HashMap;
use myelin_client::{At, Client};
use myelin_datom::EntityId;
use myelin_wire::{MarketFlags, MarketSpec};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<Known>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<String, EntityId>,
    names: HashMap<u64, String>,
}

impl Known {
    fn add(&mut self, name: &str, id: EntityId) {
        if self.ids.len() >= limits::MARKETS {
            (self.ids, self.names) = (HashMap::new(), HashMap::new());
        }
        self.ids.insert(name.to_owned(), id);
        self.names.insert(id.bits(), name.to_owned());
    }

    fn all(&self, names: &[String]) -> Option<Vec<EntityId>> {
        names.iter().map(|name| self.ids.get(name).copied()).collect()
    }
}

impl Names {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of these names, [`EntityId::NONE`] where there is no such market.
    pub async fn ids(&self, client: &Client, names: &[String]) -> Result<Vec<EntityId>, Failure> {
        if let Some(ids) = self.known().all(names) {
            return Ok(ids);
        }
        self.ask(client, |known| known.all(names).is_some()).await?;
        let known = self.known();
        Ok(names.iter().map(|name| known.ids.get(name).copied().unwrap_or(EntityId::NONE)).collect())
    }

    /// The ids of these names; markets that do not exist are created.
    pub async fn ids_of_created(&self, client: &Client, names: &[String]) -> Result<Vec<EntityId>, Failure> {
        if let Some(ids) = self.known().all(names) {
            return Ok(ids);
        }
        let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }).collect();
        let ids = client.markets(&specs).await.map_err(|error| Failure::error(&error))?;
        let mut known = self.known();
        names.iter().zip(&ids).for_each(|(name, id)| known.add(name, *id));
        Ok(ids)
    }

    /// The name of a market, if there is such a market.
    pub async fn name(&self, client: &Client, id: u64) -> Result<Option<String>, Failure> {
        if let Some(name) = self.known().names.get(&id) {
            return Ok(Some(name.clone()));
        }
        self.ask(client, |known| known.names.contains_key(&id)).await?;
        Ok(self.known().names.get(&id).cloned())
    }

    /// Reads the node's list, unless another request did so meanwhile.
    async fn ask(&self, client: &Client, enough: impl Fn(&Known) -> bool) -> Result<(), Failure> {
        let _alone = self.asking.lock().await;
        if enough(&self.known()) {
            return Ok(());
        }
        let markets = client.list_markets(At::NOW).await.map_err(|error| Failure::error(&error))?;
        let mut known = self.known();
        markets.iter().for_each(|market| known.add(&market.name, market.id));
        Ok(())
    }
}
