//! `market add` and `market list`.

use crate::args::{Common, Moment};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all};
use clap::Subcommand;
use myelin_client::At;
use myelin_client::datom::EntityId;
use myelin_client::wire::{MarketFlags, MarketSpec};
use myelin_said::Listed;
use serde::Serialize;
use std::collections::HashMap;

/// `market`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Creates markets; one that exists stays as it is, and when it lacks what is asked for the exit code is 5.
    Add {
        /// Their names, as in binance-spot:BTCUSDT.
        #[arg(required = true)]
        names: Vec<String>,
        /// Prices may be negative.
        #[arg(long)]
        signed: bool,
        /// Ids only ascend: what comes below the pruned floor is refused.
        #[arg(long)]
        ascending: bool,
        /// Ids come without holes: a skipped one is noted as a gap.
        #[arg(long)]
        dense: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Lists all markets by name.
    List {
        #[command(flatten)]
        moment: Moment,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Serialize)]
struct Added {
    market: String,
    entity: String,
    /// It did not exist.
    new: bool,
}

impl Line for Added {
    const KEYS: &'static [&'static str] = &["market", "entity", "new"];
    fn cells(&self) -> Vec<String> {
        vec![self.market.clone(), self.entity.clone(), self.new.to_string()]
    }
}

impl Line for Listed {
    const KEYS: &'static [&'static str] = &["market", "entity", "ticks", "quotes", "signed", "ascending", "dense"];
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.market.clone(), self.entity.clone(), self.ticks.to_string(), self.quotes.to_string()];
        cells.extend([self.signed, self.ascending, self.dense].map(|flag| flag.to_string()));
        cells
    }
}

/// Performs either.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::Add { names, signed, ascending, dense, common } => {
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            let flags = MarketFlags(
                bit(signed, MarketFlags::SIGNED)
                    | bit(ascending, MarketFlags::ASCENDING)
                    | bit(dense, MarketFlags::DENSE),
            );
            return add(&names, flags, &common, io).await;
        }
        Form::List { moment, common } => {
            let markets = common.connect().await?.list_markets(moment.into()).await?;
            all(io, common.output, &markets.into_iter().map(Listed::from).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Ok)
}

/// Creates those that do not exist, and says of each whether it did. Exit code 5 where one that does was declared otherwise.
async fn add(names: &[String], flags: MarketFlags, common: &Common, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = common.connect().await?;
    let there: HashMap<String, MarketFlags> =
        client.list_markets(At::NOW).await?.into_iter().map(|market| (market.name, market.flags)).collect();
    let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags, name }).collect();
    let ids = client.markets(&specs).await?;
    let line = |(market, id): (&String, &EntityId)| Added {
        market: market.clone(),
        entity: id.bits().to_string(),
        new: !there.contains_key(market),
    };
    all(io, common.output, &names.iter().zip(&ids).map(line).collect::<Vec<_>>())?;
    let mut exit = Exit::Ok;
    for (name, has) in names.iter().filter_map(|name| there.get_key_value(name)) {
        for (bit, word) in
            [(MarketFlags::SIGNED, "signed"), (MarketFlags::ASCENDING, "ascending"), (MarketFlags::DENSE, "dense")]
        {
            if flags.has(bit) && !has.has(bit) {
                exit = Exit::Conflict;
                io.say(&format!("myelin: {name} exists and is not {word}: what a market is, is said when it is made"))?;
            }
        }
    }
    Ok(exit)
}
