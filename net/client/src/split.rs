//! A batch becomes one frame per shard, or several where a body has its bound; order within a shard is kept.
//!
//! ```text
//!   rows [A B A C B ..] -> slot table -> shard 0: [A A ..], shard 1: [B C B ..]      places: where each row stood
//! ```
//!
//! Deliberately absent: sending.

use crate::error::Refusal;
use myelin_datom::{EntityId, ROW_BYTES, Row};
use myelin_wire::{Code, Welcome};

/// Where the rows of a part stood in the caller's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// One after the other, from here.
    From(u32),
    /// As listed.
    Listed(Vec<u32>),
}

impl Places {
    /// The caller's number of row `n`.
    pub(crate) fn of(&self, n: u32) -> u32 {
        match self {
            Self::From(first) => first + n,
            Self::Listed(places) => places.get(n as usize).copied().unwrap_or(n),
        }
    }
}

/// One frame's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartRows {
    pub(crate) shard: u16,
    pub(crate) rows: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) places: Places,
}

/// Splits `rows`. `whole` rows are checked for shape before any leaves. **Errors:** the first row that is not sound.
pub(crate) fn split<R: Row>(
    rows: &[R],
    whole: bool,
    table: &Welcome,
    rows_max: usize,
) -> Result<Vec<PartRows>, Refusal> {
    if whole && let Some((n, flaw)) = rows.iter().enumerate().find_map(|(n, row)| row.flaw().map(|flaw| (n, flaw))) {
        return Err(Refusal::own(flaw.into(), 0, Some(n as u32)));
    }
    let rows_max = rows_max.min(table.max_body as usize / ROW_BYTES).max(1);
    let shard_of =
        |market: EntityId| table.shard_of(market.slot()).filter(|shard| usize::from(*shard) < table.shard_cores.len());
    let mut parts: Vec<PartRows> = Vec::new();
    if table.shard_cores.len() == 1 {
        for (n, chunk) in rows.chunks(rows_max).enumerate() {
            let places = Places::From((n * rows_max) as u32);
            let body = bytemuck::cast_slice(chunk).to_vec();
            parts.push(PartRows { shard: 0, rows: chunk.len() as u32, body, places });
        }
        return Ok(parts);
    }
    // The part that is being filled, per shard.
    let mut open: Vec<Option<usize>> = vec![None; table.shard_cores.len()];
    for (n, row) in rows.iter().enumerate() {
        let n = n as u32;
        let Some(shard) = shard_of(row.market()) else {
            return Err(Refusal::own(Code::WrongShard, 0, Some(n)));
        };
        let filling = open[usize::from(shard)].filter(|at| (parts[*at].rows as usize) < rows_max);
        let at = filling.unwrap_or_else(|| {
            parts.push(PartRows { shard, rows: 0, body: Vec::new(), places: Places::Listed(Vec::new()) });
            parts.len() - 1
        });
        open[usize::from(shard)] = Some(at);
        let part = &mut parts[at];
        part.rows += 1;
        part.body.extend_from_slice(bytemuck::bytes_of(row));
        if let Places::Listed(places) = &mut part.places {
            places.push(n);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use myelin_datom::{Slot, Tick};
    use myelin_wire::SlotRange;

    fn tick(slot: u16, id: u64) -> Tick {
        Tick { market: EntityId::market(Slot::new(slot).unwrap(), 0), id, ..Tick::zeroed() }
    }

    fn table(shards: &[u16]) -> Welcome {
        let slots = shards.iter().enumerate().map(|(shard, first)| SlotRange { first: *first, shard: shard as u16 });
        Welcome { max_body: 1 << 20, shard_cores: vec![0; shards.len()], slots: slots.collect(), ..Welcome::default() }
    }

    #[test]
    fn rows_go_to_the_shard_of_their_slot_in_order_and_no_frame_is_too_long() {
        let rows: Vec<Tick> = (0..10).map(|id| tick(if id % 3 == 0 { 4000 } else { 5 }, id)).collect();
        let parts = split(&rows, true, &table(&[0, 2048]), 3).unwrap();
        let ids = |part: &PartRows| -> Vec<u64> {
            part.body.chunks_exact(64).map(|row| bytemuck::pod_read_unaligned::<Tick>(row).id).collect()
        };
        let seen: Vec<_> = parts.iter().map(|part| (part.shard, ids(part))).collect();
        assert_eq!(seen, [(1, vec![0, 3, 6]), (0, vec![1, 2, 4]), (0, vec![5, 7, 8]), (1, vec![9])]);
        assert!(parts.iter().all(|part| (0..part.rows).all(|n| u64::from(part.places.of(n)) == ids(part)[n as usize])));
    }

    #[test]
    fn one_bad_row_stops_a_whole_batch_and_not_a_partial_one() {
        let mut rows = vec![tick(0, 1), tick(0, 2)];
        rows[1].price = f64::NAN;
        let refusal = split(&rows, true, &table(&[0]), 100).unwrap_err();
        assert_eq!((refusal.code, refusal.first_bad), (Some(Code::PriceNotFinite), Some(1)));
        assert_eq!(split(&rows, false, &table(&[0]), 100).unwrap()[0].rows, 2);
    }

    #[test]
    fn one_shard_takes_the_batch_as_it_is() {
        let rows: Vec<Tick> = (0..5).map(|id| tick(id, u64::from(id))).collect();
        let parts = split(&rows, true, &table(&[0]), 2).unwrap();
        assert_eq!(
            parts.iter().map(|part| (part.rows, part.places.of(0))).collect::<Vec<_>>(),
            [(2, 0), (2, 2), (1, 4)]
        );
    }
}
