//! Reflexes that come and go while a place of the past is being told: who stays is told once, nobody else.

use super::*;

/// So many reflexes, in turns on one market, on a pattern and on all.
fn ask(reflexes: &mut Reflexes, ids: std::ops::Range<u64>, spec: &Spec, tx: Tx) {
    let scopes = [Scope::Market(NAMES[0].into()), Scope::Like("m*".into()), Scope::All];
    for id in ids {
        reflexes.register(ReflexId(id), spec.clone(), scopes[(id % 3) as usize].clone(), tx).unwrap();
    }
}

/// Tells the past of one place a little at a time; half way all of two scopes go, and others take their places.
fn told_while_they_change(spec: &Spec, show: impl Fn(&Reflexes, &mut Untold)) -> Vec<u64> {
    let mut reflexes = Reflexes::default();
    assert_eq!(reflexes.add_market(MarketIx(0), id_of(0), NAMES[0]), 0);
    ask(&mut reflexes, 0..3000, spec, Tx::from_bits(2));
    let mut untold = Untold::default();
    show(&reflexes, &mut untold);
    let (mut fired, mut turns) = (Vec::new(), 0);
    while untold.pending() {
        reflexes.next_past_firings(&mut untold, 64, &mut fired);
        turns += 1;
        if turns == 2 {
            assert!(fired.is_empty(), "it is being looked for");
            for id in (0..3000).filter(|id| id % 3 != 2) {
                assert!(reflexes.remove(ReflexId(id)));
            }
            ask(&mut reflexes, 3000..6000, spec, Tx::from_bits(9));
        }
    }
    fired.iter().map(|firing| firing.reflex.0).collect()
}

fn check(told: &[u64]) {
    assert!(told.is_sorted() && told.windows(2).all(|two| two[0] != two[1]), "in order, once each");
    let stayed: Vec<u64> = told.iter().filter(|id| **id % 3 == 2).copied().collect();
    assert!(stayed == (0..3000).filter(|id| id % 3 == 2).collect::<Vec<_>>(), "who stays is told");
    assert!(told.iter().all(|id| *id < 3000), "who came later is not");
}

/// Seen red: a scope that went while its gaps were told took the next one along, and those of it were told nothing.
#[test]
fn gaps_of_the_past_are_told_to_who_stays() {
    check(&told_while_they_change(&Spec::Gap, |reflexes, untold| {
        reflexes.gap_past(untold, (Tx::from_bits(5), 0), MarketIx(0), (7, 8));
    }));
}

#[test]
fn crossings_of_the_past_are_told_to_who_stays() {
    check(&told_while_they_change(&Spec::Above(5.0), |reflexes, untold| {
        let mut pasts = Pasts::default();
        pasts.prime(Tx::from_bits(4), MarketIx(0), &tick(0, 1.0, 1.0, 0));
        reflexes.react_past(&mut pasts, untold, (Tx::from_bits(5), 0), MarketIx(0), &tick(0, 9.0, 1.0, 0));
    }));
}
