//! `ingest FILE`: a file's rows become facts; again, and they are duplicates.
//!
//! ```text
//!   reader (a blocking thread) --batches--> markets resolved -> send, pipelined -> outcomes in order -> summary
//!      bounded by two queues: batches read ahead, frames under way
//! ```
//!
//! Rows go with `Partial`, so that one bad row costs one row; the first refusals are named on stderr. However it ends, at a
//! bad line or on Ctrl-C too, the summary says what is stored; a second Ctrl-C does not wait for what is under way. Deliberately absent:
//! retries; they are the client's.

use crate::args::Common;
use crate::exit::{Exit, Failure, of_refusal};
use crate::output::{Io, Line, one};
use crate::pace::{Pace, Speed};
use crate::progress::Bar;
use crate::stop::{Stop, Why};
use myelin_client::datom::{EntityId, Tx};
use myelin_client::wire::{Code, MarketFlags, MarketSpec};
use myelin_client::{At, Client, Error, Mode, Outcome, Part, Sent};
use myelin_feed::{Batch, ColumnMap, FeedError, Format, OnBadRow, Options, Progress, Reader, RowKind};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What to read, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file, plain, gz or zst; - is stdin.
    file: PathBuf,
    /// How it is written: auto, binance-trades, binance-quotes, prediction-markets, csv or ndjson.
    #[arg(long, default_value = "auto")]
    format: Format,
    /// Which column is what, as in price=px,volume=qty,market==NAME,id=trade,event_time=ts:ms
    #[arg(long, value_name = "MAP")]
    map: Option<ColumnMap>,
    /// What stands between columns: "," ";" tab pipe
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Passes over lines that cannot be read, and counts them.
    #[arg(long)]
    skip_bad_lines: bool,
    /// NDJSON only: its rows are quotes.
    #[arg(long)]
    quotes: bool,
    /// Creates the markets that do not exist.
    #[arg(long)]
    create_markets: bool,
    /// max, or 1x, 10x ..: replays by received time.
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Rows in one request at most.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    batch: u32,
    #[command(flatten)]
    common: Common,
}

fn delimiter(text: &str) -> Result<u8, String> {
    myelin_feed::parse_delimiter(text).map_err(|error| error.to_string())
}

/// What came of it. Scripts depend on these keys.
#[derive(Debug, Default, Serialize)]
struct Summary {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    seconds: f64,
    last_tx: String,
}

impl Line for Summary {
    const KEYS: &'static [&'static str] = &["accepted", "duplicates", "refused", "seconds", "last_tx"];
    fn cells(&self) -> Vec<String> {
        let mut cells: Vec<_> = [self.accepted, self.duplicates, self.refused].map(|number| number.to_string()).into();
        cells.push(format!("{:.3}", self.seconds));
        cells.push(self.last_tx.clone());
        cells
    }
}

/// Batches read ahead of the node.
const READ_AHEAD: usize = 8;
/// Batches under way.
const UNDER_WAY: usize = 64;
/// Refusals that are named one by one.
const NAMED: u64 = 10;

/// Sends the file. Exit code 1 when rows were refused.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let mut options = Options { format: args.format, map: args.map.clone(), ..Options::default() };
    options.delimiter = args.delimiter.unwrap_or(options.delimiter);
    options.on_bad_row = if args.skip_bad_lines { OnBadRow::Skip } else { OnBadRow::Stop };
    options.kind = args.quotes.then_some(RowKind::Quotes);
    let reader = Reader::open(&args.file, &options)?;
    let client = args.common.connect().await?;
    let bar = Bar::new(io.err_is_terminal, reader.progress().bytes_total);
    let mut batches = read_ahead(reader, args.batch as usize);
    let mut stop = Stop::signals()?;
    let (tell, asked) = watch::channel(None);
    let mut ingest = Ingest::new(client, args.create_markets, args.speed, asked);
    let ended = {
        let feeding = ingest.feed(&mut batches, &bar, io);
        tokio::pin!(feeding);
        loop {
            tokio::select! {
                ended = &mut feeding => break ended,
                why = stop.asked() => {
                    // Once: what was sent is waited for, so that the summary is true.
                    if tell.send_replace(Some(why)).is_some() {
                        let message = "asked to end at once: what came of the rows under way is not known".to_owned();
                        break Err(Failure::Said { exit: why.into(), message });
                    }
                }
            }
        }
    };
    drop(bar);
    // What was stored is told, however it ended.
    let told = ingest.close(&args.common, io);
    ended?;
    told
}

/// What the reading thread says.
enum Read {
    Batch(Numbered),
    Note(String),
    Failed(FeedError),
}

/// Rows, the names they brought with them, and how far the file is read.
struct Numbered {
    batch: Batch,
    names: Vec<String>,
    progress: Progress,
}

/// Reads on a blocking thread, a bounded number of batches ahead.
fn read_ahead(mut reader: Reader, rows: usize) -> mpsc::Receiver<Read> {
    let (to, from) = mpsc::channel(READ_AHEAD);
    drop(tokio::task::spawn_blocking(move || {
        let mut named = 0;
        loop {
            let mut batch = Batch::with_capacity(rows);
            let read = reader.next_batch(rows, &mut batch);
            let names = reader.names().get(named..).unwrap_or_default().to_vec();
            named += names.len();
            let end = matches!(read, Ok(0) | Err(_));
            let full = Numbered { batch, names, progress: reader.progress() };
            // Nobody listens any more: the other end has its reason.
            if (!full.batch.is_empty() && to.blocking_send(Read::Batch(full)).is_err()) || end {
                if let Err(error) = read {
                    drop(to.blocking_send(Read::Failed(error)));
                } else if let Some(note) = note(&reader) {
                    drop(to.blocking_send(Read::Note(note)));
                }
                return;
            }
        }
    }));
    from
}

/// What people should know about the file at its end.
fn note(reader: &Reader) -> Option<String> {
    let skipped = reader.skipped();
    let first = skipped.first.first().map(|bad| format!("{} lines passed over, the first: {bad}", skipped.count));
    let notes: Vec<String> = first.into_iter().chain(reader.note().map(str::to_owned)).collect();
    (!notes.is_empty()).then(|| notes.join("\nnote: "))
}

/// One run.
struct Ingest {
    client: Client,
    create: bool,
    pace: Pace,
    start: Instant,
    /// By the file's number of a name.
    ids: Vec<EntityId>,
    /// The node's markets by name, when none are created.
    known: Option<HashMap<String, EntityId>>,
    under_way: VecDeque<Sent>,
    summary: Summary,
    last_tx: Tx,
    named: u64,
    /// It is time to end.
    asked: watch::Receiver<Option<Why>>,
}

impl Ingest {
    fn new(client: Client, create: bool, speed: Speed, asked: watch::Receiver<Option<Why>>) -> Self {
        Self {
            client,
            create,
            pace: Pace::new(speed),
            start: Instant::now(),
            ids: Vec::new(),
            known: None,
            under_way: VecDeque::new(),
            summary: Summary::default(),
            last_tx: Tx::ZERO,
            named: 0,
            asked,
        }
    }

    /// Sends what is read, until its end or until asked to end, and waits for what comes of it.
    async fn feed(&mut self, batches: &mut mpsc::Receiver<Read>, bar: &Bar, io: &mut Io<'_>) -> Result<(), Failure> {
        let mut fed = Ok(());
        while fed.is_ok() && !self.is_asked() {
            let read = tokio::select! {
                read = batches.recv() => read,
                _ = self.asked.changed() => continue,
            };
            fed = match read {
                None => break,
                Some(Read::Batch(batch)) => self.send(batch, bar, io).await,
                Some(Read::Failed(error)) => Err(error.into()),
                Some(Read::Note(note)) => io.say(&format!("note: {note}")).map_err(Failure::from),
            };
        }
        // What is under way is awaited in any case.
        let settled = self.settle(0, io).await;
        fed.and(settled)
    }

    /// True when a signal asked for the end.
    fn is_asked(&self) -> bool {
        self.asked.borrow().is_some()
    }

    async fn send(&mut self, read: Numbered, bar: &Bar, io: &mut Io<'_>) -> Result<(), Failure> {
        let Numbered { mut batch, names, progress } = read;
        self.resolve(&names).await?;
        if let Err(unknown) = batch.resolve(&self.ids) {
            return Err(Failure::Said {
                exit: Exit::Integrity,
                message: format!("market number {unknown} has no name"),
            });
        }
        let mut from = 0;
        while from < batch.len() && !self.is_asked() {
            let (due, next) =
                self.pace.due(batch.received_time_ns.get(from..).unwrap_or_default(), self.start.elapsed());
            if due == 0 {
                // Acks are taken while there is nothing to send.
                tokio::time::sleep_until((self.start + next).min(Instant::now() + Duration::from_millis(50))).await;
                continue;
            }
            let rows = from..from + due;
            from = rows.end;
            let sent = if batch.ticks.is_empty() {
                self.client.send_quotes(&batch.quotes[rows], Mode::Partial).await?
            } else {
                self.client.send_ticks(&batch.ticks[rows], Mode::Partial).await?
            };
            self.under_way.push_back(sent);
            self.settle(UNDER_WAY, io).await?;
        }
        bar.at(&progress, self.start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Gives new names their ids. **Errors:** one does not exist and none are to be created.
    async fn resolve(&mut self, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        if self.create {
            let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }).collect();
            self.ids.extend(self.client.markets(&specs).await?);
            return Ok(());
        }
        if self.known.is_none() {
            let markets = self.client.list_markets(At::NOW).await?;
            self.known = Some(markets.into_iter().map(|market| (market.name, market.id)).collect());
        }
        for name in names {
            let id = self.known.as_ref().and_then(|known| known.get(name)).ok_or_else(|| {
                Failure::negative(format!(
                    "there is no market '{name}': add --create-markets, or `myelin market add {name}`"
                ))
            })?;
            self.ids.push(*id);
        }
        Ok(())
    }

    /// Waits for outcomes until at most `left` batches are under way.
    async fn settle(&mut self, left: usize, io: &mut Io<'_>) -> Result<(), Failure> {
        while self.under_way.len() > left {
            let Some(sent) = self.under_way.pop_front() else { break };
            for part in sent.wait().await {
                self.count(part, io)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, part: Part, io: &mut Io<'_>) -> Result<(), Failure> {
        match part.outcome {
            Outcome::Done(ack) => {
                self.summary.accepted += u64::from(ack.accepted);
                self.summary.duplicates += u64::from(ack.duplicates);
                self.summary.refused += u64::from(ack.refused);
                self.last_tx = self.last_tx.max(ack.tx);
                if let Some((_, number)) = ack.first_bad {
                    let code = Code::from_number(number);
                    let meaning = code.map_or("", Code::explanation).trim();
                    let name = code.map_or_else(|| number.to_string(), |code| code.name().to_owned());
                    self.name_refusal(&format!("{} rows refused, the first: {name}: {meaning}", ack.refused), io)?;
                }
                Ok(())
            }
            Outcome::Refused(refusal) if of_refusal(&refusal) == Exit::Negative => {
                self.summary.refused += u64::from(part.rows);
                self.name_refusal(&format!("{} rows refused: {refusal}", part.rows), io)
            }
            Outcome::Refused(refusal) => Err(Error::Refused(refusal).into()),
            Outcome::Unknown(lost) => Err(Error::Unknown(lost).into()),
            Outcome::NotSent(reason) => Err(Error::Unreachable { addr: "the node".to_owned(), reason }.into()),
        }
    }

    fn name_refusal(&mut self, words: &str, io: &mut Io<'_>) -> Result<(), Failure> {
        self.named += 1;
        match self.named {
            ..=NAMED => io.say(words)?,
            // The sum stands in the summary.
            _ if self.named == NAMED + 1 => io.say("further refusals are counted and not named")?,
            _ => {}
        }
        Ok(())
    }

    fn close(mut self, common: &Common, io: &mut Io<'_>) -> Result<Exit, Failure> {
        self.summary.seconds = (self.start.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        self.summary.last_tx = self.last_tx.to_string();
        one(io, common.output, &self.summary)?;
        Ok(match *self.asked.borrow() {
            Some(why) => why.into(),
            None if self.summary.refused == 0 => Exit::Ok,
            None => Exit::Negative,
        })
    }
}
