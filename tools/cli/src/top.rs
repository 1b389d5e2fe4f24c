//! `top`: the greatest markets by a measure, over all shards as of one moment.

use crate::args::{Common, EventTimes, Moment, Names};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, maybe};
use clap::ValueEnum;
use myelin_client::wire::{By, TopAsk};
use myelin_said::Ranked;

/// What to rank.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The measure.
    #[arg(long, value_enum, default_value_t)]
    by: Measure,
    /// Markets at most.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=4096))]
    limit: u64,
    #[command(flatten)]
    times: EventTimes,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Measure {
    /// Ticks.
    Count,
    /// Sum of volumes.
    #[default]
    Volume,
    /// Sum of price times volume.
    Notional,
    /// The last price.
    Price,
    /// From first to last price, up or down.
    Move,
}

impl From<Measure> for By {
    fn from(measure: Measure) -> Self {
        match measure {
            Measure::Count => Self::Count,
            Measure::Volume => Self::Volume,
            Measure::Notional => Self::Notional,
            Measure::Price => Self::Price,
            Measure::Move => Self::Move,
        }
    }
}

impl Line for Ranked {
    const KEYS: &'static [&'static str] = &["market", "count", "volume", "notional", "first", "last", "move", "tx"];
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.market.clone(), self.count.to_string()];
        cells.extend([self.volume, self.notional, self.first, self.last].map(|number| number.to_string()));
        cells.extend([maybe(self.moved), maybe(self.tx.as_ref())]);
        cells
    }
}

/// Asks and prints, the greatest first.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let (from_ns, to_ns) = args.times.ns()?;
    let client = args.common.connect().await?;
    let ask = TopAsk { by: args.by.into(), limit: args.limit, from_ns, to_ns };
    let answer = client.top(ask, args.moment.into()).await?;
    let mut names = Names::new(client);
    let mut lines = Vec::with_capacity(answer.value.len());
    for row in &answer.value {
        lines.push(Ranked::new(names.of(row.market).await?, row).with_tx(answer.basis));
    }
    all(io, args.common.output, &lines)?;
    Ok(Exit::Ok)
}
