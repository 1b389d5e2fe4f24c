//! The reflexes against an evaluator that knows no tables: every reflex is asked at every tick, by definition.
//!
//! A script of registrations, removals, new markets, ticks, gaps, expansions, restarts runs through both; the firings
//! must be equal, in order, and every reflex replayed alone must give its part of them. Prices, levels and volumes are
//! small multiples of a quarter, so that levels are met exactly and plain sums are exact.

use super::*;
use myelin_datom::{Slot, Tick, flags};
use proptest::prelude::*;

mod bounds;
mod past;

/// Any spec that passes its check.
pub(super) fn specs() -> impl Strategy<Value = Spec> {
    let number = any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(|x| x + 0.0);
    let positive = prop_oneof![any::<f64>(), (1u32..5000).prop_map(|n| f64::from(n) / 1000.0)]
        .prop_map(f64::abs)
        .prop_filter("above 0", |x| x.is_finite() && *x > 0.0);
    let window = prop_oneof![1..=WINDOW_NS_MAX, (1i64..9000).prop_map(|ms| ms * 1_000_000)];
    let name = "[a-zA-Z0-9:{}-]{1,20}";
    let range = (number.clone(), number.clone()).prop_map(|(a, b)| if a <= b { (a, b) } else { (b, a) });
    prop_oneof![
        number.clone().prop_map(Spec::Above),
        number.clone().prop_map(Spec::Below),
        range.clone().prop_map(|(low, high)| Spec::Enters { low, high }),
        range.prop_map(|(low, high)| Spec::Leaves { low, high }),
        (positive.clone(), window.clone()).prop_map(|(least, window_ns)| Spec::Move { least, window_ns }),
        (positive.clone(), window).prop_map(|(least, window_ns)| Spec::Volume { least, window_ns }),
        (name, name, positive.clone(), any::<bool>())
            .prop_filter("two markets", |(a, b, ..)| a != b)
            .prop_map(|(a, b, least, signed)| spread(&a, &b, least, signed)),
        Just(Spec::Gap),
    ]
}

/// Any scope that passes its check.
pub(super) fn scopes() -> impl Strategy<Value = Scope> {
    prop_oneof![
        "[^\\s\\p{C}*]{1,40}".prop_map(|name| Scope::Market(name.into())),
        "[a-z*:-]{1,40}".prop_map(|pattern| Scope::Like(pattern.into())),
        Just(Scope::All),
    ]
}

fn spread(a: &str, b: &str, least: f64, signed: bool) -> Spec {
    Spec::Spread(Box::new(Spread { a: a.into(), b: b.into(), least, signed }))
}

pub(super) const NAMES: [&str; 4] = ["m0", "m1", "n0", "n1"];

#[derive(Clone, Debug)]
enum Op {
    Register(u64, Spec, Scope),
    Remove(u64),
    /// Market, price, volume, milliseconds of event time to go on or back, is it a correction, does it open a `tx`.
    Tick(usize, f64, f64, i64, bool, bool),
    Gap(usize, u64),
    Expand(usize),
    Restart,
}

fn questions() -> impl Strategy<Value = (Spec, Scope)> {
    let quarter = |range: std::ops::Range<i32>| range.prop_map(|n| f64::from(n) * 0.25);
    let level = quarter(0..16);
    let range = (level.clone(), quarter(0..6)).prop_map(|(low, width)| (low, low + width));
    let window = prop::sample::select(vec![1_000_000_i64, 5_000_000, 7_777_777, 20_000_000, 4_096_000_000]);
    let moved = prop::sample::select(vec![0.1, 0.25, 0.5, 1.0]);
    let of_scope = prop_oneof![
        3 => prop::sample::select(&NAMES[..]).prop_map(|name| Scope::Market(name.into())),
        1 => prop::sample::select(vec!["m*", "*1", "x*"]).prop_map(|pattern| Scope::Like(pattern.into())),
        1 => Just(Scope::All),
    ];
    let single = prop_oneof![
        level.clone().prop_map(Spec::Above),
        level.clone().prop_map(Spec::Below),
        range.clone().prop_map(|(low, high)| Spec::Enters { low, high }),
        range.prop_map(|(low, high)| Spec::Leaves { low, high }),
        (moved, window.clone()).prop_map(|(least, window_ns)| Spec::Move { least, window_ns }),
        (quarter(1..40), window).prop_map(|(least, window_ns)| Spec::Volume { least, window_ns }),
        Just(Spec::Gap),
    ];
    let two = (0..4usize, 1..4usize, quarter(1..8), any::<bool>())
        .prop_map(|(a, by, least, signed)| (spread(NAMES[a], NAMES[(a + by) % 4], least, signed), Scope::All));
    prop_oneof![6 => (single, of_scope), 1 => two]
}

fn ops(removals: bool) -> impl Strategy<Value = Vec<Op>> {
    let price = (0..16i32).prop_map(|n| f64::from(n) * 0.25);
    let volume = (0..8i32).prop_map(|n| f64::from(n) * 0.25);
    let step = prop_oneof![3 => 0..3i64, 1 => -2..30i64, 1 => Just(900)];
    let tick = (0..4usize, price, volume, step, prop::bool::weighted(0.05), any::<bool>())
        .prop_map(|(m, p, v, s, c, t)| Op::Tick(m, p, v, s, c, t));
    let ids = if removals { 0..30u64 } else { 0..80 };
    prop::collection::vec(
        prop_oneof![
            12 => tick,
            6 => (ids.clone(), questions()).prop_map(|(id, (spec, scope))| Op::Register(id, spec, scope)),
            u32::from(removals) => ids.prop_map(Op::Remove),
            1 => (0..4usize, 0..5u64).prop_map(|(m, first)| Op::Gap(m, first)),
            1 => (0..6usize).prop_map(Op::Expand),
            u32::from(removals) => Just(Op::Restart),
        ],
        1..220,
    )
}

pub(super) fn id_of(market: usize) -> EntityId {
    EntityId::market(Slot::of_name(NAMES[market]), market as u32)
}

pub(super) fn tick(market: usize, price: f64, volume: f64, event_time_ns: i64) -> Tick {
    let zero: Tick = bytemuck::Zeroable::zeroed();
    Tick { market: id_of(market), id: 1, price, volume, event_time_ns, ..zero }
}

/// One reflex by definition; nothing is cached but what the definition speaks of.
#[derive(Clone)]
struct Naive {
    of: Registration,
    held: BTreeMap<usize, bool>,
    seen: BTreeMap<usize, f64>,
    rows: BTreeMap<usize, Vec<Tick>>,
}

impl Naive {
    fn tick(&mut self, latest: &BTreeMap<usize, f64>, tx: Tx, n: u32, m: usize, tick: &Tick) -> Option<Firing> {
        let whole = if let Spec::Spread(s) = &self.of.spec { *s.a == *NAMES[m] || *s.b == *NAMES[m] } else { false };
        if tx <= self.of.registered_at || !(whole || self.of.scope.matches(NAMES[m])) {
            return None;
        }
        let before = self.seen.insert(m, tick.price).unwrap_or(f64::NAN);
        let (p, key) = (tick.price, if whole { 99 } else { m });
        let (holds, values) = match &self.of.spec.clone() {
            Spec::Above(x) => (p > *x, [p, before]),
            Spec::Below(x) => (p < *x, [p, before]),
            Spec::Enters { low, high } => (*low <= p && p <= *high, [p, before]),
            Spec::Leaves { low, high } => (p < *low || *high < p, [p, before]),
            Spec::Move { least, window_ns } => {
                let rows = self.window(m, *window_ns, tick)?;
                let low = rows.iter().map(|t| t.price).fold(f64::INFINITY, f64::min);
                let high = rows.iter().map(|t| t.price).fold(f64::NEG_INFINITY, f64::max);
                let rise = if p == low { 0.0 } else { (p - low) / low };
                let fall = if p == high { 0.0 } else { (high - p) / high };
                let values = if fall > rise { [fall, high] } else { [rise, low] };
                (values[0] >= *least, values)
            }
            Spec::Volume { least, window_ns } => {
                let sum: f64 = self.window(m, *window_ns, tick)?.iter().map(|t| t.volume).sum();
                (sum + 0.0 >= *least, [sum + 0.0, p])
            }
            Spec::Spread(s) if whole => {
                let (a, b) = (NAMES.iter().position(|n| **n == *s.a)?, NAMES.iter().position(|n| **n == *s.b)?);
                let other = *latest.get(if a == m { &b } else { &a })?;
                let (a, b) = if a == m { (p, other) } else { (other, p) };
                let apart = if s.signed { a - b } else { (a - b).abs() };
                (apart >= s.least, [apart, other])
            }
            Spec::Spread(_) | Spec::Gap => return None,
        };
        let held = self.held.insert(key, holds).unwrap_or(false);
        (holds && !held).then(|| self.firing(tx, n, m, values.map(f64::to_bits)))
    }

    /// All rows of the window that ends with this tick; `None` when it is late.
    fn window(&mut self, m: usize, window_ns: i64, tick: &Tick) -> Option<Vec<Tick>> {
        let rows = self.rows.entry(m).or_default();
        if rows.last().is_some_and(|last| tick.event_time_ns < last.event_time_ns) {
            return None;
        }
        rows.push(*tick);
        let step = step_ns(window_ns);
        let steps = (window_ns as u64).div_ceil(step as u64) as i64;
        let last = tick.event_time_ns.div_euclid(step);
        Some(rows.iter().filter(|t| t.event_time_ns.div_euclid(step) > last - steps).copied().collect())
    }

    fn gap(&self, tx: Tx, n: u32, m: usize, values: [u64; 2]) -> Option<Firing> {
        let sees = self.of.spec == Spec::Gap && tx > self.of.registered_at && self.of.scope.matches(NAMES[m]);
        sees.then(|| self.firing(tx, n, m, values))
    }

    fn firing(&self, tx: Tx, n: u32, m: usize, values: [u64; 2]) -> Firing {
        Firing { reflex: self.of.id, market: id_of(m), tx, n, kind: self.of.spec.kind(), values }
    }
}

#[derive(Clone, Copy)]
enum Happened {
    Tick(Tick),
    Gap(u64, u64),
}

/// What a script did: the firings of both evaluators, what happened where, and what stands at its end.
#[derive(Default)]
struct Run {
    live: Vec<Firing>,
    naive: Vec<Firing>,
    history: Vec<(Tx, u32, usize, Happened)>,
    registered: Vec<Registration>,
    reflexes: Reflexes,
    /// The market of each index.
    numbers: Vec<usize>,
}

pub(super) fn drain(reflexes: &mut Reflexes, budget: usize, out: &mut Vec<Firing>) {
    while reflexes.pending() {
        let before = out.len();
        assert_eq!(reflexes.next_firings(budget, out), out.len() - before);
        assert!(out.len() - before <= budget);
    }
}

fn run(ops: &[Op]) -> Run {
    let mut reflexes = Reflexes::default();
    let mut naive: BTreeMap<u64, Naive> = BTreeMap::new();
    let mut latest = BTreeMap::new();
    let (mut tx, mut n, mut now) = (Tx::at_millis(1), 0, 1_000_000_000);
    let mut numbers: Vec<usize> = Vec::new();
    let mut run = Run::default();
    let mut appear = |reflexes: &mut Reflexes, live: &mut Vec<Firing>, m: usize| {
        let at = numbers.iter().position(|known| *known == m).unwrap_or_else(|| {
            drain(reflexes, 3, live);
            assert_eq!(reflexes.add_market(MarketIx(numbers.len() as u32), id_of(m), NAMES[m]), 0);
            numbers.push(m);
            numbers.len() - 1
        });
        MarketIx(at as u32)
    };
    for op in ops {
        match op {
            Op::Register(id, spec, scope) => {
                drain(&mut reflexes, 2, &mut run.live);
                tx = tx.next();
                let of =
                    Registration { id: ReflexId(*id), spec: spec.clone(), scope: scope.clone(), registered_at: tx };
                let result = reflexes.register(of.id, of.spec.clone(), of.scope.clone(), tx);
                if let Some(old) = naive.get(id) {
                    let same = old.of.spec == *spec && old.of.scope == *scope;
                    assert_eq!(result, if same { Ok(()) } else { Err(RegisterError::IdTaken(of.id)) });
                } else {
                    assert_eq!(result, Ok(()));
                    run.registered.push(of.clone());
                    let empty = Naive { of, held: BTreeMap::new(), seen: BTreeMap::new(), rows: BTreeMap::new() };
                    naive.insert(*id, empty);
                }
            }
            Op::Remove(id) => {
                drain(&mut reflexes, 2, &mut run.live);
                assert_eq!(reflexes.remove(ReflexId(*id)), naive.remove(id).is_some());
            }
            Op::Tick(m, price, volume, ms, correction, opens) => {
                let ix = appear(&mut reflexes, &mut run.live, *m);
                (tx, n) = if *opens { (tx.next(), 0) } else { (tx, n + 1) };
                now += ms * 1_000_000;
                let mut tick = tick(*m, *price, *volume, now);
                tick.flags = if *correction { flags::CORRECTION } else { 0 };
                reflexes.react(tx, n, ix, &tick);
                run.history.push((tx, n, *m, Happened::Tick(tick)));
                if !correction {
                    run.naive.extend(naive.values_mut().filter_map(|one| one.tick(&latest, tx, n, *m, &tick)));
                    latest.insert(*m, *price);
                }
            }
            Op::Gap(m, first) => {
                let ix = appear(&mut reflexes, &mut run.live, *m);
                (tx, n) = (tx.next(), 0);
                reflexes.gap(tx, n, ix, *first, first + 3);
                run.history.push((tx, n, *m, Happened::Gap(*first, first + 3)));
                run.naive.extend(naive.values().filter_map(|one| one.gap(tx, n, *m, [*first, first + 3])));
            }
            Op::Expand(budget) => {
                reflexes.next_firings(*budget, &mut run.live);
            }
            Op::Restart => {
                drain(&mut reflexes, 4, &mut run.live);
                let state = reflexes.state();
                reflexes = Reflexes::restore(Limits::default(), &state).unwrap();
                assert_eq!(reflexes.state(), state);
            }
        }
        let held: Vec<_> = reflexes.list(None).collect();
        assert!(held.iter().eq(naive.values().map(|one| &one.of)));
    }
    drain(&mut reflexes, 1, &mut run.live);
    (run.reflexes, run.numbers) = (reflexes, numbers);
    run
}

fn replay_of(of: &Registration) -> Replay {
    let market = |name: &str| id_of(NAMES.iter().position(|n| *n == name).unwrap());
    match &of.spec {
        Spec::Spread(s) => Replay::spread(of.id, (**s).clone(), of.registered_at, market(&s.a), market(&s.b)).unwrap(),
        spec => Replay::new(of.id, spec.clone(), of.registered_at).unwrap(),
    }
}

/// Shows what the header of `replay.rs` says must be shown of the history before the start.
fn prime(replay: &mut Replay, of: &Registration, before: &[(Tx, u32, usize, Happened)]) {
    for m in 0..NAMES.len() {
        let ticks: Vec<(Tx, Tick)> = before
            .iter()
            .filter_map(|(tx, _, of, what)| match what {
                Happened::Tick(tick) if *of == m && tick.flags == 0 => Some((*tx, *tick)),
                _ => None,
            })
            .collect();
        if let Spec::Move { window_ns, .. } | Spec::Volume { window_ns, .. } = of.spec {
            let after: Vec<_> = ticks.iter().filter(|(tx, _)| *tx > of.registered_at).collect();
            let Some(greatest) = after.iter().map(|(_, t)| t.event_time_ns).max() else { continue };
            let from = greatest - window_ns - step_ns(window_ns);
            after.iter().filter(|(_, t)| t.event_time_ns >= from).for_each(|(tx, t)| replay.prime(*tx, t));
        } else {
            ticks.last().iter().for_each(|(tx, t)| replay.prime(*tx, t));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn live_firings_are_those_of_the_definition(ops in ops(true)) {
        let run = run(&ops);
        prop_assert_eq!(run.live, run.naive);
    }

    #[test]
    fn reflexes_asked_together_about_the_past_give_their_live_firings(
        ops in ops(true),
        start in any::<prop::sample::Index>(),
        budget in 1..6usize,
    ) {
        let run = run(&ops);
        let start = start.index(run.history.len() + 1);
        let (mut pasts, mut untold, mut fired) = (Pasts::default(), Untold::default(), Vec::new());
        for (at, (tx, n, m, what)) in run.history.iter().enumerate() {
            let ix = MarketIx(run.numbers.iter().position(|known| known == m).unwrap() as u32);
            match what {
                Happened::Tick(tick) if at < start => pasts.prime(*tx, ix, tick),
                Happened::Tick(tick) => {
                    run.reflexes.react_past(&mut pasts, &mut untold, (*tx, *n), ix, tick);
                }
                Happened::Gap(first, last) if at >= start => {
                    run.reflexes.gap_past(&mut untold, (*tx, *n), ix, (*first, *last));
                }
                Happened::Gap(..) => {}
            }
            while untold.pending() {
                run.reflexes.next_past_firings(&mut untold, budget, &mut fired);
            }
        }
        // Who has gone is not told any more; who came back under an old id is told as the new one.
        let from = run.history.get(start).map_or((Tx::MAX, 0), |(tx, n, ..)| (*tx, *n));
        let stands = |f: &&Firing| run.reflexes.get(f.reflex).is_some_and(|of| !of.spec.is_window() && of.registered_at < f.tx);
        let live: Vec<Firing> = run.live.iter().filter(|f| (f.tx, f.n) >= from).filter(stands).copied().collect();
        prop_assert_eq!(live, fired);
    }

    #[test]
    fn a_reflex_replayed_alone_gives_its_live_firings(ops in ops(false), start in any::<prop::sample::Index>()) {
        let run = run(&ops);
        let middle = start.index(run.history.len() + 1);
        for of in &run.registered {
            for start in [0, middle] {
                let mut replay = replay_of(of);
                prime(&mut replay, of, &run.history[..start]);
                let mut fired = Vec::new();
                for (tx, n, m, what) in &run.history[start..] {
                    if of.scope.matches(NAMES[*m]) {
                        fired.extend(match what {
                            Happened::Tick(tick) => replay.react(*tx, *n, tick),
                            Happened::Gap(first, last) => replay.gap(*tx, *n, id_of(*m), *first, *last),
                        });
                    }
                }
                let from = run.history.get(start).map_or((Tx::MAX, 0), |(tx, n, ..)| (*tx, *n));
                let live: Vec<Firing> =
                    run.live.iter().filter(|f| f.reflex == of.id && (f.tx, f.n) >= from).copied().collect();
                prop_assert_eq!(live, fired, "{} from {}", of.spec, start);
            }
        }
    }
}
