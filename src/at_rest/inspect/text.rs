//! What `inspect` found, for people: a line per core, then small tables; a table without rows is not there.

use super::super::Table;
use super::super::census::RecordTold;
use super::{CoreTold, Inspection};

/// The report as text.
pub(super) fn text(report: &Inspection) -> String {
    let mut text = format!(
        "{}: node {}, {} shards on {} cores shown, segments of {} bytes\n\n",
        report.directory,
        report.node,
        report.shards,
        report.cores.len(),
        report.segment_bytes
    );
    report.cores.iter().for_each(|core| text.push_str(&core_text(core)));
    text
}

/// A row per group of the log and kind of record: what there is, where.
pub(super) fn rows(report: &Inspection) -> Table {
    let mut table = Table::new(&[
        "core",
        "group",
        "kind",
        "records",
        "proposals",
        "rows",
        "bytes",
        "first_index",
        "last_index",
        "last_tx",
        "last_term",
    ]);
    for core in &report.cores {
        for group in &core.groups {
            let ends = [group.first_index, group.last_index, group.last_tx, group.last_term];
            for (kind, one) in &group.kinds {
                let counts = [one.records, one.proposals, one.rows, one.bytes];
                let head = [core.core.to_string(), group.group.to_string(), (*kind).to_owned()];
                table.row(head.into_iter().chain(counts.into_iter().chain(ends).map(|number| number.to_string())));
            }
        }
    }
    table
}

fn core_text(core: &CoreTold) -> String {
    let per = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let log = &core.log;
    let mut text = format!(
        "core {}   log {} to {}, {} records, {} bytes, {} log bytes a tick, appends by {}\n",
        core.core,
        log.oldest_lsn,
        log.end_lsn,
        log.records,
        log.bytes,
        per(log.log_bytes_per_tick),
        core.append_path
    );
    if let Some(torn) = &log.torn {
        text.push_str(&format!(
            "torn tail: {} at byte {}, {} bytes, {}; the next start cuts it, nothing in it was acknowledged\n",
            torn.file, torn.offset, torn.bytes, torn.what
        ));
    }
    text.push('\n');
    let mut segments = Table::new(&["segment", "state", "epoch", "first_lsn", "end_lsn"]);
    for one in &core.segments {
        let numbers = [one.first_lsn, one.end_lsn].map(|number| number.to_string());
        segments.row([one.file.clone(), one.state.to_owned(), one.epoch.to_string()].into_iter().chain(numbers));
    }
    let mut groups = Table::new(&["group", "kind", "records", "proposals", "rows", "bytes"]);
    let mut ends = Table::new(&["group", "first_index", "last_index", "last_tx", "last_term", "log_bytes_per_tick"]);
    for group in &core.groups {
        for (kind, one) in &group.kinds {
            let numbers = [one.records, one.proposals, one.rows, one.bytes].map(|number| number.to_string());
            groups.row([group.group.to_string(), (*kind).to_owned()].into_iter().chain(numbers));
        }
        let numbers = [group.first_index, group.last_index, group.last_tx, group.last_term].map(|n| n.to_string());
        ends.row([group.group.to_string()].into_iter().chain(numbers).chain([per(group.log_bytes_per_tick)]));
    }
    let mut hard = Table::new(&["group", "term", "vote", "commit"]);
    for state in &core.hard_state.groups {
        hard.row([state.group.to_string(), state.term.to_string(), state.vote.to_string(), state.commit.to_string()]);
    }
    let mut manifests =
        Table::new(&["manifest", "lsn", "bytes", "shard", "state_bytes", "tick_runs", "quote_runs", "fact_runs"]);
    for one in &core.manifests {
        for shard in &one.shards {
            let [ticks, quotes, facts] = [&shard.ticks, &shard.quotes, &shard.facts].map(Vec::len);
            let counts = [usize::from(shard.shard), shard.state_bytes, ticks, quotes, facts];
            let head = [one.number.to_string(), one.lsn.to_string(), one.bytes.to_string()];
            manifests.row(head.into_iter().chain(counts.map(|number| number.to_string())));
        }
    }
    let mut runs = Table::new(&["run", "kind", "rows", "bytes", "bytes_per_row", "tx_min", "tx_max", "hash"]);
    for run in &core.runs {
        runs.row([
            run.file.clone(),
            run.kind.to_owned(),
            run.rows.to_string(),
            run.bytes.to_string(),
            per(run.bytes_per_row),
            run.tx_min.to_string(),
            run.tx_max.to_string(),
            run.hash.clone(),
        ]);
    }
    let synced = format!("hard state: synced up to {}", core.hard_state.synced_lsn);
    for (table, heading) in [
        (segments, "segments"),
        (groups, "records"),
        (ends, "groups"),
        (hard, synced.as_str()),
        (manifests, "checkpoints"),
        (runs, "runs"),
        (records_table(&core.records), "last records"),
    ] {
        text.push_str(&table.under(heading));
    }
    core.unnamed.iter().for_each(|name| text.push_str(&format!("no manifest names runs/{name}\n")));
    text
}

fn records_table(records: &[RecordTold]) -> Table {
    let mut table = Table::new(&["lsn", "kind", "group", "index", "tx", "bytes", "proposals: session/request x count"]);
    for record in records {
        let proposals = record.proposals.iter().map(|one| format!("{}/{} x {}", one.session, one.request, one.count));
        table.row([
            record.lsn.to_string(),
            record.kind.to_owned(),
            record.group.to_string(),
            record.index.to_string(),
            record.tx.to_string(),
            record.bytes.to_string(),
            proposals.collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}
