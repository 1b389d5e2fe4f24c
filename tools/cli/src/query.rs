//! Reads of ticks and quotes: the newest as of a moment, stretches of rows, bars, averages.
//!
//! Deliberately absent: Datalog.

use crate::args::{self, Common, EventTimes, Moment};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, maybe};
use clap::Subcommand;
use myelin_client::datom::{Quote, Tick, Tx};
use myelin_client::wire::VwapRow;
use myelin_client::{At, MarketRows, Stretch};
use myelin_said::{Averaged, Bar, QuoteSaid, TickSaid};
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
    /// The newest tick, or quote, of a market as of a transaction.
    AsOf {
        /// The transaction.
        #[arg(value_parser = args::as_of)]
        tx: Tx,
        /// The market.
        #[arg(long, value_name = "NAME")]
        market: String,
        /// The newest quote.
        #[arg(long)]
        quotes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Ticks, or quotes, of a market in the order in which they were applied.
    Rows(RowsArgs),
}

/// `query rows`.
#[derive(Clone, Debug, clap::Args)]
struct RowsArgs {
    /// The market.
    #[arg(long, value_name = "NAME")]
    market: String,
    /// Its quotes.
    #[arg(long)]
    quotes: bool,
    /// Of later transactions only, or of those from a time on.
    #[arg(long, value_name = "TX|TIME", value_parser = args::since)]
    since: Option<Tx>,
    #[command(flatten)]
    times: EventTimes,
    /// Rows at most.
    #[arg(long, default_value_t = 100)]
    limit: u64,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

/// A row of either kind, and how it is said.
trait Said: MarketRows {
    type Line: Line;
    fn line(self, market: &str, tx: Tx, n: u32) -> Self::Line;
}

#[derive(Serialize)]
struct TickLine {
    market: String,
    #[serde(flatten)]
    tick: TickSaid,
    /// Its place within the transaction.
    n: u32,
}

impl Said for Tick {
    type Line = TickLine;
    fn line(self, market: &str, tx: Tx, n: u32) -> TickLine {
        TickLine { market: market.to_owned(), tick: TickSaid::new(tx, &self), n }
    }
}

impl Line for TickLine {
    const KEYS: &'static [&'static str] = &[
        "market",
        "tx",
        "id",
        "event_time",
        "received_time",
        "price",
        "volume",
        "side",
        "trader",
        "source",
        "corrects",
        "n",
    ];
    fn cells(&self) -> Vec<String> {
        let TickSaid { tx, id, event_time, received_time, price, volume, side, trader, source, corrects } = &self.tick;
        let mut cells = vec![self.market.clone(), tx.clone()];
        cells.extend([id, event_time, received_time].map(|text| maybe(text.as_ref())));
        cells.extend([price, volume].map(f64::to_string));
        cells.push((*side).to_owned());
        cells.extend([trader, source].map(|text| maybe(text.as_ref())));
        cells.extend([corrects.to_string(), self.n.to_string()]);
        cells
    }
}

#[derive(Serialize)]
struct QuoteLine {
    market: String,
    #[serde(flatten)]
    quote: QuoteSaid,
}

impl Said for Quote {
    type Line = QuoteLine;
    fn line(self, market: &str, tx: Tx, _n: u32) -> QuoteLine {
        QuoteLine { market: market.to_owned(), quote: QuoteSaid::new(tx, &self) }
    }
}

impl Line for QuoteLine {
    const KEYS: &'static [&'static str] =
        &["market", "tx", "id", "event_time", "received_time", "bid", "bid_volume", "ask", "ask_volume", "source"];
    fn cells(&self) -> Vec<String> {
        let QuoteSaid { tx, id, event_time, received_time, bid, bid_volume, ask, ask_volume, source } = &self.quote;
        let mut cells = vec![self.market.clone(), tx.clone(), maybe(id.as_ref())];
        cells.extend([event_time.clone(), maybe(received_time.as_ref())]);
        cells.extend([bid, bid_volume, ask, ask_volume].map(f64::to_string));
        cells.push(maybe(source.as_ref()));
        cells
    }
}

/// `query`.
pub(crate) async fn run(args: QueryArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::AsOf { tx, market, quotes: false, common } => as_of::<Tick>(tx, market, common, io).await,
        Form::AsOf { tx, market, quotes: true, common } => as_of::<Quote>(tx, market, common, io).await,
        Form::Rows(args) if args.quotes => rows::<Quote>(args, io).await,
        Form::Rows(args) => rows::<Tick>(args, io).await,
    }
}

/// Rows, oldest first, a page at a time.
async fn rows<R: Said>(args: RowsArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let (from_ns, to_ns) = args.times.ns()?;
    let client = args.common.connect().await?;
    let market = args::market(&client, &args.market).await?;
    let mut at: At = args.moment.into();
    let mut lines = Vec::new();
    let since = args.since.unwrap_or(Tx::ZERO);
    let mut stretch = Some(Stretch { since, from_ns, to_ns, ..Stretch::default() });
    while let Some(next) = stretch.filter(|_| (lines.len() as u64) < args.limit) {
        let left = args.limit - lines.len() as u64;
        let next = Stretch { limit: u32::try_from(left).map_or(next.limit, |left| left.min(next.limit)), ..next };
        let page = client.rows_of::<R>(market.id, next, at).await?;
        // Every further page is of the same moment as the first.
        at = At::as_of(page.basis);
        lines.extend(page.value.rows.into_iter().map(|found| found.row.line(&market.name, found.tx, found.n)));
        stretch = page.value.next;
    }
    all(io, args.common.output, &lines)?;
    Ok(Exit::Ok)
}

/// The newest row as of a moment; exit code 1 when there was none.
async fn as_of<R: Said>(tx: Tx, market: String, common: Common, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = common.connect().await?;
    let market = args::market(&client, &market).await?;
    let Some(found) = client.newest::<R>(market.id, At::as_of(tx)).await?.value else {
        return Err(Failure::negative(format!("{} had no row as of {tx}", market.name)));
    };
    all(io, common.output, &[found.row.line(&market.name, found.tx, found.n)])?;
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
    #[command(flatten)]
    times: EventTimes,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

impl Line for Bar {
    const KEYS: &'static [&'static str] = &["start", "open", "high", "low", "close", "volume", "count", "tx"];
    fn cells(&self) -> Vec<String> {
        let numbers = [self.open, self.high, self.low, self.close, self.volume].map(|number| number.to_string());
        let mut cells = vec![self.start.clone()];
        cells.extend(numbers);
        cells.extend([self.count.to_string(), maybe(self.tx.as_ref())]);
        cells
    }
}

/// Prints bars, oldest first.
pub(crate) async fn bars(args: BarsArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let (from, to) = args.times.ns()?;
    let client = args.common.connect().await?;
    let market = args::market(&client, &args.market).await?;
    let answer = client.bars(market.id, args.width, from, to, args.moment.into()).await?;
    let line = |bar| Bar::from(bar).with_tx(answer.basis);
    all(io, args.common.output, &answer.value.iter().map(line).collect::<Vec<_>>())?;
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
    const KEYS: &'static [&'static str] = &["market", "vwap", "volume", "notional", "count", "tx"];
    fn cells(&self) -> Vec<String> {
        let (volume, notional) = (self.volume.to_string(), self.notional.to_string());
        let (count, tx) = (self.count.to_string(), maybe(self.tx.as_ref()));
        vec![self.market.clone(), maybe(self.vwap), volume, notional, count, tx]
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
    let answer = client.vwap(only, args.moment.into()).await?;
    let name = |row: &VwapRow| names.get(&row.market).cloned().unwrap_or_else(|| row.market.to_string());
    let line = |row: &VwapRow| Averaged::new(name(row), row).with_tx(answer.basis);
    let mut lines: Vec<_> = answer.value.iter().map(line).collect();
    lines.sort_by(|a, b| a.market.cmp(&b.market));
    all(io, args.common.output, &lines)?;
    Ok(Exit::Ok)
}
