//! What is large, what is full, what is corrupt, and the corners of the definition, one fact each.

use super::*;

const TEN_SECONDS: i64 = 10_000_000_000;

fn market() -> Scope {
    Scope::Market(NAMES[0].into())
}

fn with_markets(limits: Limits) -> Reflexes {
    let mut reflexes = Reflexes::new(limits);
    for (m, name) in NAMES.iter().enumerate().take(2) {
        assert_eq!(reflexes.add_market(MarketIx(m as u32), id_of(m), name), 0);
    }
    reflexes
}

fn at(tx: u64) -> Tx {
    Tx::from_bits(tx)
}

fn fired(reflexes: &mut Reflexes) -> Vec<u64> {
    let mut out = Vec::new();
    drain(reflexes, 100, &mut out);
    out.iter().map(|f| f.reflex.0).collect()
}

/// One market, one reflex with id 7 registered at tx 10, ticks from tx 11: which of them fire?
fn check(spec: &str, ticks: &[(f64, f64, i64)], fires: &[usize]) {
    let mut reflexes = with_markets(Limits::default());
    let spec: Spec = spec.parse().unwrap();
    reflexes.register(ReflexId(7), spec.clone(), market(), at(10)).unwrap();
    let mut which = Vec::new();
    for (n, &(price, volume, ms)) in ticks.iter().enumerate() {
        reflexes.react(at(11 + n as u64), 0, MarketIx(0), &tick(0, price, volume, ms * 1_000_000));
        which.extend(fired(&mut reflexes).iter().map(|_| n));
    }
    assert_eq!(which, fires, "{spec}");
}

#[test]
fn a_band_fires_when_it_becomes_true_and_its_first_tick_counts_as_becoming() {
    let prices = |all: &[f64]| all.iter().map(|&p| (p, 1.0, 0)).collect::<Vec<_>>();
    check("above 5", &prices(&[6.0, 7.0, 5.0, 5.5]), &[0, 3]);
    check("below 5", &prices(&[5.0, 4.0, 3.0, 5.0, 4.0]), &[1, 4]);
    check("enters 4..5", &prices(&[3.0, 6.0, 5.0, 4.0, 3.9, 4.0]), &[2, 5]);
    check("leaves 4..5", &prices(&[4.0, 3.0, 6.0, 5.0, 5.1]), &[1, 4]);
    check("enters 5..5", &prices(&[4.0, 6.0, 5.0, 5.0]), &[2]);
}

#[test]
fn a_window_measures_event_time_and_a_late_tick_counts_for_nothing() {
    check("volume 3 in 10ms", &[(1.0, 2.0, 0), (1.0, 1.0, 9), (1.0, 0.0, 11), (1.0, 2.0, 12)], &[1, 3]);
    check("volume 3 in 10ms", &[(1.0, 2.0, 0), (1.0, 1.0, 10), (1.0, 2.0, 9), (1.0, 2.0, 10)], &[3]);
    check("move 10% in 1s", &[(100.0, 0.0, 0), (110.0, 0.0, 500), (99.0, 0.0, 600), (99.0, 0.0, 1600)], &[1]);
    check("move 10% in 1s", &[(100.0, 0.0, 0), (200.0, 0.0, 1000), (180.0, 0.0, 1500)], &[2]);
    check("move 50% in 1s", &[(0.0, 0.0, 0), (0.5, 0.0, 1)], &[1]);
}

#[test]
fn a_window_has_whole_steps_where_its_length_allows_and_never_more_than_4096() {
    for (window, step) in [(1, 1), (4096, 1), (4097, 2), (10_000_000, 2_500), (60_000_000_000, 15_000_000)] {
        assert_eq!(step_ns(window), step);
        assert!((window as u64).div_ceil(step as u64) <= 4096);
    }
    assert_eq!(step_ns(WINDOW_NS_MAX) * 4096 / WINDOW_NS_MAX, 1);
}

#[test]
fn late_ticks_and_corrections_are_counted() {
    let mut reflexes = with_markets(Limits::default());
    reflexes.register(ReflexId(1), "volume 9 in 1s".parse().unwrap(), Scope::All, at(1)).unwrap();
    reflexes.react(at(2), 0, MarketIx(0), &tick(0, 1.0, 1.0, TEN_SECONDS));
    reflexes.react(at(3), 0, MarketIx(0), &tick(0, 1.0, 9.0, TEN_SECONDS - 1));
    let corrected = Tick { flags: flags::CORRECTION, ..tick(0, 1.0, 9.0, TEN_SECONDS) };
    reflexes.react(at(4), 0, MarketIx(0), &corrected);
    assert_eq!(reflexes.counts(), Counts { late: 1, corrections: 1, left_out: 0 });
    assert!(!reflexes.pending());
}

/// A busy window stays small: a step keeps one low, one high and its exact volume, however many ticks fall into it.
#[test]
fn a_window_is_bounded_whatever_the_feed_does() {
    let mut reflexes = with_markets(Limits::default());
    for (id, spec) in [(1, "volume 1e300 in 10s"), (2, "move 1000000000% in 10s")] {
        reflexes.register(ReflexId(id), spec.parse().unwrap(), market(), at(1)).unwrap();
    }
    let mut seed = 1_u64;
    for n in 0..300_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let volume = f64::from_bits((seed >> 2) % f64::MAX.to_bits());
        let volume = if n % 3 == 0 { volume } else { (seed >> 40) as f64 * 0.01 };
        let event = (n as i64) * (TEN_SECONDS / 100_000);
        reflexes.react(at(2 + n), 0, MarketIx(0), &tick(0, 100.0 + (seed >> 60) as f64, volume, event));
    }
    let most = 4097 * (exact::PARTS_MAX + 3) * 16;
    assert!(reflexes.running_state().len() < most, "{} bytes", reflexes.running_state().len());
}

#[test]
fn a_leap_over_thousands_of_bands_is_one_record_and_comes_out_by_reflex_in_any_slices() {
    let mut whole: Vec<Firing> = Vec::new();
    for budget in [usize::MAX, 1, 1000, 4097] {
        let mut reflexes = with_markets(Limits::default());
        let mut expected = Vec::new();
        reflexes.react(at(1), 0, MarketIx(0), &tick(0, 0.5, 0.0, 0));
        for i in 0..20_000_u64 {
            let id = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let x = (i % 9973) as f64;
            let scope = [market(), Scope::All, Scope::Like("m*".into())][i as usize % 3].clone();
            let spec = match i % 4 {
                0 => Spec::Above(x),
                1 => Spec::Below(x),
                2 => Spec::Enters { low: x, high: x + 4000.0 },
                _ => Spec::Leaves { low: x, high: x + 4000.0 },
            };
            let band = spec.band().unwrap();
            if band.holds(band::key(6000.5)) && !band.holds(band::key(1000.5)) {
                expected.push(id);
            }
            reflexes.register(ReflexId(id), spec, scope, at(2)).unwrap();
        }
        let spread = spread(NAMES[0], NAMES[1], 100.0, false);
        reflexes.register(ReflexId(1 << 63), spread, Scope::All, at(2)).unwrap();
        expected.push(1 << 63);
        expected.sort_unstable();
        reflexes.react(at(3), 0, MarketIx(1), &tick(1, 1000.5, 0.0, 0));
        reflexes.react(at(4), 0, MarketIx(0), &tick(0, 1000.5, 0.0, 0));
        drain(&mut reflexes, 999, &mut Vec::new());
        reflexes.react(at(5), 0, MarketIx(0), &tick(0, 6000.5, 0.0, 0));
        assert_eq!(reflexes.lag(), 4, "a record for each scope and one for the spread");
        let mut out = Vec::new();
        drain(&mut reflexes, budget, &mut out);
        assert!(out.iter().map(|f| f.reflex.0).eq(expected.iter().copied()), "{} {}", out.len(), expected.len());
        if whole.is_empty() {
            whole = out;
        } else {
            assert_eq!(out, whole);
        }
    }
}

#[test]
fn every_bound_refuses_by_name_and_changes_nothing() {
    let limits = Limits {
        markets: 4,
        reflexes: 6,
        patterns: 1,
        windows: 3,
        windows_per_market: 2,
        pairs: 1,
        pairs_per_market: 1,
        records: 10,
    };
    let mut reflexes = with_markets(limits);
    let ask = |reflexes: &mut Reflexes, id, spec: &str, scope: &str| {
        reflexes.register(ReflexId(id), spec.parse().unwrap(), scope.parse().unwrap(), at(1))
    };
    let full = |of, max| Err(RegisterError::Full { of, max });
    assert_eq!(ask(&mut reflexes, 1, "volume 1 in 1s", "all"), Ok(()));
    assert_eq!(ask(&mut reflexes, 2, "volume 1 in 1s", "like:*"), full("windows", 3));
    assert_eq!(ask(&mut reflexes, 2, "move 1% in 1s", "market:m0"), Ok(()));
    assert_eq!(ask(&mut reflexes, 3, "move 1% in 1s", "market:n9"), Ok(()), "a market that may come");
    assert_eq!(reflexes.add_market(MarketIx(2), id_of(2), NAMES[2]), 1, "the window of scope all found no room");
    assert_eq!(reflexes.counts().left_out, 1);
    assert_eq!(ask(&mut reflexes, 4, "above 1", "like:a*"), Ok(()));
    assert_eq!(ask(&mut reflexes, 5, "above 1", "like:b*"), full("name patterns", 1));
    assert_eq!(ask(&mut reflexes, 5, "spread m0 m1 1", "all"), Ok(()));
    assert_eq!(ask(&mut reflexes, 6, "spread m0 n0 1", "all"), full("pairs of markets", 1));
    assert_eq!(ask(&mut reflexes, 6, "spread m0 m1 2", "market:m0"), Err(SpecError::SpreadScope.into()));
    assert_eq!(ask(&mut reflexes, 6, "spread m0 m1 2", "all"), Ok(()));
    assert_eq!(ask(&mut reflexes, 7, "gap", "all"), full("reflexes", 6));
    assert_eq!(ask(&mut reflexes, 6, "gap", "all"), Err(RegisterError::IdTaken(ReflexId(6))));
    assert_eq!(reflexes.len(), 6);
    let version = reflexes.version();
    assert_eq!(ask(&mut reflexes, 6, "spread m0 m1 2", "all"), Ok(()), "the same again changes nothing");
    assert_eq!(reflexes.version(), version);
    let state = reflexes.state();
    assert_eq!(Reflexes::restore(limits, &state).unwrap().state(), state);
    let small = Limits { reflexes: 5, ..limits };
    assert_eq!(Reflexes::restore(small, &state).unwrap_err(), DecodeError::Full { of: "reflexes", max: 5 });
    assert_eq!((1..=6).filter(|id| reflexes.remove(ReflexId(*id))).count(), 6);
    assert!(reflexes.is_empty() && !reflexes.remove(ReflexId(1)));
}

#[test]
fn a_full_queue_is_told_before_the_next_tick() {
    let mut reflexes = with_markets(Limits { records: 3, ..Limits::default() });
    reflexes.register(ReflexId(1), Spec::Above(5.0), Scope::All, at(1)).unwrap();
    let mut reacted = 0;
    for n in 0..20 {
        if reflexes.full() {
            break;
        }
        reflexes.react(at(2 + n), 0, MarketIx(0), &tick(0, 4.0 + (n % 2) as f64 * 2.0, 0.0, 0));
        reacted += 1;
    }
    assert_eq!((reflexes.lag(), reacted), (3, 6));
    assert_eq!(fired(&mut reflexes), [1, 1, 1]);
    assert!(!reflexes.full());
}

#[test]
fn pages_of_the_list_go_on_after_the_last_id() {
    let mut reflexes = with_markets(Limits::default());
    (0..10).for_each(|id| reflexes.register(ReflexId(id * 3), Spec::Gap, Scope::All, at(1)).unwrap());
    let page: Vec<u64> = reflexes.list(Some(ReflexId(6))).take(3).map(|r| r.id.0).collect();
    assert_eq!(page, [9, 12, 15]);
    assert_eq!(reflexes.get(ReflexId(9)).unwrap().scope, Scope::All);
    assert_eq!(reflexes.get(ReflexId(10)), None);
}

fn rich() -> Reflexes {
    let mut reflexes = with_markets(Limits::default());
    for (id, text) in
        ["above 5", "leaves 1..2", "move 2% in 5m", "volume 9 in 1s", "gap", "spread m0 m1 1"].iter().enumerate()
    {
        for (more, scope) in ["all", "market:m0", "like:m*"].iter().enumerate() {
            let (id, scope) = (ReflexId((id * 3 + more) as u64), if id == 5 { "all" } else { scope });
            reflexes.register(id, text.parse().unwrap(), scope.parse().unwrap(), at(1)).unwrap();
        }
    }
    for n in 0..40_u64 {
        let (m, event) = ((n % 2) as usize, n as i64 * 100_000_000);
        reflexes.react(at(2 + n), 0, MarketIx(m as u32), &tick(m, 1.0 + (n % 7) as f64, 0.1, event));
    }
    drain(&mut reflexes, 100, &mut Vec::new());
    reflexes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What a mutation leaves readable must be usable: it takes ticks, gives firings and its own checkpoint again.
    #[test]
    fn a_corrupt_checkpoint_never_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = rich().state();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        if let Ok(mut reflexes) = Reflexes::restore(Limits::default(), &bytes) {
            prop_assert_eq!(reflexes.state(), bytes);
            for n in 0..4 {
                let event = i64::MAX - 4 + i64::from(n);
                reflexes.react(Tx::MAX, n, MarketIx(n % 2), &tick((n % 2) as usize, f64::from(n), 1.0, event));
            }
            drain(&mut reflexes, 7, &mut Vec::new());
        }
    }
}

#[test]
fn the_order_of_registrations_and_what_was_removed_leave_no_trace_in_a_checkpoint() {
    let mut one = rich();
    let mut other = rich();
    for (id, scope) in [(100, "like:x*"), (101, "market:zz")] {
        one.register(ReflexId(id), Spec::Gap, scope.parse().unwrap(), at(90)).unwrap();
    }
    for (id, scope) in [(101, "market:zz"), (100, "like:x*")] {
        other.register(ReflexId(id), Spec::Gap, scope.parse().unwrap(), at(90)).unwrap();
    }
    assert_eq!(one.state(), other.state());
    one.remove(ReflexId(100));
    other.remove(ReflexId(100));
    assert_eq!(one.state(), other.state());
    let restored = Reflexes::restore(Limits::default(), &one.state()).unwrap();
    assert_eq!(restored.state(), other.state());
}

/// The bytes drawn in the README: changing them makes old checkpoints unreadable.
#[test]
fn the_checkpoint_is_that_of_the_readme() {
    let mut reflexes = Reflexes::default();
    reflexes.add_market(MarketIx(0), EntityId::from_bits(0x2001), "m0");
    reflexes.register(ReflexId(5), Spec::Enters { low: 1.0, high: 2.0 }, market(), at(9)).unwrap();
    reflexes.register(ReflexId(6), "volume 1 in 1us".parse().unwrap(), Scope::All, at(9)).unwrap();
    reflexes.react(at(10), 0, MarketIx(0), &tick(0, 1.0, 0.5, 3000));
    drain(&mut reflexes, 9, &mut Vec::new());
    let mut drawn = Vec::new();
    let mut put = |bytes: &[u8]| drawn.extend_from_slice(bytes);
    put(&109_u64.to_le_bytes());
    put(b"MRX1");
    put(&[2, 0, 0, 0, 0, 0, 0, 0]); // version
    put(&[2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]); // scopes, pairs, reflexes
    put(&[&[1, 2][..], b"m0", &[3]].concat()); // market:m0, all
    put(&[5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]); // id, tx, kind, scope
    put(&[1.0_f64.to_le_bytes(), 2.0_f64.to_le_bytes()].concat());
    put(&[6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0]);
    put(&[1.0_f64.to_le_bytes(), 1000_i64.to_le_bytes()].concat());
    put(b"MRS1");
    put(&[0; 24]); // late, corrections, left out
    put(&[1, 0, 0, 0]); // markets
    put(&[0, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0]); // ix, id
    put(&[1.0_f64.to_le_bytes(), 10_u64.to_le_bytes()].concat());
    put(&[2, b'm', b'0']);
    put(&[1, 0, 0, 0]); // windows
    put(&[0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]); // ix, reflex
    put(&[&[1][..], &3000_i64.to_le_bytes()].concat()); // flags, end
    put(&[&[1, 0, 0, 0][..], &3000_i64.to_le_bytes(), &0.5_f64.to_le_bytes()].concat()); // one part
    assert_eq!(reflexes.state(), drawn);
}

/// Shards stamp on their own: a merged stream may bring one position twice, for markets of two shards.
#[test]
fn one_position_of_two_shards_gives_each_market_its_firing() {
    let mut reflexes = with_markets(Limits::default());
    reflexes.register(ReflexId(2), Spec::Above(5.0), Scope::All, at(1)).unwrap();
    for m in [1, 0] {
        reflexes.react(at(2), 0, MarketIx(m), &tick(m as usize, 6.0, 0.0, 0));
    }
    let mut out = Vec::new();
    drain(&mut reflexes, 1, &mut out);
    assert_eq!(out.iter().map(|f| (f.reflex.0, f.market)).collect::<Vec<_>>(), [(2, id_of(1)), (2, id_of(0))]);
}
