//! One process's part of a run: prepare, run, check, clean up.
//!
//! ```text
//!   prepare   markets -> counts before -> lanes, connections -> bands -> subscriptions
//!   run       a thread per connection and per subscription
//!   check     replay the tape -> firings within the grace -> counts after -> remove the bands
//! ```

use crate::args::IngestArgs;
use crate::bands::{self, Band};
use crate::client::Client;
use crate::clock::{self, SECOND_NS};
use crate::drive::{Connection, Driven, GRACE_NS, histogram};
use crate::firings::{Arrivals, Subscription, compare};
use crate::host;
use crate::lane::{Lane, LaneSpec, Tally, frame_bytes};
use crate::recipe::{self, Recipe};
use crate::replay::{Replayed, replay};
use crate::report::{Partial, sparse};
use crate::schedule::Schedule;
use anyhow::{Context, Result, anyhow};
use myelin_datom::{EntityId, Slot};
use myelin_feed::Tape;
use myelin_wire::{Header, Kind};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Bytes that all connections together may have unanswered, unless told otherwise. More only waits in queues: a device
/// syncs this much in well under a millisecond.
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// Frames, likewise.
const IN_FLIGHT_MAX: usize = 1024;
/// Registrations in one frame.
const BANDS_PER_FRAME: usize = 1_000;
/// Ids in one frame that removes them.
const REMOVED_PER_FRAME: usize = 4_096;
/// From the word to the first frame, so that every thread stands ready. **Units:** nanoseconds.
const START_NS: u64 = 5_000_000;

/// A market of this process.
#[derive(Clone, Debug)]
struct Market {
    name: String,
    shard: u16,
    id: EntityId,
    before: u64,
}

/// A lane, and the bands beside its recipe's markets.
#[derive(Debug)]
struct Line {
    spec: LaneSpec,
    bands: Vec<Vec<Band>>,
}

/// Everything that is ready before the run.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    args: &'a IngestArgs,
    control: Client,
    markets: Vec<Market>,
    lines: Vec<Line>,
    connections: Vec<Client>,
    subscriptions: Vec<Subscription>,
    first_reflex: u64,
}

/// All of it in this process.
pub(crate) fn whole(args: &IngestArgs) -> Result<Partial> {
    Prepared::new(args)?.run()
}

impl<'a> Prepared<'a> {
    /// Talks to the node until only the ticks are missing.
    pub(crate) fn new(args: &'a IngestArgs) -> Result<Self> {
        let mut control = Client::connect(&args.server, &args.door)?;
        let markets = create_markets(args, &mut control)?;
        let mut prepared = Self {
            args,
            control,
            markets,
            lines: Vec::new(),
            connections: Vec::new(),
            subscriptions: Vec::new(),
            first_reflex: (clock::random() >> 33).max(1) << 32,
        };
        prepared.lay_lines()?;
        let connections = prepared.lines.len().min(args.connections as usize);
        for line in &prepared.lines[..connections] {
            prepared.connections.push(prepared.control.connect_to_shard(line.spec.shard)?);
        }
        prepared.lay_bands();
        prepared.register()?;
        prepared.subscribe()?;
        Ok(prepared)
    }

    /// A lane has markets of one shard; there are as many lanes as connections, and at least one for each shard.
    fn lay_lines(&mut self) -> Result<()> {
        let args = self.args;
        let mut shards: Vec<u16> = self.markets.iter().map(|market| market.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let count = (args.connections as usize).max(shards.len());
        let credit = match self.control.credit {
            0 => IN_FLIGHT_MAX,
            credit => credit as usize,
        };
        let frames = IN_FLIGHT_BYTES / frame_bytes(args.batch) / (args.connections * args.processes) as usize;
        let by_bytes = frames.clamp(2, IN_FLIGHT_MAX) as u32;
        let window = args.in_flight.unwrap_or(by_bytes).min(credit as u32);
        let unix_ns = clock::unix_ns();
        let step_ns = match args.rate {
            crate::args::Rate::Max => 1_000,
            crate::args::Rate::PerSecond(rate) => (SECOND_NS / rate).max(1) as u32 * count as u32,
        };
        for lane in 0..count {
            let shard = shards[lane % shards.len()];
            let (turn, turns) = (lane / shards.len(), (count - lane % shards.len()).div_ceil(shards.len()));
            let of_shard = self.markets.iter().enumerate().filter(|(_, market)| market.shard == shard);
            let markets: Vec<usize> = of_shard.map(|(at, _)| at).skip(turn).step_by(turns).collect();
            if markets.is_empty() {
                continue;
            }
            let recipe = Recipe {
                seed: args.seed ^ u64::from(args.own_part().number) << 32 ^ (lane as u64) << 48,
                start_ns: unix_ns,
                step_ns,
                shuffle: args.shuffle,
                id_base: recipe::id_base(unix_ns),
                ids: markets.iter().map(|at| self.markets[*at].id).collect(),
                markets,
            };
            let spec = LaneSpec { recipe, shard, session: clock::random() | 1, batch: args.batch, window };
            self.lines.push(Line { spec, bands: Vec::new() });
        }
        Ok(())
    }

    /// Bands go round the markets; each market's lie around its own first price.
    fn lay_bands(&mut self) {
        let total = self.args.own_part().range(self.args.bands as usize).len();
        let (each, more) = (total / self.markets.len(), total % self.markets.len());
        let mut next = self.first_reflex;
        for (lane, line) in self.lines.iter_mut().enumerate() {
            let recipe = &line.spec.recipe;
            for (price, market) in recipe.first_prices().into_iter().zip(&recipe.markets) {
                let count = each + usize::from(*market < more);
                // Any odd multiplier will do: the cuts of different markets must not lie alike.
                let random =
                    (self.args.seed + (lane * self.markets.len() + market) as u64).wrapping_mul(0x9e37_79b9) >> 7;
                line.bands.push(bands::around(price, count, self.args.fire_one_in, random, || {
                    next += 1;
                    next - 1
                }));
            }
        }
    }

    fn register(&mut self) -> Result<()> {
        for line in &self.lines {
            let named = line.bands.iter().zip(&line.spec.recipe.markets);
            let all: Vec<(&Band, &str)> = named
                .flat_map(|(bands, at)| bands.iter().map(|band| (band, self.markets[*at].name.as_str())))
                .collect();
            for some in all.chunks(BANDS_PER_FRAME) {
                let mut body = Vec::new();
                some.iter().for_each(|(band, market)| band.write(market, &mut body));
                let header = Header { shard: line.spec.shard, count: some.len() as u32, ..Header::new(Band::KIND) };
                self.control.write(header, &body).context("registering bands")?;
            }
        }
        Ok(())
    }

    fn subscribe(&mut self) -> Result<()> {
        let mut shards: Vec<u16> = self
            .lines
            .iter()
            .filter(|line| line.bands.iter().any(|bands| !bands.is_empty()))
            .map(|line| line.spec.shard)
            .collect();
        shards.sort_unstable();
        shards.dedup();
        let ours = self.first_reflex..self.first_reflex + (1 << 32);
        for shard in shards {
            self.subscriptions.push(Subscription::new(&self.control, shard, ours.clone())?);
        }
        Ok(())
    }

    /// Runs, checks, and removes the bands whatever was found.
    pub(crate) fn run(mut self) -> Result<Partial> {
        let partial = self.run_and_check();
        let removed = self.remove_bands();
        let mut partial = partial?;
        if let Err(error) = removed {
            partial.errors.push(format!("the bands could not be removed: {error:#}"));
        }
        Ok(partial)
    }

    fn run_and_check(&mut self) -> Result<Partial> {
        let args = self.args;
        let lanes = self.lines.len();
        let start_ns = clock::now_ns() + START_NS;
        let schedules: Vec<Schedule> = (0..lanes).map(|lane| Schedule::new(args, start_ns, lane, lanes)).collect();
        let connections = self.connect_lanes(&schedules)?;
        let subscriptions = std::mem::take(&mut self.subscriptions);
        let (arrivals, mut partial) = (&Arrivals::default(), Partial::default());
        let (driven, replayed) = std::thread::scope(|scope| {
            let mut listening = Vec::new();
            for subscription in subscriptions {
                listening.push(spawn(scope, "load-firings", move || {
                    clock::settle(args.realtime);
                    subscription.run(arrivals);
                }));
            }
            let done = drive(args, connections, &mut partial.cpu_ns).and_then(|driven| {
                let replayed = replay_all(&self.lines, &schedules, &tallies(&driven, lanes))?;
                let certain = replayed.iter().flat_map(|lane| &lane.firings).filter(|firing| firing.certain).count();
                arrivals.wait_for(certain, GRACE_NS);
                Ok((driven, replayed))
            });
            // Whatever happened, nobody listens any longer than this.
            arrivals.close();
            listening.into_iter().try_for_each(|one| join(one?))?;
            done
        })?;
        self.add_runs(&mut partial, &driven, &schedules[0])?;
        self.add_firings(&mut partial, &replayed, arrivals, schedules[0].measured_from_ns)?;
        if let Err(error) = self.add_counts(&mut partial, &tallies(&driven, lanes), &replayed) {
            partial.errors.push(format!("the counts could not be checked: {error:#}"));
        }
        Ok(partial)
    }

    /// Lane l belongs to connection l mod the number of connections.
    fn connect_lanes(&mut self, schedules: &[Schedule]) -> Result<Vec<Connection>> {
        let clients = std::mem::take(&mut self.connections);
        let count = clients.len();
        let connect = |(at, client): (usize, Client)| {
            let lanes = self.lines.iter().zip(schedules).skip(at).step_by(count);
            let lanes = lanes.map(|(line, schedule)| Lane::new(line.spec.clone(), *schedule)).collect();
            let credit = client.credit;
            Connection::new(client.into_parts().0, lanes, schedules[at], credit, self.args.spin_us)
        };
        clients.into_iter().enumerate().map(connect).collect()
    }

    fn add_runs(&self, partial: &mut Partial, driven: &[(String, Driven)], schedule: &Schedule) -> Result<()> {
        let batch = u64::from(self.args.batch);
        let mut ack_ns = histogram()?;
        let (measured_from_ns, end_ns) = (schedule.measured_from_ns, schedule.end_ns());
        for (class, run) in driven {
            partial.scheduling.clone_from(class);
            partial.measured += run.measured;
            let upto_ns = run.last_answer_ns.max(end_ns);
            partial.measured_ns = partial.measured_ns.max(upto_ns.saturating_sub(measured_from_ns));
            partial.errors.extend(run.error.clone());
            ack_ns.add(&run.ack_ns)?;
            for tally in &run.tallies {
                partial.scheduled += tally.scheduled * batch;
                partial.sent += tally.offered * batch;
                partial.acked += tally.rows_accepted;
                partial.duplicates += tally.rows_duplicate;
                partial.refused += tally.refused.len() as u64 * batch;
                partial.unanswered += (tally.offered - tally.answered) * batch;
                partial.busy_frames += tally.busy;
                partial.stalls += tally.stalls;
            }
        }
        partial.ack_ns = sparse(&ack_ns);
        Ok(())
    }

    fn add_firings(
        &self,
        partial: &mut Partial,
        replayed: &[Replayed],
        arrivals: &Arrivals,
        measured_from_ns: u64,
    ) -> Result<()> {
        let expected: Vec<_> = replayed.iter().flat_map(|lane| lane.firings.iter().copied()).collect();
        let compared = compare(&expected, arrivals, measured_from_ns)?;
        partial.firings_expected = compared.expected;
        partial.firings_received = compared.received;
        partial.firings_missing = compared.missing;
        partial.firings_unexpected = compared.unexpected;
        partial.firings_repeated = compared.repeated;
        partial.reflex_ns = sparse(&compared.reflex_ns);
        partial.errors.extend(compared.ended);
        Ok(())
    }

    /// An ack means applied, so the counts must be right at once: there is nothing to wait for.
    fn add_counts(&mut self, partial: &mut Partial, tallies: &[&Tally], replayed: &[Replayed]) -> Result<()> {
        for ((line, tally), replayed) in self.lines.iter().zip(tallies).zip(replayed) {
            for (n, at) in line.spec.recipe.markets.iter().enumerate() {
                let market = &self.markets[*at];
                let now = self.control.count(market.shard, market.id, tally.last_tx)?;
                let stored = now.saturating_sub(market.before);
                partial.lost_ticks += replayed.stored[n].saturating_sub(stored);
                partial.surplus_ticks += stored.saturating_sub(replayed.stored[n] + replayed.maybe[n]);
            }
        }
        Ok(())
    }

    fn remove_bands(&mut self) -> Result<()> {
        for line in &self.lines {
            let ids: Vec<u64> = line.bands.iter().flatten().map(|band| band.reflex).collect();
            for some in ids.chunks(REMOVED_PER_FRAME) {
                let header = Header { shard: line.spec.shard, count: some.len() as u32, ..Header::new(Kind::Remove) };
                self.control.write(header, bytemuck::cast_slice(some))?;
            }
        }
        Ok(())
    }
}

fn create_markets(args: &IngestArgs, control: &mut Client) -> Result<Vec<Market>> {
    let tape = Tape::new(args.seed, args.markets, 0);
    let names = &tape.names()[args.own_part().range(args.markets as usize)];
    let mut markets = Vec::with_capacity(names.len());
    for name in names {
        let shard = control.welcome.shard_of(Slot::of_name(name)).context("the slot table has a hole")?;
        markets.push(Market { name: name.clone(), shard, id: EntityId::NONE, before: 0 });
    }
    let mut shards: Vec<u16> = markets.iter().map(|market| market.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    for shard in shards {
        let of_shard: Vec<usize> = (0..markets.len()).filter(|at| markets[*at].shard == shard).collect();
        let names: Vec<&str> = of_shard.iter().map(|at| markets[*at].name.as_str()).collect();
        let ids = control.markets(shard, &names)?;
        for (at, id) in of_shard.into_iter().zip(ids) {
            markets[at].id = id;
            markets[at].before = control.count(shard, id, 0)?;
        }
    }
    Ok(markets)
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, body).context("a thread of the harness")
}

/// Every connection on a thread of its own, until all have run.
fn drive(args: &IngestArgs, connections: Vec<Connection>, cpu_ns: &mut u64) -> Result<Vec<(String, Driven)>> {
    let before_ns = clock::cpu_ns();
    let driven = std::thread::scope(|scope| {
        let sending = connections.into_iter().map(|connection| {
            let body = move || {
                clock::settle(args.realtime);
                (host::scheduling(), connection.run())
            };
            spawn(scope, "load-send", body)
        });
        sending.collect::<Vec<_>>().into_iter().map(|one| join(one?)).collect()
    });
    *cpu_ns = clock::cpu_ns() - before_ns;
    driven
}

/// Every lane's tape again, each on a thread of its own.
fn replay_all(lines: &[Line], schedules: &[Schedule], tallies: &[&Tally]) -> Result<Vec<Replayed>> {
    std::thread::scope(|scope| {
        let replaying = lines.iter().zip(schedules).zip(tallies).map(|((line, schedule), tally)| {
            let body = move || replay(&line.spec.recipe, line.spec.batch, schedule, tally, &line.bands);
            spawn(scope, "load-replay", body)
        });
        replaying.collect::<Vec<_>>().into_iter().map(|one| join(one?)).collect()
    })
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> Result<T> {
    handle.join().map_err(|_| anyhow!("a thread of the harness failed"))
}

/// In the order of the lanes: connection c has lanes c, c + n, c + 2n, ...
fn tallies(driven: &[(String, Driven)], lanes: usize) -> Vec<&Tally> {
    (0..lanes).map(|lane| &driven[lane % driven.len()].1.tallies[lane / driven.len()]).collect()
}
