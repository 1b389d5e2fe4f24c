//! `retention set` and `retention list`.

use crate::args::{self, Common};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all};
use clap::{Subcommand, ValueEnum};
use myelin_client::At;
use myelin_client::wire::{Keep, PolicyRow, RetainRow};
use serde::Serialize;
use std::collections::HashMap;

/// `retention`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    Tick,
    Quote,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Says what is kept of a market, or of all that have no policy of their own. What is not kept is dropped for good.
    Set {
        /// Of this market.
        #[arg(long, value_name = "NAME", required_unless_present = "all")]
        market: Option<String>,
        /// Of every market without a policy of its own.
        #[arg(long, conflicts_with = "market")]
        all: bool,
        /// Only of these rows; else of both.
        #[arg(long, value_enum)]
        kind: Option<Rows>,
        /// all · latest · last N (rows) · window LENGTH, as in 7d · default (no policy of the market's own)
        #[arg(required = true, num_args = 1..=2)]
        policy: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Lists what is kept, by policy and in fact.
    List {
        #[command(flatten)]
        common: Common,
    },
}

/// A line of the list. The market `*` is all without a policy of their own.
#[derive(Serialize)]
struct Listed {
    market: String,
    kind: &'static str,
    policy: String,
    own: bool,
    kept: u64,
    dropped: u64,
    /// The transaction that dropped last; empty when nothing was.
    horizon: String,
}

impl Line for Listed {
    const KEYS: &'static [&'static str] = &["market", "kind", "policy", "own", "kept", "dropped", "horizon"];
    fn cells(&self) -> Vec<String> {
        let counts = [self.kept, self.dropped].map(|number| number.to_string());
        let mut cells = vec![self.market.clone(), self.kind.to_owned(), self.policy.clone(), self.own.to_string()];
        cells.extend(counts);
        cells.push(self.horizon.clone());
        cells
    }
}

/// Performs either.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::Set { market, all: _, kind, policy, common } => {
            let words: Vec<&str> = policy.iter().map(String::as_str).collect();
            let keep = read(&words).map_err(Failure::usage)?;
            if keep.is_none() && market.is_none() {
                return Err(Failure::usage("`default` is for one market: name it with --market".to_owned()));
            }
            let kinds = match kind {
                Some(Rows::Tick) => RetainRow::TICKS,
                Some(Rows::Quote) => RetainRow::QUOTES,
                None => RetainRow::TICKS | RetainRow::QUOTES,
            };
            let client = common.connect().await?;
            let market = args::market_id(&client, market.as_deref()).await?;
            client.retain(market, kinds, keep).await?;
            list(&common, Some(market.map_or(0, |market| market.bits())), io).await?;
        }
        Form::List { common } => list(&common, None, io).await?,
    }
    Ok(Exit::Ok)
}

/// Prints what there is to say: of one market, or of all whose rows, or whose policy, there are.
async fn list(common: &Common, of: Option<u64>, io: &mut Io<'_>) -> Result<(), Failure> {
    let client = common.connect().await?;
    let policies = client.policies().await?;
    let markets = client.list_markets(At::NOW).await?;
    let names: HashMap<u64, String> = markets.into_iter().map(|market| (market.id.bits(), market.name)).collect();
    let mut lines: Vec<Listed> = Vec::new();
    for policy in policies.iter().filter(|policy| of.is_none_or(|market| market == policy.market)) {
        let says = policy.market == 0 || policy.own == 1 || policy.kept > 0 || policy.dropped > 0;
        let line = listed(policy, &names);
        // Every shard has a policy of its own, and as a rule it is the same one.
        let again = policy.market == 0
            && lines.iter().any(|other| (&*other.market, other.kind, &other.policy) == ("*", line.kind, &line.policy));
        if says && !again {
            lines.push(line);
        }
    }
    lines.sort_by(|a, b| (a.market != "*", &a.market).cmp(&(b.market != "*", &b.market)));
    Ok(all(io, common.output, &lines)?)
}

fn listed(policy: &PolicyRow, names: &HashMap<u64, String>) -> Listed {
    let market = match policy.market {
        0 => "*".to_owned(),
        id => names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
    };
    Listed {
        market,
        kind: if policy.kind == 1 { "tick" } else { "quote" },
        policy: Keep::from_parts(policy.keep, policy.value).map_or_else(|| "?".to_owned(), say),
        own: policy.own == 1,
        kept: policy.kept,
        dropped: policy.dropped,
        horizon: if policy.horizon == 0 { String::new() } else { policy.horizon.to_string() },
    }
}

/// Reads a policy as people write it; nothing for `default`.
fn read(words: &[&str]) -> Result<Option<Keep>, String> {
    let keep = match *words {
        ["default"] => return Ok(None),
        ["all"] => Some(Keep::All),
        ["latest"] => Some(Keep::Latest),
        ["last", rows] => rows.replace('_', "").parse().ok().and_then(|rows| Keep::from_parts(3, rows)),
        ["window", length] => Keep::from_parts(4, args::duration(length)?.as_nanos() as u64),
        _ => None,
    };
    keep.map(Some).ok_or_else(|| {
        "write all, latest, last N (1 to 2^28 rows), window LENGTH (from 1ms, as in 7d), or default".to_owned()
    })
}

/// Writes a policy as [`read`] reads it.
fn say(keep: Keep) -> String {
    match keep {
        Keep::All => "all".to_owned(),
        Keep::Latest => "latest".to_owned(),
        Keep::Last(rows) => format!("last {rows}"),
        Keep::Window(ns) => format!("window {}", args::say_duration(ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["all", "latest", "last 1", "last 268435456", "window 7d", "window 90s", "window 36h", "window 1ms"]
        {
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(read(&words).map(|keep| keep.map(say)), Ok(Some(text.to_owned())));
        }
        assert_eq!(read(&["default"]), Ok(None));
        for words in [
            &["last"][..],
            &["last", "0"],
            &["last", "-1"],
            &["window", "7"],
            &["window", "1us"],
            &["some"],
            &["all", "1"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
