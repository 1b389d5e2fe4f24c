//! The checkpoint of all reflexes in two parts: registrations, which change rarely, and what runs, which is small.
//!
//! ```text
//!   registrations: a file of their own    running: in the shard's state   (byte by byte in README.md)
//!
//!   registrations  magic, version | scopes | pairs | one 40-byte row per reflex, ascending
//!   running        magic, counts | markets: name, last price, last tx | pairs: their markets | windows
//! ```
//!
//! Invariants: equal state gives equal bytes, also after a restore; bands and spreads follow from the last prices;
//! restoring checks everything, never panics, and allocates in proportion to the bytes given. Quiet intervals are not
//! kept: each market's first tick settles them. Deliberately absent: a checksum (the checkpoint's files are content
//! hashed) and pending firings (`running` is written when there are none).

use super::encode::{
    DecodeError, put_f64, put_name, take, take_array, take_bool, take_f64, take_i64, take_name, take_u8, take_u32,
    take_u64,
};
use super::firing::{Kind, ReflexId};
use super::reach::{Hot, Market, Pair, Quiet, Reach};
use super::register::{Held, Home};
use super::spec::{Scope, Spec, Spread};
use super::thresholds::{Asked, Thresholds};
use super::window::{Content, Entry, Window};
use super::{Limits, Reflexes};
use imbl::OrdMap;
use myelin_datom::{EntityId, Tx};
use std::collections::VecDeque;

const REGISTRATIONS: [u8; 4] = *b"MRX1";
const RUNNING: [u8; 4] = *b"MRS1";
const ROW_BYTES: usize = 40;
const NO_MARKET: u32 = u32::MAX;

type Names = ([Box<str>; 2], bool);

/// What is registered at one [`Reflexes::version`]: it stays as it was while the reflexes change.
#[derive(Debug)]
pub struct Registrations {
    version: u64,
    /// Up to the rows.
    head: Vec<u8>,
    scope_number: Vec<u32>,
    pair_number: Vec<u32>,
    held: OrdMap<ReflexId, Held>,
}

impl Registrations {
    /// The [`Reflexes::version`] it is of.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Its part of a checkpoint. **Cost:** 40 bytes a reflex, some 60 ms for a million: nothing for a data core.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.len() + self.held.len() * ROW_BYTES);
        out.extend_from_slice(&self.head);
        for (id, held) in &self.held {
            let home = match held.home {
                Home::Reach(at) => self.scope_number[at as usize],
                Home::Pair(at) => self.pair_number[at as usize],
            };
            out.extend_from_slice(&row(*id, held, home));
        }
        out
    }
}

impl Reflexes {
    /// Both parts in one, as tests compare them. **Panics** while firings are pending.
    #[cfg(test)]
    pub fn state(&self) -> Vec<u8> {
        let registrations = self.registrations_state();
        let mut out = Vec::with_capacity(registrations.len() + 4096);
        out.extend_from_slice(&(registrations.len() as u64).to_le_bytes());
        out.extend_from_slice(&registrations);
        out.extend_from_slice(&self.running_state());
        out
    }

    /// What is registered. It changes only when [`Reflexes::version`] does. **Cost:** that of [`Reflexes::registrations`]
    /// and of writing its bytes.
    #[must_use]
    pub fn registrations_state(&self) -> Vec<u8> {
        self.registrations().bytes()
    }

    /// What is registered, for a thread that has the time to write it down. **Cost:** the scopes are written, the reflexes
    /// are shared: some nanoseconds for each scope, none for each reflex.
    #[must_use]
    pub fn registrations(&self) -> Registrations {
        let mut out = Vec::with_capacity(64 + self.by_scope.len() * 32);
        out.extend_from_slice(&REGISTRATIONS);
        out.extend_from_slice(&self.version.to_le_bytes());
        for count in [self.by_scope.len(), self.by_pair.len(), self.held.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        // Numbers by order, not by place: places depend on what was removed before, and would differ after a restore.
        let mut scope_number = vec![0_u32; self.reaches.len()];
        for (number, (scope, at)) in (0..).zip(&self.by_scope) {
            scope_number[*at as usize] = number;
            scope.encode(&mut out);
        }
        let mut pair_number = vec![0_u32; self.pairs.len()];
        for (number, ((names, signed), at)) in (0..).zip(&self.by_pair) {
            pair_number[*at as usize] = number;
            out.push(u8::from(*signed));
            names.iter().for_each(|name| put_name(&mut out, name));
        }
        Registrations { version: self.version, head: out, scope_number, pair_number, held: self.held.clone() }
    }

    /// All the rest: last prices, windows, counts. **Panics** while firings are pending.
    #[must_use]
    pub fn running_state(&self) -> Vec<u8> {
        assert!(!self.pending());
        let mut out = Vec::with_capacity(64 + self.hot.len() * 64);
        out.extend_from_slice(&RUNNING);
        for count in [self.counts.late, self.counts.corrections, self.counts.left_out] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&(self.by_name.len() as u32).to_le_bytes());
        for (ix, (market, hot)) in (0_u32..).zip(self.markets.iter().zip(&self.hot)) {
            out.extend_from_slice(&ix.to_le_bytes());
            out.extend_from_slice(&market.id.bits().to_le_bytes());
            put_f64(&mut out, hot.price);
            out.extend_from_slice(&hot.tx.bits().to_le_bytes());
            put_name(&mut out, &market.name);
        }
        for at in self.by_pair.values() {
            for ix in self.pairs[*at as usize].markets {
                out.extend_from_slice(&ix.unwrap_or(NO_MARKET).to_le_bytes());
            }
        }
        out.extend_from_slice(&(self.windows as u32).to_le_bytes());
        for (ix, market) in (0_u32..).zip(&self.markets) {
            for (id, window) in &market.windows {
                out.extend_from_slice(&ix.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
                put_window(&mut out, window);
            }
        }
        out
    }

    /// What [`Reflexes::state`] gave.
    #[cfg(test)]
    pub fn restore(limits: Limits, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = bytes;
        let length = usize::try_from(take_u64(&mut from)?).unwrap_or(usize::MAX);
        let registrations = take(&mut from, length)?;
        Self::restore_parts(limits, registrations, from)
    }

    /// What [`Reflexes::registrations_state`] and [`Reflexes::running_state`] gave at the same moment, or the first one
    /// earlier but at the same [`Reflexes::version`]. **Errors:** [`DecodeError`] for anything else; bytes of a larger state
    /// than the limits allow are refused.
    pub fn restore_parts(limits: Limits, registrations: &[u8], running: &[u8]) -> Result<Self, DecodeError> {
        let mut restored = Self::new(limits);
        let mut from = registrations;
        let pairs = restored.take_registrations(&mut from)?;
        whole(from)?;
        let mut from = running;
        restored.take_running(&mut from, &pairs)?;
        whole(from)?;
        restored.build_thresholds();
        // A pair that is used has names that were checked with its specs.
        let idle = restored.pairs.iter().any(|pair| pair.thresholds.is_empty());
        if idle { Err(DecodeError::Corrupt { what: "a pair that nobody uses" }) } else { Ok(restored) }
    }

    fn take_registrations(&mut self, from: &mut &[u8]) -> Result<Vec<Names>, DecodeError> {
        magic(from, REGISTRATIONS)?;
        self.version = take_u64(from)?;
        if self.version > u64::MAX / 2 {
            return Err(DecodeError::Corrupt { what: "a version that no registrations come to" });
        }
        let (scopes, pairs, rows) = (take_u32(from)?, take_u32(from)?, take_u32(from)? as usize);
        within("pairs of markets", pairs as usize, self.limits.pairs)?;
        within("reflexes", rows, self.limits.reflexes)?;
        for at in 0..scopes {
            let scope = Scope::decode(from)?;
            ascending(self.by_scope.last_key_value().is_none_or(|(last, _)| *last < scope))?;
            self.reaches.push(Reach::new(scope.clone()));
            self.by_scope.insert(scope, at);
        }
        let patterns = self.by_scope.keys().filter(|scope| matches!(scope, Scope::Like(_))).count();
        within("name patterns", patterns, self.limits.patterns)?;
        let mut names = Vec::new();
        for at in 0..pairs {
            let signed = take_bool(from)?;
            let pair = ([take_name(from)?, take_name(from)?], signed);
            ascending(self.by_pair.last_key_value().is_none_or(|(last, _)| *last < pair))?;
            let (markets, thresholds) = ([None, None], Thresholds::default());
            self.pairs.push(Pair { names: pair.0.clone(), signed, markets, thresholds, calm: Quiet::NONE });
            names.push(pair.clone());
            self.by_pair.insert(pair, at);
        }
        let bytes = take(from, rows.saturating_mul(ROW_BYTES))?;
        let mut held = Vec::with_capacity(rows);
        let mut last = None;
        for row in bytes.chunks_exact(ROW_BYTES) {
            let (id, one) = held_of(row, &names)?;
            ascending(last.is_none_or(|last| last < id))?;
            last = Some(id);
            if let Home::Reach(at) = one.home {
                let reach = self.reaches.get_mut(at as usize).ok_or(DecodeError::Corrupt { what: "a scope number" })?;
                reach.reflexes += 1;
                if one.spec.is_window() {
                    reach.windows.insert(id.0, (one.spec.clone(), one.registered));
                } else if one.spec == Spec::Gap {
                    reach.gaps.insert(id.0, one.registered);
                }
            }
            held.push((id, one));
        }
        let idle = self.reaches.iter().any(|reach| reach.reflexes == 0);
        if idle {
            return Err(DecodeError::Corrupt { what: "a scope that nobody uses" });
        }
        self.held = held.into_iter().collect();
        Ok(names)
    }

    fn take_running(&mut self, from: &mut &[u8], pairs: &[Names]) -> Result<(), DecodeError> {
        magic(from, RUNNING)?;
        self.counts.late = take_u64(from)?;
        self.counts.corrections = take_u64(from)?;
        self.counts.left_out = take_u64(from)?;
        for _ in 0..take_u32(from)? {
            self.take_market(from)?;
        }
        for (at, (names, _)) in (0_u32..).zip(pairs) {
            for (side, name) in names.iter().enumerate() {
                let ix = take_u32(from)?;
                if ix == NO_MARKET {
                    continue;
                }
                let market = self.markets.get_mut(ix as usize);
                let market =
                    market.filter(|m| m.name == *name).ok_or(DecodeError::Corrupt { what: "a pair's market" })?;
                market.pairs.push(at);
                within("pairs of one market", market.pairs.len(), self.limits.pairs_per_market)?;
                self.pairs[at as usize].markets[side] = Some(ix);
            }
        }
        let windows = take_u32(from)? as usize;
        within("windows", windows, self.limits.windows)?;
        for _ in 0..windows {
            self.take_window(from)?;
        }
        self.windows = windows;
        Ok(())
    }

    fn take_market(&mut self, from: &mut &[u8]) -> Result<(), DecodeError> {
        let (ix, id) = (take_u32(from)?, EntityId::from_bits(take_u64(from)?));
        let (price, tx) = (take_f64(from)?, Tx::from_bits(take_u64(from)?));
        let name = take_name(from)?;
        Scope::Market(name.clone()).check()?;
        ascending(ix as usize == self.markets.len())?;
        within("markets", self.markets.len() + 1, self.limits.markets)?;
        if !price.is_finite() || self.by_name.contains_key(&name) {
            return Err(DecodeError::Corrupt { what: "a market" });
        }
        let own = Scope::Market(name.clone());
        let shared = self.by_scope.range(Scope::Like("".into())..).filter(|(scope, _)| scope.matches(&name));
        let joined: Vec<u32> = self.by_scope.get(&own).into_iter().chain(shared.map(|(_, at)| at)).copied().collect();
        joined.iter().for_each(|at| self.reaches[*at as usize].markets.push(ix));
        self.hot.push(Hot { quiet: Quiet::NONE, price, tx });
        self.markets.push(Market { reaches: joined, ..Market::new(id, &name) });
        self.by_name.insert(name, ix);
        Ok(())
    }

    fn take_window(&mut self, from: &mut &[u8]) -> Result<(), DecodeError> {
        let (ix, id) = (take_u32(from)?, ReflexId(take_u64(from)?));
        let corrupt = DecodeError::Corrupt { what: "a window's place" };
        let market = self.markets.get_mut(ix as usize).ok_or(corrupt)?;
        let held = self.held.get(&id).ok_or(corrupt)?;
        let belongs = matches!(held.home, Home::Reach(at) if market.reaches.contains(&at));
        let mut window = Window::new(&held.spec, held.registered).filter(|_| belongs).ok_or(corrupt)?;
        take_content(from, &mut window)?;
        ascending(market.windows.last().is_none_or(|(last, _)| *last < id))?;
        market.windows.push((id, window));
        within("windows over one market", market.windows.len(), self.limits.windows_per_market)
    }

    /// All bands at once: a tree built from sorted rows, not a million inserts.
    fn build_thresholds(&mut self) {
        let mut of_reach: Vec<Vec<Asked>> = vec![Vec::new(); self.reaches.len()];
        let mut of_pair: Vec<Vec<Asked>> = vec![Vec::new(); self.pairs.len()];
        for (id, held) in &self.held {
            let Some(asked) = held.asked(*id) else { continue };
            match held.home {
                Home::Reach(at) => of_reach[at as usize].push(asked),
                Home::Pair(at) => of_pair[at as usize].push(asked),
            }
        }
        for (reach, asked) in self.reaches.iter_mut().zip(of_reach) {
            reach.thresholds = Thresholds::build(&asked);
        }
        for (pair, asked) in self.pairs.iter_mut().zip(of_pair) {
            pair.thresholds = Thresholds::build(&asked);
        }
    }
}

fn row(id: ReflexId, held: &Held, home: u32) -> [u8; ROW_BYTES] {
    let (x, y) = match &held.spec {
        Spec::Above(x) | Spec::Below(x) => (x.to_bits(), 0),
        Spec::Enters { low, high } | Spec::Leaves { low, high } => (low.to_bits(), high.to_bits()),
        Spec::Move { least, window_ns } | Spec::Volume { least, window_ns } => (least.to_bits(), *window_ns as u64),
        Spec::Spread(spread) => (spread.least.to_bits(), 0),
        Spec::Gap => (0, 0),
    };
    let mut row = [0; ROW_BYTES];
    row[..8].copy_from_slice(&id.0.to_le_bytes());
    row[8..16].copy_from_slice(&held.registered.bits().to_le_bytes());
    row[16] = held.spec.kind() as u8;
    row[20..24].copy_from_slice(&home.to_le_bytes());
    row[24..32].copy_from_slice(&x.to_le_bytes());
    row[32..40].copy_from_slice(&y.to_le_bytes());
    row
}

fn held_of(mut row: &[u8], pairs: &[Names]) -> Result<(ReflexId, Held), DecodeError> {
    let from = &mut row;
    let (id, registered) = (ReflexId(take_u64(from)?), Tx::from_bits(take_u64(from)?));
    let [kind, zeros @ ..] = take_array::<4>(from)?;
    let home = take_u32(from)?;
    let (x, y) = (take_u64(from)?, take_u64(from)?);
    let number = DecodeError::Unknown { what: "reflex kind", number: u64::from(kind) };
    let kind = Kind::from_number(kind).ok_or(number)?;
    let (a, b) = (f64::from_bits(x), f64::from_bits(y));
    let spec = match kind {
        Kind::Above => Spec::Above(a),
        Kind::Below => Spec::Below(a),
        Kind::Enters => Spec::Enters { low: a, high: b },
        Kind::Leaves => Spec::Leaves { low: a, high: b },
        Kind::Move => Spec::Move { least: a, window_ns: y as i64 },
        Kind::Volume => Spec::Volume { least: a, window_ns: y as i64 },
        Kind::Spread => {
            let pair = pairs.get(home as usize).ok_or(DecodeError::Corrupt { what: "a pair's number" })?;
            let ([a_name, b_name], signed) = pair.clone();
            Spec::Spread(Box::new(Spread { a: a_name, b: b_name, least: a, signed }))
        }
        Kind::Gap => Spec::Gap,
    };
    spec.check()?;
    let home = if kind == Kind::Spread { Home::Pair(home) } else { Home::Reach(home) };
    let held = Held { spec, registered, home };
    let unused =
        matches!(kind, Kind::Above | Kind::Below | Kind::Spread) && y != 0 || kind == Kind::Gap && (x, y) != (0, 0);
    if unused || zeros != [0; 3] {
        return Err(DecodeError::Corrupt { what: "a reserved byte" });
    }
    Ok((id, held))
}

fn put_window(out: &mut Vec<u8>, window: &Window) {
    out.push(u8::from(window.end.is_some()) | u8::from(window.holds) << 1);
    out.extend_from_slice(&window.end.unwrap_or(0).to_le_bytes());
    let mut put = |entries: &VecDeque<Entry>| {
        out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        for entry in entries {
            out.extend_from_slice(&entry.step.to_le_bytes());
            put_f64(out, entry.value);
        }
    };
    match &window.content {
        Content::Move { lowest, highest } => {
            put(lowest);
            put(highest);
        }
        Content::Volume { parts, .. } => put(parts),
    }
}

fn take_content(from: &mut &[u8], window: &mut Window) -> Result<(), DecodeError> {
    let flags = take_u8(from)?;
    let end = take_i64(from)?;
    if flags > 3 || (flags & 1 == 0 && (end != 0 || flags != 0)) {
        return Err(DecodeError::Corrupt { what: "a window's flags" });
    }
    window.end = (flags & 1 != 0).then_some(end);
    window.holds = flags & 2 != 0;
    match &mut window.content {
        Content::Move { lowest, highest } => {
            *lowest = take_entries(from)?;
            *highest = take_entries(from)?;
        }
        Content::Volume { parts, sum } => {
            *parts = take_entries(from)?;
            parts.iter().for_each(|part| sum.add(part.value));
        }
    }
    Ok(())
}

fn take_entries(from: &mut &[u8]) -> Result<VecDeque<Entry>, DecodeError> {
    let count = take_u32(from)? as usize;
    let mut bytes = take(from, count.saturating_mul(16))?;
    let mut entries = VecDeque::with_capacity(count);
    for _ in 0..count {
        let entry = Entry { step: take_i64(&mut bytes)?, value: take_f64(&mut bytes)? };
        ascending(entries.back().is_none_or(|last: &Entry| last.step <= entry.step))?;
        if !entry.value.is_finite() {
            return Err(DecodeError::Corrupt { what: "a window's number" });
        }
        entries.push_back(entry);
    }
    Ok(entries)
}

fn magic(from: &mut &[u8], expected: [u8; 4]) -> Result<(), DecodeError> {
    let found = take_array(from)?;
    let number = u64::from(u32::from_le_bytes(found));
    if found == expected { Ok(()) } else { Err(DecodeError::Unknown { what: "checkpoint format", number }) }
}

fn within(of: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found <= max { Ok(()) } else { Err(DecodeError::Full { of, max }) }
}

fn ascending(holds: bool) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::Corrupt { what: "the order of rows" }) }
}

fn whole(rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() { Ok(()) } else { Err(DecodeError::Corrupt { what: "bytes after the end" }) }
}
