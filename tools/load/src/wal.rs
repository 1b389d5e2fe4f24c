//! Bare figures of a device: what a sync costs in a file that was allocated and zeroed before, as a log's segment is.

use crate::args::{Output, WalArgs};
use crate::clock;
use crate::drive::histogram;
use crate::host;
use crate::latency::time;
use crate::report::Percentiles;
use crate::say;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// **Units:** bytes of the file that is written over and over.
const FILE_BYTES: usize = 32 << 20;
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
const PAGE: usize = 4 << 10;
/// How long the open loop is offered.
const OPEN_LOOP_NS: u64 = 5 * clock::SECOND_NS;
/// **Units:** bytes of a record with one row in it.
const RECORD_BYTES: usize = 112;
/// Records of one write at most: those of the greatest size.
const BATCH_MAX: u64 = (SIZES[SIZES.len() - 1] / RECORD_BYTES) as u64;

/// The host cannot give figures that mean something.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// How bytes become stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// One write past the page cache, stable when it returns.
    Direct,
    /// A write, then a sync.
    Fdatasync,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "O_DIRECT|O_DSYNC",
            Self::Fdatasync => "pwrite+fdatasync",
        }
    }
}

/// A page that `O_DIRECT` takes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A zeroed file on the device, removed at the end.
pub(crate) struct Device {
    file: File,
    path: PathBuf,
    way: Way,
    at: usize,
    pages: Vec<Page>,
}

impl Device {
    /// Allocates and zeroes the file. **Errors:** a file system without a device under it is refused.
    pub(crate) fn open(dir: &Path, way: Way) -> Result<Self> {
        let found = host::file_system(dir)?;
        if found.is_memory {
            let dir = dir.display();
            return Err(Unfit(format!("{dir} is {}: a sync there means nothing", found.name)).into());
        }
        let path = dir.join(format!("myelin-load-{}-{way:?}.tmp", std::process::id()));
        let mut file = File::create_new(&path).with_context(|| format!("{}", path.display()))?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let file = open_for(&path, way)?;
        let pages = vec![Page([7; PAGE]); SIZES[SIZES.len() - 1] / PAGE];
        Ok(Self { file, path, way, at: 0, pages })
    }

    /// Writes so many bytes behind the last ones, and returns when they are stable.
    pub(crate) fn write(&mut self, bytes: usize) -> Result<()> {
        if self.at + bytes > FILE_BYTES {
            self.at = 0;
        }
        let all: &[u8] = bytemuck::cast_slice(&self.pages);
        self.file.write_all_at(&all[..bytes], self.at as u64)?;
        if self.way == Way::Fdatasync {
            self.file.sync_data()?;
        }
        self.at += bytes;
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing hangs on it but 32 MiB.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(target_os = "linux")]
fn open_for(path: &Path, way: Way) -> Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true);
    if way == Way::Direct {
        options.custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits() as i32);
    }
    options.open(path).with_context(|| format!("{way:?} at {}", path.display()))
}

#[cfg(not(target_os = "linux"))]
fn open_for(path: &Path, way: Way) -> Result<File> {
    if way == Way::Direct {
        return Err(Unfit("O_DIRECT exists on Linux only".to_owned()).into());
    }
    OpenOptions::new().write(true).open(path).with_context(|| format!("{}", path.display()))
}

#[derive(Debug, Serialize)]
struct Figure {
    way: Way,
    bytes: usize,
    sync_us: Percentiles,
}

/// What a log and nothing else would make of an open loop of single records.
#[derive(Debug, Serialize)]
struct OpenLoop {
    way: Way,
    rate: u32,
    /// Writes, each with all that had come until then.
    batches: u64,
    /// From a record's intended time until it is stable.
    durable_us: Percentiles,
}

#[derive(Debug, Serialize)]
struct Report {
    file_system: String,
    figures: Vec<Figure>,
    open_loop: Vec<OpenLoop>,
    cores: usize,
    scheduling: String,
}

/// Records that have come: the first one at the start, each further one a step later.
const fn come(elapsed_ns: u64, step_ns: u64) -> u64 {
    elapsed_ns / step_ns + 1
}

/// Offers records at their intended times: whatever has come is one batch, the next one gathers while it is written. The
/// loop never sleeps, so nothing is in it but the device and the machine's own pauses: less than this no log can take here.
fn offer(device: &mut Device, rate: u32, for_ns: u64) -> Result<OpenLoop> {
    let step_ns = clock::SECOND_NS / u64::from(rate);
    let records = (for_ns / step_ns).max(1);
    let mut taken = histogram()?;
    let (mut written, mut batches) = (0, 0);
    let start_ns = clock::now_ns();
    while written < records {
        let come = come(clock::now_ns() - start_ns, step_ns).min(records).min(written + BATCH_MAX);
        if come == written {
            std::hint::spin_loop();
            continue;
        }
        let bytes = (come - written) as usize * RECORD_BYTES;
        device.write(bytes.next_multiple_of(PAGE))?;
        let now_ns = clock::now_ns() - start_ns;
        for record in written..come {
            taken.record((now_ns - record * step_ns).max(1))?;
        }
        (written, batches) = (come, batches + 1);
    }
    Ok(OpenLoop { way: device.way, rate, batches, durable_us: Percentiles::of(&taken) })
}

/// Measures and prints.
pub(crate) fn run(args: &WalArgs, output: Output) -> Result<u8> {
    if args.count == 0 {
        bail!("--count begins at 1");
    }
    clock::settle(args.realtime);
    let (mut figures, mut open_loop) = (Vec::new(), Vec::new());
    for way in [Way::Direct, Way::Fdatasync] {
        let mut device = Device::open(&args.dir, way)?;
        for bytes in SIZES {
            let mut taken = histogram()?;
            for turn in 0..args.count + args.count / 10 {
                time(&mut taken, turn >= args.count / 10, || device.write(bytes))?;
            }
            figures.push(Figure { way, bytes, sync_us: Percentiles::of(&taken) });
        }
        if let Some(rate) = args.rate {
            open_loop.push(offer(&mut device, rate, OPEN_LOOP_NS)?);
        }
    }
    let file_system = host::file_system(&args.dir)?.name;
    let report = Report { file_system, figures, open_loop, cores: host::cores(), scheduling: host::scheduling() };
    if output == Output::Json {
        say::figures(serde_json::to_string(&report)?)?;
        return Ok(0);
    }
    let mut lines = vec![format!(
        "{}, zeroed file of {} MiB, {} cores, {}",
        report.file_system,
        FILE_BYTES >> 20,
        report.cores,
        report.scheduling
    )];
    for figure in &report.figures {
        lines.push(format!("{}  {:>5} KiB   {}", figure.way.name(), figure.bytes >> 10, figure.sync_us.line()));
    }
    for one in &report.open_loop {
        let at = format!("{}/s", one.rate);
        lines.push(format!("{}  {at:>9}   {}   {} batches", one.way.name(), one.durable_us.line(), one.batches));
    }
    say::figures(lines.join("\n"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was counted when the next one was due, which charged each a step too much.
    #[test]
    fn a_record_has_come_at_its_own_time_and_not_at_the_next_ones() {
        assert_eq!([0, 99, 100, 199, 200].map(|ns| come(ns, 100)), [1, 1, 2, 2, 3]);
        assert!(BATCH_MAX as usize * RECORD_BYTES <= SIZES[SIZES.len() - 1]);
    }

    #[test]
    fn a_device_without_a_disk_is_refused_and_nothing_is_left_behind() {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() && host::file_system(memory).unwrap().is_memory {
            let refused = Device::open(memory, Way::Fdatasync).err().unwrap();
            assert!(refused.downcast_ref::<Unfit>().is_some());
        }
        let here = std::env::temp_dir();
        if !host::file_system(&here).unwrap().is_memory {
            let mut device = Device::open(&here, Way::Fdatasync).unwrap();
            device.write(4 << 10).unwrap();
            let told = offer(&mut device, 2_000, clock::SECOND_NS / 20).unwrap();
            assert!((1..=100).contains(&told.batches) && told.durable_us.p50.is_some_and(|us| us > 0.0), "{told:?}");
            let path = device.path.clone();
            drop(device);
            assert!(!path.exists());
        }
    }
}
