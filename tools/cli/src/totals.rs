//! `totals`: what ticks come to, of one market or of all: count, least and greatest price, sums and averages rounded once.

use crate::args::{self, Common, EventTimes, Moment};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, one};
use myelin_said::Totalled;

/// Over which ticks.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// One market; else all of them.
    #[arg(long)]
    market: Option<String>,
    #[command(flatten)]
    times: EventTimes,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

impl Line for Totalled {
    const KEYS: &'static [&'static str] = &[
        "count",
        "corrections",
        "price_min",
        "price_max",
        "price_avg",
        "price_sum",
        "volume_avg",
        "volume_sum",
        "notional",
        "vwap",
        "tx",
    ];
    fn cells(&self) -> Vec<String> {
        let some = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![
            self.count.to_string(),
            self.corrections.to_string(),
            some(self.price_min),
            some(self.price_max),
            some(self.price_avg),
            self.price_sum.to_string(),
            some(self.volume_avg),
            self.volume_sum.to_string(),
            self.notional.to_string(),
            some(self.vwap),
            self.tx.clone(),
        ]
    }
}

/// Asks and prints.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = args.common.connect().await?;
    let market = match &args.market {
        Some(name) => Some(args::market(&client, name).await?.id),
        None => None,
    };
    let (from_ns, to_ns) = args.times.ns()?;
    let told = client.totals(market, from_ns, to_ns, args.moment.into()).await?;
    one(io, args.common.output, &Totalled::new(&told.value, told.basis))?;
    Ok(Exit::Ok)
}
