//! `tail`: the log as it is written, or from any transaction on: what was stored, a line each.
//!
//! ```text
//!   --since TX | now -> history, then live without a gap -> enough (--count), or Ctrl-C
//! ```
//!
//! Lines come in the order of the log per shard, and each says its shard. Deliberately absent: one order over shards; sort
//! by `tx` where that is needed.

use crate::args::{self, Common, Names, say_instant};
use crate::exit::{Exit, Failure, sends_no_more};
use crate::output::{Flow, Io, Line};
use myelin_client::datom::{EntityId, Kind, Quote, Tick, Tx};
use myelin_client::wire::{LogKind, Logged, Named, TailEntry};
use myelin_client::{Tail, TailNews, TailWanted};
use myelin_feed::facts;
use serde::Serialize;
use serde_json::Value as Json;

/// What to read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// From behind this transaction on (0: all there is), or from now on.
    #[arg(long, value_name = "TX|now", default_value = "now", value_parser = since)]
    since: Since,
    /// Only of this market, or of all whose name fits, as in binance-*
    #[arg(long, value_name = "NAME|PATTERN")]
    market: Option<String>,
    /// Only rows of this kind (tick/id, quote/id, market/id), or facts of this attribute, as in desk/limit; may be given several times.
    #[arg(long = "attribute", value_name = "NAME")]
    attributes: Vec<String>,
    /// Only what is about this entity: a market's id, a tick's trader, an entity of facts or what points at it.
    #[arg(long, value_name = "ID")]
    entity: Option<u64>,
    /// Ends after so many lines.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since(Option<Tx>);

fn since(text: &str) -> Result<Since, String> {
    if text == "now" { Ok(Since(None)) } else { args::tx(text).map(|tx| Since(Some(tx))) }
}

/// Which kinds the attributes name, and which of them are facts'.
fn wanted(attributes: &[String]) -> (Vec<LogKind>, Vec<&str>) {
    let (mut kinds, mut idents) = (Vec::new(), Vec::new());
    for name in attributes {
        kinds.push(match name.as_str() {
            "tick/id" => LogKind::Tick,
            "quote/id" => LogKind::Quote,
            "market/id" => LogKind::Market,
            ident => {
                idents.push(ident);
                LogKind::Fact
            }
        });
    }
    (kinds, idents)
}

/// An entry of the log. What its kind does not have is `null`, and empty in a table.
#[derive(Default, Serialize)]
struct Entry {
    tx: String,
    n: u32,
    attribute: String,
    market: String,
    /// What a fact says.
    value: Option<Json>,
    price: Option<f64>,
    volume: Option<f64>,
    side: Option<&'static str>,
    bid: Option<f64>,
    bid_volume: Option<f64>,
    ask: Option<f64>,
    ask_volume: Option<f64>,
    event_time: Option<String>,
    id: Option<String>,
    trader: Option<String>,
    source: Option<String>,
    number: u32,
    /// Whom a fact is about.
    entity: Option<String>,
    #[serde(rename = "type")]
    value_type: Option<&'static str>,
    /// False where it was retracted.
    added: Option<bool>,
    shard: u16,
    replayed: bool,
    /// How far the shard was when this left it: the reader's lag.
    applied: String,
}

impl Line for Entry {
    const KEYS: &'static [&'static str] = &[
        "tx",
        "n",
        "attribute",
        "market",
        "value",
        "price",
        "volume",
        "side",
        "bid",
        "bid_volume",
        "ask",
        "ask_volume",
        "event_time",
        "entity",
        "id",
        "trader",
        "source",
        "number",
        "type",
        "added",
        "shard",
        "replayed",
        "applied",
    ];

    fn cells(&self) -> Vec<String> {
        let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.tx.clone(),
            self.n.to_string(),
            self.attribute.clone(),
            self.market.clone(),
            self.value.as_ref().map_or_else(String::new, plain),
            number(self.price),
            number(self.volume),
            self.side.unwrap_or_default().to_owned(),
            number(self.bid),
            number(self.bid_volume),
            number(self.ask),
            number(self.ask_volume),
            text(&self.event_time),
            text(&self.entity),
            text(&self.id),
            text(&self.trader),
            text(&self.source),
            self.number.to_string(),
            self.value_type.unwrap_or_default().to_owned(),
            self.added.map_or_else(String::new, |added| added.to_string()),
            self.shard.to_string(),
            self.replayed.to_string(),
            self.applied.clone(),
        ]
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Of the columns that a table has.
const WIDTHS: &[usize] = &[20, 4, 12, 28, 12, 12, 12, 5, 12, 12, 12, 12, 30, 20];

/// Reads and prints.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = args.common.connect().await?;
    let named = match &args.market {
        None => Named::Any,
        Some(pattern) if pattern.contains('*') => Named::Like(pattern),
        Some(name) => {
            // A market that does not exist would be waited for in silence.
            args::market(&client, name).await?;
            Named::Market(name)
        }
    };
    let (kinds, idents) = wanted(&args.attributes);
    let (since, entity) = (args.since.0, args.entity.map(EntityId::from_bits));
    let (kinds, attributes) = (&kinds[..], &idents[..]);
    let mut tail = client.tail(TailWanted { since, after: &[], kinds, entity, named, attributes }).await?;
    let mut names = Names::new(client.clone());
    let mut flow = Flow::new(args.common.output, WIDTHS);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        match next(&mut tail).await? {
            None => break,
            Some(TailNews::Ended { shard, why }) => return Err(sends_no_more(shard, &why)),
            Some(TailNews::Entry { shard, replayed, applied, entry }) => {
                let line =
                    Entry { shard, replayed, applied: applied.bits().to_string(), ..line(entry, &mut names).await? };
                flow.line(io, &line)?;
                left -= 1;
            }
        }
    }
    Ok(Exit::Ok)
}

/// The next news, or nothing when Ctrl-C was pressed.
async fn next(tail: &mut Tail) -> Result<Option<TailNews>, Failure> {
    tokio::select! {
        news = tail.next() => Ok(news?),
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

async fn line(entry: TailEntry, names: &mut Names) -> Result<Entry, Failure> {
    let some = |id: u64| (id != 0).then(|| id.to_string());
    let line = Entry { tx: entry.tx.to_string(), n: entry.n, number: entry.number, ..Entry::default() };
    Ok(match entry.what {
        Logged::Tick(Tick { market, id, event_time_ns, price, volume, trader, side, source, .. }) => Entry {
            attribute: "tick/id".to_owned(),
            market: names.of(market.bits()).await?,
            price: Some(price),
            volume: Some(volume),
            side: Some(["unknown", "buy", "sell"].get(usize::from(side)).copied().unwrap_or_default()),
            event_time: Some(say_instant(event_time_ns)),
            id: some(id),
            trader: some(trader.bits()),
            source: some(u64::from(source)),
            ..line
        },
        Logged::Quote(Quote { market, id, event_time_ns, bid, bid_volume, ask, ask_volume, source, .. }) => Entry {
            attribute: "quote/id".to_owned(),
            market: names.of(market.bits()).await?,
            bid: Some(bid),
            bid_volume: Some(bid_volume),
            ask: Some(ask),
            ask_volume: Some(ask_volume),
            event_time: Some(say_instant(event_time_ns)),
            id: some(id),
            source: some(u64::from(source)),
            ..line
        },
        Logged::Market { id, name, .. } => {
            names.know(id, &name);
            Entry { attribute: "market/id".to_owned(), market: name, id: some(id.bits()), ..line }
        }
        Logged::Fact { datom, ident } => {
            let about =
                if datom.e.kind() == Some(Kind::Market) { names.of(datom.e.bits()).await? } else { String::new() };
            Entry {
                attribute: if ident.is_empty() { datom.a.to_string() } else { ident },
                market: about,
                entity: some(datom.e.bits()),
                value: Some(facts::say(&datom.v)),
                value_type: Some(datom.v.value_type().name()),
                added: Some(datom.added),
                ..line
            }
        }
        Logged::Other(_) => Entry { attribute: "unknown".to_owned(), ..line },
    })
}
