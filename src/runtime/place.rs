//! Which CPU each data core gets: first the one where the interrupts of its disk arrive.
//!
//! ```text
//!   data directory -> its device -> the controller's interrupts -> how often each came to which CPU
//! ```
//!
//! A sync ends with an interrupt. Where it arrives on another CPU, that one has to be woken, and then ours: 170 µs a sync
//! instead of 90, on a virtual machine whose disk has one queue. A disk with a queue for each CPU interrupts whoever asked, and
//! has no place to prefer. Read from `/sys` once, at a start; what cannot be read is no preference. Deliberately absent:
//! moving interrupts, which is the operator's, and the network's, which `doctor` may come to measure.

use std::path::{Path, PathBuf};

/// The CPUs this process may use, in the order in which data cores take them.
#[must_use]
pub fn cpus(data_dir: &Path) -> Vec<usize> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<usize> = allowed.into_iter().map(|core| core.id).collect();
    let near = near_disk(data_dir);
    cpus.sort_by_key(|cpu| (Some(*cpu) != near, *cpu));
    cpus
}

/// The CPU where the disk's interrupts arrive, if it is one.
#[cfg(target_os = "linux")]
fn near_disk(data_dir: &Path) -> Option<usize> {
    let device = rustix::fs::stat(data_dir).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let counts = interrupts(&disk(Path::new("/sys/dev/block").join(format!("{major}:{minor}")))?)?;
    busiest(&counts)
}

#[cfg(not(target_os = "linux"))]
const fn near_disk(_: &Path) -> Option<usize> {
    None
}

/// The device itself: what is mapped onto one other device (a volume, an encrypted disk) is as near as that one.
#[cfg(target_os = "linux")]
fn disk(named: PathBuf) -> Option<PathBuf> {
    let mut device = named.canonicalize().ok()?;
    for _ in 0..4 {
        let below: Vec<_> = device.join("slaves").read_dir().into_iter().flatten().flatten().collect();
        let [one] = below.as_slice() else { break };
        device = one.path().canonicalize().ok()?;
    }
    Some(device)
}

/// How often each CPU was interrupted by the controller of a device, over all of its interrupts.
#[cfg(target_os = "linux")]
fn interrupts(device: &Path) -> Option<Vec<u64>> {
    let listed = device.ancestors().find_map(|above| above.join("msi_irqs").read_dir().ok())?;
    let mut sums: Vec<u64> = Vec::new();
    for irq in listed.flatten() {
        let counts = Path::new("/sys/kernel/irq").join(irq.file_name()).join("per_cpu_count");
        let counts = std::fs::read_to_string(counts).ok()?;
        for (cpu, count) in counts.trim().split(',').enumerate() {
            sums.resize(sums.len().max(cpu + 1), 0);
            sums[cpu] += count.parse::<u64>().ok()?;
        }
    }
    Some(sums)
}

/// The one that got nearly all of them; none when they are spread, or too few to say.
fn busiest(counts: &[u64]) -> Option<usize> {
    const ENOUGH: u64 = 64;
    let (all, most) = (counts.iter().sum::<u64>(), counts.iter().max()?);
    (all >= ENOUGH && most * 10 >= all * 9).then(|| counts.iter().position(|count| count == most)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_one_queue_has_a_near_cpu_and_one_with_a_queue_for_each_has_none() {
        assert_eq!(busiest(&[0, 8_903_451]), Some(1));
        assert_eq!(busiest(&[12, 0, 900, 3]), Some(2));
        assert_eq!(busiest(&[500, 480, 510, 470]), None);
        assert_eq!(busiest(&[0, 3]), None, "too few to say");
        assert_eq!(busiest(&[]), None);
    }

    #[test]
    fn every_cpu_of_the_process_is_given_once_whatever_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut given = cpus(dir.path());
        given.sort_unstable();
        let mut allowed: Vec<_> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        allowed.sort_unstable();
        assert_eq!(given, allowed);
        assert_eq!(cpus(Path::new("/no/such/directory")), allowed, "no preference");
    }
}
