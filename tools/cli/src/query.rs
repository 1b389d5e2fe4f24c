//! Reads of ticks: the newest as of a moment, stretches of rows, bars, averages.
//!
//! Deliberately absent: Datalog.

use crate::args::{self, Common, Moment, say_instant};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all};
use clap::Subcommand;
use myelin_client::datom::{Tick, Tx};
use myelin_client::wire::VwapRow;
use myelin_client::{At, Stretch};
use myelin_said::{Averaged, Bar, say_side};
use serde::Serialize;
use std::collections::HashMap;

/// `query`.
#[derive(Clone, Debug, clap::Args)]
pub struct QueryArgs {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// The newest tick of a market as of a transaction.
    AsOf {
        /// The transaction.
        #[arg(value_parser = args::tx)]
        tx: Tx,
        /// The market.
        #[arg(long, value_name = "NAME")]
        market: String,
        #[command(flatten)]
        common: Common,
    },
    /// Ticks of a market in the order in which they were applied.
    Rows(RowsArgs),
}

/// `query rows`.
#[derive(Clone, Debug, clap::Args)]
struct RowsArgs {
    /// The market.
    #[arg(long, value_name = "NAME")]
    market: String,
    /// Of later transactions only.
    #[arg(long, value_name = "TX", value_parser = args::tx)]
    since: Option<Tx>,
    /// Event time from here on, as in 2024-08-08T00:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    from: Option<i64>,
    /// Event time up to this, included.
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    to: Option<i64>,
    /// Rows at most.
    #[arg(long, default_value_t = 100)]
    limit: u64,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct TickLine {
    market: String,
    tx: String,
    id: String,
    event_time: String,
    price: f64,
    volume: f64,
    side: &'static str,
}

impl TickLine {
    fn new(market: String, tx: Tx, tick: &Tick) -> Self {
        Self {
            market,
            tx: tx.to_string(),
            id: tick.id.to_string(),
            event_time: say_instant(tick.event_time_ns),
            price: tick.price,
            volume: tick.volume,
            side: say_side(tick),
        }
    }
}

impl Line for TickLine {
    const KEYS: &'static [&'static str] = &["market", "tx", "id", "event_time", "price", "volume", "side"];
    fn cells(&self) -> Vec<String> {
        let (price, volume) = (self.price.to_string(), self.volume.to_string());
        let side = self.side.to_owned();
        vec![self.market.clone(), self.tx.clone(), self.id.clone(), self.event_time.clone(), price, volume, side]
    }
}

/// `query`.
pub(crate) async fn run(args: QueryArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::AsOf { tx, market, common } => as_of(tx, market, common, io).await,
        Form::Rows(args) => rows(args, io).await,
    }
}

/// Ticks, oldest first, a page at a time.
async fn rows(args: RowsArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = args.common.connect().await?;
    let market = args::market(&client, &args.market).await?;
    let mut at: At = args.moment.into();
    let mut lines = Vec::new();
    let mut stretch = Some(Stretch {
        since: args.since.unwrap_or(Tx::ZERO),
        from_ns: args.from.unwrap_or(i64::MIN),
        to_ns: args.to.unwrap_or(i64::MAX),
        ..Stretch::default()
    });
    while let Some(next) = stretch.filter(|_| (lines.len() as u64) < args.limit) {
        let left = args.limit - lines.len() as u64;
        let next = Stretch { limit: u32::try_from(left).map_or(next.limit, |left| left.min(next.limit)), ..next };
        let page = client.ticks_of(market.id, next, at).await?;
        // Every further page is of the same moment as the first.
        at = At::as_of(page.basis);
        lines.extend(page.value.rows.iter().map(|(tx, _, tick)| TickLine::new(market.name.clone(), *tx, tick)));
        stretch = page.value.next;
    }
    all(io, args.common.output, &lines)?;
    Ok(Exit::Ok)
}

/// The newest tick as of a moment; exit code 1 when there was none.
async fn as_of(tx: Tx, market: String, common: Common, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = common.connect().await?;
    let market = args::market(&client, &market).await?;
    let Some((tx, tick)) = client.latest(market.id, At::as_of(tx)).await?.value else {
        return Err(Failure::negative(format!("{} had no tick as of {tx}", market.name)));
    };
    all(io, common.output, &[TickLine::new(market.name, tx, &tick)])?;
    Ok(Exit::Ok)
}

/// `bars`.
#[derive(Clone, Debug, clap::Args)]
pub struct BarsArgs {
    /// The market.
    #[arg(long, value_name = "NAME")]
    market: String,
    /// The length of a bar: 1s, 1m, 1h ..
    #[arg(long, default_value = "1m", value_parser = args::length)]
    width: i64,
    /// Event time from here on, as in 2024-08-08T00:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    from: Option<i64>,
    /// Event time up to this, included.
    #[arg(long, value_name = "INSTANT", value_parser = args::instant)]
    to: Option<i64>,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

impl Line for Bar {
    const KEYS: &'static [&'static str] = &["start", "open", "high", "low", "close", "volume", "count"];
    fn cells(&self) -> Vec<String> {
        let numbers = [self.open, self.high, self.low, self.close, self.volume].map(|number| number.to_string());
        let mut cells = vec![self.start.clone()];
        cells.extend(numbers);
        cells.push(self.count.to_string());
        cells
    }
}

/// Prints bars, oldest first.
pub(crate) async fn bars(args: BarsArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = args.common.connect().await?;
    let market = args::market(&client, &args.market).await?;
    let (from, to) = (args.from.unwrap_or(i64::MIN), args.to.unwrap_or(i64::MAX));
    let bars = client.bars(market.id, args.width, from, to, args.moment.into()).await?.value;
    all(io, args.common.output, &bars.iter().map(Bar::from).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

/// `vwap`.
#[derive(Clone, Debug, clap::Args)]
pub struct VwapArgs {
    /// Only this market.
    #[arg(long, value_name = "NAME")]
    market: Option<String>,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

impl Line for Averaged {
    const KEYS: &'static [&'static str] = &["market", "vwap", "volume", "notional", "count"];
    fn cells(&self) -> Vec<String> {
        let vwap = self.vwap.map(|vwap| vwap.to_string()).unwrap_or_default();
        let (volume, notional) = (self.volume.to_string(), self.notional.to_string());
        vec![self.market.clone(), vwap, volume, notional, self.count.to_string()]
    }
}

/// Prints averages by market name.
pub(crate) async fn vwap(args: VwapArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = args.common.connect().await?;
    let named = match &args.market {
        Some(name) => vec![args::market(&client, name).await?],
        None => client.list_markets(At::NOW).await?,
    };
    let only = args.market.is_some().then(|| named.first().map(|market| market.id)).flatten();
    let names: HashMap<u64, String> = named.into_iter().map(|market| (market.id.bits(), market.name)).collect();
    let rows = client.vwap(only, args.moment.into()).await?.value;
    let name = |row: &VwapRow| names.get(&row.market).cloned().unwrap_or_else(|| row.market.to_string());
    let line = |row: &VwapRow| Averaged::new(name(row), row);
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.sort_by(|a, b| a.market.cmp(&b.market));
    all(io, args.common.output, &lines)?;
    Ok(Exit::Ok)
}
