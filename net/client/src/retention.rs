//! What is kept of markets: setting policies, and what they have come to.
//!
//! ```text
//!   retain(None, ..)        every shard: for markets without a policy of their own
//!   retain(Some(market))    the market's shard
//! ```

use crate::client::Client;
use crate::error::{Error, Refusal};
use crate::read::rows_of;
use crate::write::answered;
use myelin_datom::EntityId;
use myelin_wire::{Code, Header, Keep, Kind, PolicyRow, RetainRow};

impl Client {
    /// Says what is kept of a market's rows, or of those of every market without a policy of its own. `kinds` are bits of
    /// [`RetainRow`]; no `keep` gives a market back to the policy of all. Gives how many shards changed something.
    ///
    /// **Errors:** `Refused` by the first shard that did; what others did before stays, and repeating is safe.
    pub async fn retain(&self, market: Option<EntityId>, kinds: u8, keep: Option<Keep>) -> Result<u32, Error> {
        let row = RetainRow::new(market.map_or(0, EntityId::bits), kinds, keep);
        let shards = match market {
            Some(market) => {
                let shard = self.welcome().shard_of(market.slot());
                let shard = shard.ok_or_else(|| Error::Refused(Refusal::own(Code::WrongShard, 0, None)))?;
                shard..shard + 1
            }
            None => 0..self.shards(),
        };
        let mut sent = Vec::new();
        for shard in shards {
            sent.push(self.send(Kind::Retain, shard, 0, 1, bytemuck::bytes_of(&row).to_vec()).await?);
        }
        let mut changed = 0;
        for from in sent {
            changed += answered(from, |n| n).await?.header.count;
        }
        Ok(changed)
    }

    /// Every policy and what it has come to: first each shard's own (`market` 0), then market by market, ticks before
    /// quotes.
    pub async fn policies(&self) -> Result<Vec<PolicyRow>, Error> {
        let mut policies = Vec::new();
        for shard in 0..self.shards() {
            let mut first = 0_u64;
            loop {
                let header = Header { shard, ..Header::new(Kind::Policies) };
                let reply = self.ask(header, first.to_le_bytes().to_vec()).await?;
                policies.extend(rows_of::<PolicyRow>(&reply.body, "policies")?);
                if reply.header.flags & Header::MORE == 0 || reply.header.aux <= first {
                    break;
                }
                first = reply.header.aux;
            }
        }
        policies.sort_by_key(|policy| policy.market != 0);
        Ok(policies)
    }
}
