//! `tail`: the log as it is written, or from any transaction on: what was stored, a line each.
//!
//! ```text
//!   --since TX | TIME | now -> history, then live without a gap -> enough (--count), or asked to end (stop.rs)
//! ```
//!
//! Lines come in the order of the log per shard, and each says its shard. Deliberately absent: one order over shards; sort
//! by `tx` where that is needed.

use crate::args::{self, Common, Names};
use crate::exit::{Exit, Failure, sends_no_more};
use crate::output::{Flow, Io, Line, maybe};
use crate::stop::Stop;
use myelin_client::datom::{EntityId, Kind, Tx};
use myelin_client::wire::{Attribute, LogKind, Logged, Named, TailEntry};
use myelin_client::{At, Client, TailNews, TailWanted};
use myelin_feed::facts;
use myelin_said::{QuoteSaid, TickSaid};
use serde::Serialize;
use serde_json::Value as Json;

/// What to read.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// From behind this transaction on (0: all there is), from a time on (2024-08-08T00:00:00Z), or from now on.
    #[arg(long, value_name = "TX|TIME|now", default_value = "now", value_parser = since)]
    since: Since,
    /// Only of this market, or of all whose name fits, as in binance-*
    #[arg(long, value_name = "NAME|PATTERN")]
    market: Option<String>,
    /// Only rows that have it (tick/id, quote/bid, market/id ..), or facts of this attribute, as in desk/limit; may be given several times.
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
    if text == "now" { Ok(Since(None)) } else { args::since(text).map(|tx| Since(Some(tx))) }
}

/// Which kinds the attributes name, and which of them are facts'.
fn wanted(attributes: &[String]) -> (Vec<LogKind>, Vec<&str>) {
    let (mut kinds, mut idents) = (Vec::new(), Vec::new());
    for name in attributes {
        let kind = LogKind::of_attribute(name);
        if kind == LogKind::Fact {
            idents.push(name.strip_prefix(':').unwrap_or(name));
        }
        kinds.push(kind);
    }
    (kinds, idents)
}

/// An entry of the log. What its kind does not have is `null`, and empty in a table.
#[derive(Default, Serialize)]
struct Entry {
    tx: String,
    n: u32,
    attribute: String,
    market: Option<String>,
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
    received_time: Option<String>,
    /// Whom a fact is about.
    entity: Option<String>,
    id: Option<String>,
    trader: Option<String>,
    source: Option<String>,
    corrects: Option<bool>,
    number: u32,
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
        "received_time",
        "entity",
        "id",
        "trader",
        "source",
        "corrects",
        "number",
        "type",
        "added",
        "shard",
        "replayed",
        "applied",
    ];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| maybe(text.as_ref());
        vec![
            self.tx.clone(),
            self.n.to_string(),
            self.attribute.clone(),
            text(&self.market),
            maybe(self.value.as_ref().map(plain)),
            maybe(self.price),
            maybe(self.volume),
            self.side.unwrap_or_default().to_owned(),
            maybe(self.bid),
            maybe(self.bid_volume),
            maybe(self.ask),
            maybe(self.ask_volume),
            text(&self.event_time),
            text(&self.received_time),
            text(&self.entity),
            text(&self.id),
            text(&self.trader),
            text(&self.source),
            maybe(self.corrects),
            self.number.to_string(),
            self.value_type.unwrap_or_default().to_owned(),
            maybe(self.added),
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
const WIDTHS: &[usize] = &[20, 4, 12, 28, 12, 12, 12, 5, 12, 12, 12, 12, 30, 30, 20];

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
    for ident in &idents {
        known(&client, ident).await?;
    }
    if let Some(since) = args.since.0 {
        begun(&client, since).await?;
    }
    let (since, entity) = (args.since.0, args.entity.map(EntityId::from_bits));
    let (kinds, attributes) = (&kinds[..], &idents[..]);
    let mut tail = client.tail(TailWanted { since, after: &[], kinds, entity, named, attributes }).await?;
    let mut names = Names::new(client.clone());
    let mut flow = Flow::new(args.common.output, WIDTHS);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut stop = Stop::listen(io)?;
    while left > 0 {
        let news = tokio::select! {
            news = tail.next() => news?,
            _ = stop.asked() => None,
        };
        match news {
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

/// **Errors:** nobody installed an attribute of this name, exit code 2: its facts would be waited for in silence.
async fn known(client: &Client, ident: &str) -> Result<(), Failure> {
    if !client.is_attribute(ident).await? {
        let message = format!(
            "no attribute '{ident}': try tick/id, quote/id, market/id, or one that `myelin transact` installed"
        );
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// **Errors:** `since` is still to come, as a read as of it says; what is stored until then would be left out.
async fn begun(client: &Client, since: Tx) -> Result<(), Failure> {
    client.count(Attribute::Market, None, At::as_of(since)).await?;
    Ok(())
}

async fn line(entry: TailEntry, names: &mut Names) -> Result<Entry, Failure> {
    let some = |id: u64| (id != 0).then(|| id.to_string());
    let line = Entry { tx: entry.tx.to_string(), n: entry.n, number: entry.number, ..Entry::default() };
    let tx = Tx::from_bits(entry.tx);
    Ok(match entry.what {
        Logged::Tick(tick) => {
            let TickSaid { tx: _, id, event_time, received_time, price, volume, side, trader, source, corrects } =
                TickSaid::new(tx, &tick);
            Entry {
                attribute: "tick/id".to_owned(),
                market: Some(names.of(tick.market.bits()).await?),
                price: Some(price),
                volume: Some(volume),
                side: Some(side),
                event_time,
                received_time,
                id,
                trader,
                source,
                corrects: Some(corrects),
                ..line
            }
        }
        Logged::Quote(quote) => {
            let QuoteSaid { tx: _, id, event_time, received_time, bid, bid_volume, ask, ask_volume, source } =
                QuoteSaid::new(tx, &quote);
            Entry {
                attribute: "quote/id".to_owned(),
                market: Some(names.of(quote.market.bits()).await?),
                bid: Some(bid),
                bid_volume: Some(bid_volume),
                ask: Some(ask),
                ask_volume: Some(ask_volume),
                event_time: Some(event_time),
                received_time,
                id,
                source,
                ..line
            }
        }
        Logged::Market { id, name, .. } => {
            names.know(id, &name);
            Entry { attribute: "market/id".to_owned(), market: Some(name), id: some(id.bits()), ..line }
        }
        Logged::Fact { datom, ident } => {
            let about = if datom.e.kind() == Some(Kind::Market) { Some(names.of(datom.e.bits()).await?) } else { None };
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
