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

/// What all shards together have of a counter: a sum; of the greatest anyone saw, the greatest; and a question that stands
/// on every shard is one question.
fn together(name: &str, values: &[u64]) -> u64 {
    if name.ends_with("_max") || name == "reflexes" {
        return values.iter().copied().max().unwrap_or_default();
    }
    values.iter().sum()
}

/// A row per counter, a column per shard, and all together.
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
        row.push(together(name, &values).to_string());
        row
    };
    (keys, names.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two shards with the same two questions and turns of 7 and 9 rows had 4 questions and a turn of 16.
    #[test]
    fn a_maximum_of_all_is_no_sum_and_a_question_on_every_shard_is_one() {
        let shard = |shard: u16, turn: u64| {
            let counters = [("markets", 3), ("reflexes", 2), ("read_turn_rows_max", turn)];
            ShardStatus { shard, counters: counters.map(|(name, value)| (name.to_owned(), value)).to_vec() }
        };
        let (_, rows) = across(&[shard(0, 7), shard(1, 9)]);
        let all: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[3].as_str())).collect();
        assert_eq!(all, [("markets", "6"), ("reflexes", "2"), ("read_turn_rows_max", "9")]);
    }
}
