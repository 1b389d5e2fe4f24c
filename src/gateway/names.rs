//! Names and ids of markets, as far as the gateway was told.
//!
//! A market's id never changes and a market is never removed, so what is remembered stays true; what is not remembered is
//! asked for, by one request at a time, of the shards alone that know: another one that has stopped is in nobody's way.
//! Bounded: above [`limits::MARKETS`] everything is forgotten and asked for again.

use super::failure::{Failure, HttpCode};
use super::limits;
use super::query::failed;
use hashbrown::HashMap;
use myelin_client::Client;
use myelin_datom::EntityId;
use myelin_wire::{Header, Kind, MarketFlags, MarketSpec, read_market_rows};
use std::collections::BTreeSet;
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
        let shards = names.iter().filter_map(|name| client.shard_of_name(name)).collect();
        self.ask(client, shards, |known| known.all(names).is_some()).await?;
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
        let shard = client.welcome().shard_of(EntityId::from_bits(id).slot());
        self.ask(client, shard.into_iter().collect(), |known| known.names.contains_key(&id)).await?;
        Ok(self.known().names.get(&id).cloned())
    }

    /// Reads the lists of these shards, unless another request did so meanwhile.
    async fn ask(
        &self,
        client: &Client,
        shards: BTreeSet<u16>,
        enough: impl Fn(&Known) -> bool,
    ) -> Result<(), Failure> {
        let _alone = self.asking.lock().await;
        if enough(&self.known()) {
            return Ok(());
        }
        for shard in shards {
            self.read_list(client, shard).await?;
        }
        Ok(())
    }

    async fn read_list(&self, client: &Client, shard: u16) -> Result<(), Failure> {
        let mut first = 0_u64;
        loop {
            let header = Header { shard, ..Header::new(Kind::ListMarkets) };
            let reply = client.ask(header, first.to_le_bytes().to_vec()).await.map_err(failed)?;
            let senseless = |_| Failure::http(HttpCode::NotServing, "a list of markets ends early");
            let markets = read_market_rows(&reply.body).map_err(senseless)?;
            markets.iter().for_each(|market| self.known().add(&market.name, market.id));
            if reply.header.flags & Header::MORE == 0 || reply.header.aux <= first {
                return Ok(());
            }
            first = reply.header.aux;
        }
    }
}
