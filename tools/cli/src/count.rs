//! `count ATTRIBUTE`: exact, at one moment: rows over all shards, or facts of a partition. The number and nothing else;
//! `totals` says the moment too.
//!
//! A row has every attribute of its kind: what nobody said of it (a trader, a side) is said as unknown.

use crate::args::{self, Common, Format, Moment};
use crate::exit::{Exit, Failure};
use crate::facts::named;
use crate::output::{Io, Line, one};
use myelin_client::Place;
use myelin_client::wire::{Attribute, DatomsAsked};
use myelin_feed::facts;
use serde::Serialize;
use std::io::Write;

/// What to count.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The attribute: tick/id, tick/price, quote/bid, market/id .., or one of facts, as in desk/limit.
    attribute: String,
    /// Only rows of this market.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["partition", "everywhere"])]
    market: Option<String>,
    /// Facts of this partition; without it of `main`.
    #[arg(long, value_name = "NAME", conflicts_with = "everywhere")]
    partition: Option<String>,
    /// Facts of every shard.
    #[arg(long)]
    everywhere: bool,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

impl Line for Count {
    const KEYS: &'static [&'static str] = &["count"];
    fn cells(&self) -> Vec<String> {
        vec![self.count.to_string()]
    }
}

/// Prints the number.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let rows = Attribute::from_name(&args.attribute);
    let place = match &args.partition {
        None if args.everywhere => Some(Place::Everywhere),
        named => named.as_deref().map(Place::Partition),
    };
    if rows.is_some() && place.is_some() || rows.is_none() && args.market.is_some() {
        return Err(Failure::usage("--market is for rows, --partition and --everywhere are for facts".to_owned()));
    }
    if rows.is_none() && ["tick/", "quote/"].iter().any(|of| args.attribute.starts_with(of)) {
        let message =
            format!("no attribute '{}': a tick has tick/id, tick/price .., a quote quote/bid ..", args.attribute);
        return Err(Failure::usage(message));
    }
    let client = args.common.connect().await?;
    let answer = match rows {
        Some(rows) => {
            let market = args::market_id(&client, args.market.as_deref()).await?;
            client.count(rows, market, args.moment.into()).await?
        }
        None => {
            let a = facts::attribute(&args.attribute).map_err(|error| Failure::usage(error.to_string()))?;
            let asked = DatomsAsked { order: BY_ATTRIBUTE, a: Some(a.clone()), ..DatomsAsked::all(0) };
            let counted =
                client.count_datoms(place.unwrap_or(Place::Partition("main")), &asked, args.moment.into()).await;
            counted.map_err(|error| named(error, Some(&a)))?
        }
    };
    match args.common.output {
        Format::Table => writeln!(io.out, "{}", answer.value)?,
        format => one(io, format, &Count { count: answer.value })?,
    }
    Ok(Exit::Ok)
}

/// The wire's number of the order that is asked: facts by their attribute.
const BY_ATTRIBUTE: u8 = 2;
