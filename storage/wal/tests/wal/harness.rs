//! A log on a simulated disk, driven the way a core drives it, with an oracle beside it.

use std::sync::Arc;

use myelin_wal::sim::SimDisk;
use myelin_wal::{
    Batch, Config, Disk, Entry, Lsn, Preparer, Record, Recovered, Start, Syncer, Tail, WalError, recover,
};

/// What a record said, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub entry: Entry,
    pub payload: Vec<u8>,
}

/// The `n`-th record of a test: its bytes follow from its number and its length, so a lost one is written again alike.
pub fn said(n: u64, length: usize) -> Said {
    let entry = Entry { kind: 1 + (n % 3) as u8, group: (n % 5) as u16, term: 1 + n / 100, index: n, tx: n << 16 | 7 };
    let payload = (0..length).map(|at| (n as u8).wrapping_mul(31).wrapping_add(at as u8) ^ (at >> 8) as u8).collect();
    Said { entry, payload }
}

impl From<Record<'_>> for Said {
    fn from(record: Record<'_>) -> Self {
        let myelin_wal::Header { kind, group, term, index, tx, .. } = record.header;
        Self { entry: Entry { kind, group, term, index, tx }, payload: record.payload.to_vec() }
    }
}

/// A record and where it lies.
pub type Placed = (Lsn, Said);

/// Everything a disk shows from `start` on, and the log that goes on there.
pub fn open(disk: Arc<dyn Disk>, config: &Config, start: Start) -> Result<(Vec<Placed>, Recovered), WalError> {
    let mut seen = Vec::new();
    let recovered = recover(disk, config, start, &mut |record| {
        seen.push((record.lsn, Said::from(record)));
        Ok(())
    })?;
    assert_eq!(recovered.report.records, seen.len() as u64);
    Ok((seen, recovered))
}

/// Everything a simulated disk shows; changes nothing.
pub fn shown(disk: &SimDisk, config: &Config) -> Result<Vec<Placed>, WalError> {
    open(Arc::new(disk.clone()), config, Start::default()).map(|(seen, _)| seen)
}

/// A log with the spares it needs, and everything it acknowledged.
pub struct Log {
    pub disk: SimDisk,
    pub config: Config,
    pub tail: Tail,
    pub syncer: Syncer,
    pub preparer: Preparer,
    pub acked: Vec<Placed>,
    pub gathered: Vec<Placed>,
}

impl Log {
    /// A new log with `spares` prepared slots.
    pub fn new(config: Config, spares: usize) -> Self {
        Self::on(SimDisk::new(), config, spares)
    }

    /// A log on a disk that may hold one; what it shows counts as acknowledged.
    pub fn on(disk: SimDisk, config: Config, spares: usize) -> Self {
        Self::try_on(disk, config, Start::default(), spares).expect("a sound disk")
    }

    pub fn try_on(disk: SimDisk, config: Config, start: Start, spares: usize) -> Result<Self, WalError> {
        let (acked, recovered) = open(Arc::new(disk.clone()), &config, start)?;
        let Recovered { tail, syncer, preparer, .. } = recovered;
        let mut log = Self { disk, config, tail, syncer, preparer, acked, gathered: Vec::new() };
        log.prepare(spares)?;
        Ok(log)
    }

    pub fn prepare(&mut self, spares: usize) -> Result<(), WalError> {
        while self.tail.spares() < spares {
            self.tail.offer(self.preparer.prepare()?);
        }
        Ok(())
    }

    /// Appends without syncing. False if there is no room.
    pub fn append(&mut self, said: &Said) -> bool {
        if self.tail.room() < said.payload.len().max(1) {
            return false;
        }
        self.tail.begin(said.entry);
        let (front, back) = said.payload.split_at(said.payload.len() / 3);
        self.tail.push(front);
        self.tail.push(back);
        let at = self.tail.end();
        assert_eq!(at.lsn_end, self.tail.end_lsn());
        self.gathered.push((at.lsn_start, said.clone()));
        true
    }

    /// Takes what gathered and makes it durable; acknowledged if that succeeds.
    pub fn sync(&mut self) -> Result<(), WalError> {
        let Some(batch) = self.tail.take_batch() else { return Ok(()) };
        let done = self.syncer.sync(&batch);
        if done.is_ok() {
            self.acknowledge(batch);
        }
        done
    }

    pub fn acknowledge(&mut self, batch: Batch) {
        self.tail.synced(batch.upto());
        let shown: Vec<Placed> = batch.records().map(|record| (record.lsn, Said::from(record))).collect();
        assert!(shown == self.gathered, "a batch shows what gathered");
        self.acked.append(&mut self.gathered);
        self.tail.recycle(batch);
    }

    /// Says on disk that all before is durable.
    pub fn mark(&mut self) {
        assert!(self.tail.mark(), "room for a mark");
        self.sync().expect("a sound disk");
    }

    /// Appends and syncs batches of the given payload lengths, numbering on. Returns the next number.
    pub fn write(&mut self, mut n: u64, batches: &[&[usize]]) -> u64 {
        for batch in batches {
            for &length in *batch {
                assert!(self.append(&said(n, length)), "room for record {n}");
                n += 1;
            }
            self.sync().expect("a sound disk");
        }
        n
    }

    /// What a restart would show now.
    pub fn shown(&self) -> Result<Vec<Placed>, WalError> {
        shown(&self.disk.copy(), &self.config)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a seed gives a history, and the seed is printed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}
