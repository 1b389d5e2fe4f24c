//! `market add` and `market list`.

use crate::args::{Common, Moment};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all};
use clap::Subcommand;
use myelin_client::wire::{MarketFlags, MarketSpec};
use myelin_said::Listed;
use serde::Serialize;

/// `market`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Creates markets; one that exists stays as it is.
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
}

impl Line for Added {
    const KEYS: &'static [&'static str] = &["market", "entity"];
    fn cells(&self) -> Vec<String> {
        vec![self.market.clone(), self.entity.clone()]
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
            let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags, name }).collect();
            let ids = common.connect().await?.markets(&specs).await?;
            let line = |(market, id): (&String, &myelin_client::datom::EntityId)| Added {
                market: market.clone(),
                entity: id.bits().to_string(),
            };
            all(io, common.output, &names.iter().zip(&ids).map(line).collect::<Vec<_>>())?;
        }
        Form::List { moment, common } => {
            let markets = common.connect().await?.list_markets(moment.into()).await?;
            all(io, common.output, &markets.into_iter().map(Listed::from).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Ok)
}
