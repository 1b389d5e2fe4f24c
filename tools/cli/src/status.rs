//! `status`: what every shard has counted about itself.

use crate::args::{Common, Format};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, table};
use myelin_client::ShardStatus;
use serde::Serialize;

/// `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Counter {
    shard: u16,
    name: String,
    value: u64,
}

impl Line for Counter {
    const KEYS: &'static [&'static str] = &["shard", "name", "value"];
    fn cells(&self) -> Vec<String> {
        vec![self.shard.to_string(), self.name.clone(), self.value.to_string()]
    }
}

/// A table has a column per shard; the other forms a line per counter.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let shards = args.common.connect().await?.status().await?;
    if args.common.output == Format::Table {
        let (keys, rows) = across(&shards);
        table(io, &keys, rows)?;
        return Ok(Exit::Ok);
    }
    let of =
        |one: ShardStatus| one.counters.into_iter().map(move |(name, value)| Counter { shard: one.shard, name, value });
    all(io, args.common.output, &shards.into_iter().flat_map(of).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

/// A row per counter, a column per shard, and their sum.
fn across(shards: &[ShardStatus]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in shards.iter().flat_map(|one| &one.counters) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value =
        |one: &ShardStatus, name: &str| one.counters.iter().find(|(of, _)| of == name).map_or(0, |(_, value)| *value);
    let mut keys = vec!["counter".to_owned()];
    keys.extend(shards.iter().map(|one| format!("shard {}", one.shard)));
    keys.push("all".to_owned());
    let row = |name: &&str| {
        let values: Vec<u64> = shards.iter().map(|one| value(one, name)).collect();
        let mut row = vec![(*name).to_owned()];
        row.extend(values.iter().map(u64::to_string));
        row.push(values.iter().sum::<u64>().to_string());
        row
    };
    (keys, names.iter().map(row).collect())
}
