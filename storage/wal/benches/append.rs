//! What the log costs: gathering, syncing, recovering, on real files.
//!
//! `cargo bench -p myelin-wal` writes into the directory in `MYELIN_WAL_BENCH`, or into cargo's target directory.
//! One thread does everything, so a sync's time is the device's and nothing overlaps. Numbers go into `README.md`.
#![expect(clippy::disallowed_methods, reason = "a bench is where the clock belongs")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use myelin_wal::{Config, Directory, Disk, Entry, Recovered, Start, recover};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let home = std::env::var_os("MYELIN_WAL_BENCH")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("append-bench"), PathBuf::from);
    println!("payload  per batch | records/s   MiB/s | gather+seal/record | sync p50   p99   max");
    for (payload, per_batch, batches) in [
        (64, 1, 4000),
        (64, 8, 4000),
        (64, 1000, 1000),
        (64, 8000, 200),
        (4096, 16, 2000),
        (65536, 1, 2000),
        (65536, 16, 400),
    ] {
        for synced in [false, true] {
            append(&home.join("append"), payload, per_batch, batches, synced)?;
        }
    }
    for payload in [64, 4096, 65536] {
        copy(&home.join("copy"), payload)?;
    }
    for payload in [64, 65536] {
        replay(&home.join("replay"), payload)?;
    }
    std::fs::remove_dir_all(home)?;
    Ok(())
}

fn open(path: &Path, synced: bool) -> Outcome<(Arc<dyn Disk>, String)> {
    let directory = if synced { Directory::open_synced(path)? } else { Directory::open(path)? };
    let how = directory.append_path().to_string();
    Ok((Arc::new(directory), how))
}

fn fresh(path: &Path) -> Outcome<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn append(path: &Path, payload: usize, per_batch: usize, batches: usize, synced: bool) -> Outcome<()> {
    fresh(path)?;
    let (disk, how) = open(path, synced)?;
    let Recovered { mut tail, mut syncer, mut preparer, .. } =
        recover(disk, &Config::default(), Start::default(), &mut |_| Ok(()))?;
    while tail.spares() < 3 {
        tail.offer(preparer.prepare()?);
    }
    let body = vec![0x5a; payload];
    let (mut syncs, mut gather) = (Vec::with_capacity(batches), Duration::ZERO);
    for batch in 0..batches {
        let started = Instant::now();
        for index in 0..per_batch {
            assert!(tail.room() >= payload, "the bench stays within a batch");
            tail.begin(Entry { kind: 1, group: 1, term: 1, index: (batch * per_batch + index) as u64, tx: 0 });
            tail.push(&body);
            tail.end();
        }
        let batch = tail.take_batch().ok_or("something gathered")?;
        gather += started.elapsed();
        let started = Instant::now();
        syncer.sync(&batch)?;
        syncs.push(started.elapsed());
        tail.synced(batch.upto());
        tail.recycle(batch);
        tail.release(tail.synced_upto());
    }
    syncs.sort_unstable();
    let records = (batches * per_batch) as f64;
    let whole = (gather + syncs.iter().sum::<Duration>()).as_secs_f64();
    let at = |part: f64| syncs[((syncs.len() - 1) as f64 * part) as usize].as_micros();
    println!(
        "{payload:>7}  {per_batch:>9} | {:>9.0} {:>7.0} | {:>12.0} ns      | {:>5} {:>6} {:>6} us  {how}",
        records / whole,
        records * payload as f64 / whole / f64::from(1 << 20),
        gather.as_nanos() as f64 / records,
        at(0.5),
        at(0.99),
        at(1.0),
    );
    Ok(())
}

/// A payload into the batch: with its checksum computed here, and with the sender's combined.
fn copy(path: &Path, payload: usize) -> Outcome<()> {
    const TIMES: u32 = 20_000;
    fresh(path)?;
    let (disk, _) = open(path, false)?;
    let Recovered { mut tail, mut preparer, .. } =
        recover(disk, &Config::default(), Start::default(), &mut |_| Ok(()))?;
    tail.offer(preparer.prepare()?);
    let body = vec![0x5a; payload];
    let mut took = [Duration::ZERO; 2];
    for (known, took) in [None, Some(0x1234_5678)].into_iter().zip(&mut took) {
        let started = Instant::now();
        for _ in 0..TIMES {
            tail.begin(Entry { kind: 1, ..Entry::default() });
            match known {
                Some(crc) => tail.push_with_crc(&body, crc),
                None => tail.push(&body),
            }
            tail.abort();
        }
        *took = started.elapsed() / TIMES;
    }
    println!("a payload of {payload} into the batch: push {:?}, push_with_crc {:?}", took[0], took[1]);
    Ok(())
}

fn replay(path: &Path, payload: usize) -> Outcome<()> {
    fresh(path)?;
    let config = Config::default();
    let bytes = 4 * config.segment_bytes;
    {
        let (disk, _) = open(path, false)?;
        let Recovered { mut tail, mut syncer, mut preparer, .. } =
            recover(disk, &config, Start::default(), &mut |_| Ok(()))?;
        for _ in 0..5 {
            tail.offer(preparer.prepare()?);
        }
        let body = vec![0x5a; payload];
        while tail.end_lsn().bits() < bytes {
            while tail.room() >= payload {
                tail.begin(Entry { kind: 1, ..Entry::default() });
                tail.push(&body);
                tail.end();
            }
            let batch = tail.take_batch().ok_or("something gathered")?;
            syncer.sync(&batch)?;
            tail.synced(batch.upto());
            tail.recycle(batch);
        }
    }
    // Direct writes leave nothing in the page cache, so the first pass reads the device.
    for pass in ["cold", "warm"] {
        let (disk, _) = open(path, false)?;
        let started = Instant::now();
        let recovered = recover(disk, &config, Start::default(), &mut |_| Ok(()))?;
        let (report, took) = (recovered.report, started.elapsed().as_secs_f64());
        let rate = report.bytes as f64 / took / 1e9;
        println!(
            "recovery, payloads of {payload}: {} records, {} MiB in {:.3} s = {rate:.2} GB/s ({pass})",
            report.records,
            report.bytes >> 20,
            took
        );
    }
    Ok(())
}
