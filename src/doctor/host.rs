//! The host but for its disk. What Linux tells by files is read from them; elsewhere such a line says that it is unknown.

use super::Check;
use crate::identity::SHARDS_MAX;
use crate::runtime::{Wanted, choose, clock, threads};
use std::fs;
use std::net::TcpListener;

/// Locked memory that one io_uring executor needs. **Units:** KiB.
const MEMLOCK_KIB_PER_CORE: u64 = 512;
/// Files beside connections: segments, runs, sockets, logs.
const FILES_BESIDE: u64 = 1024;
/// Clock sources that are read without a system call.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource"];
/// 2024-01-01: a clock before it was never set. **Units:** Unix nanoseconds.
const EARLIEST_NS: i64 = 1_704_067_200_000_000_000;

pub(super) fn checks() -> Vec<Check> {
    let cpus = threads::cpus();
    let mut checks = vec![kernel(), io_uring(cpus), memlock(cpus), open_files(cpus), clock_source(), clock_reading()];
    checks.extend([cpu_count(cpus), scheduling(), huge_pages()]);
    let cores = cpus.min(usize::from(SHARDS_MAX)) as u16;
    checks.extend([
        free_ports("port_7400", 7400, cores, "--listen"),
        free_ports("port_7480", 7480, 1, "--http"),
        free_ports("port_7490", 7490, 1, "--admin"),
    ]);
    checks
}

fn file(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let Some(release) = file("/proc/sys/kernel/osrelease") else {
        return Check::warn("kernel", std::env::consts::OS, "Linux 5.11 or newer runs the faster executor");
    };
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 11) {
        return Check::warn(
            "kernel",
            format!("Linux {release}"),
            "5.11 or newer; the portable executor runs on this one",
        );
    }
    Check::ok("kernel", format!("Linux {release}"))
}

fn io_uring(cpus: usize) -> Check {
    match choose(Wanted::Auto, cpus) {
        Ok(chosen) => match chosen.degraded {
            None => Check::ok("io_uring", format!("executor {} for {cpus} cores", chosen.executor)),
            Some(reason) => Check::warn("io_uring", reason, "without it the portable executor takes over"),
        },
        Err(error) => Check::warn("io_uring", error, "without it the portable executor takes over"),
    }
}

/// The soft limit of this name in `/proc/self/limits`; `Some(None)` is unlimited.
fn limit(name: &str) -> Option<Option<u64>> {
    let limits = file("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

fn memlock(cpus: usize) -> Check {
    let needed = MEMLOCK_KIB_PER_CORE * cpus as u64;
    match limit("Max locked memory") {
        None => Check::ok("memlock", "unknown on this system"),
        Some(None) => Check::ok("memlock", "unlimited"),
        Some(Some(bytes)) if bytes / 1024 < needed => Check::warn(
            "memlock",
            format!("{} KiB, io_uring for {cpus} cores may need {needed}", bytes / 1024),
            format!("`ulimit -l {needed}`, or LimitMEMLOCK={needed}K in the unit"),
        ),
        Some(Some(bytes)) => Check::ok("memlock", format!("{} KiB", bytes / 1024)),
    }
}

fn open_files(cpus: usize) -> Check {
    let connections = crate::config::Limits::default().connections_per_core as u64;
    let needed = connections * cpus as u64 + FILES_BESIDE;
    match limit("Max open files") {
        None => Check::ok("open_files", "unknown on this system"),
        Some(None) => Check::ok("open_files", "unlimited"),
        Some(Some(files)) if files < needed => Check::warn(
            "open_files",
            format!("{files}, {connections} connections a core on {cpus} cores need {needed}"),
            format!("`ulimit -n {needed}`, or LimitNOFILE={needed} in the unit"),
        ),
        Some(Some(files)) => Check::ok("open_files", files.to_string()),
    }
}

fn clock_source() -> Check {
    let folder = "/sys/devices/system/clocksource/clocksource0";
    match file(&format!("{folder}/current_clocksource")) {
        None => Check::ok("clock_source", "unknown on this system"),
        Some(source) if FAST_CLOCKS.contains(&source.as_str()) => Check::ok("clock_source", source),
        Some(source) => {
            let fix = format!("`echo tsc > {folder}/current_clocksource` if available_clocksource names it");
            Check::warn("clock_source", format!("{source}: every reading is a system call"), fix)
        }
    }
}

/// Reads both clocks many times: they must not go back, and ought to be cheap.
fn clock_reading() -> Check {
    const READINGS: u64 = 100_000;
    let begun = clock::monotonic_ns();
    let mut last = begun;
    for _ in 0..READINGS {
        let now = clock::monotonic_ns();
        if now < last {
            return Check::bad(
                "clock",
                format!("the monotonic clock went back by {} ns", last - now),
                "another clock source",
            );
        }
        last = now;
    }
    let each = (last - begun) / READINGS;
    if clock::unix_ns() < EARLIEST_NS {
        return Check::bad(
            "clock",
            "the wall clock is before 2024",
            "set it, and keep it with NTP: every tx carries it",
        );
    }
    if each > 500 {
        return Check::warn("clock", format!("{each} ns a reading"), "another clock source; this one is a system call");
    }
    Check::ok("clock", format!("never went back, {each} ns a reading"))
}

fn cpu_count(cpus: usize) -> Check {
    if cpus == 1 {
        return Check::warn("cpus", "1: sync, gateway and data core share it", "2 or more, or start with --lean");
    }
    Check::ok("cpus", format!("{cpus} for this process"))
}

fn scheduling() -> Check {
    let tried =
        threads::spawn(threads::Role::Probe, "myelin-probe".to_owned(), || threads::make_realtime(threads::Role::Sync));
    if tried.is_ok_and(|tried| tried.join().is_ok_and(|granted| granted)) {
        return Check::ok("scheduling", "real-time class granted to sync threads");
    }
    let fix = "`setcap cap_sys_nice+ep` on the binary, or LimitRTPRIO=30 in the unit";
    Check::warn("scheduling", "no real-time class: on a busy core a sync waits whole time slices", fix)
}

fn huge_pages() -> Check {
    let Some(setting) = file("/sys/kernel/mm/transparent_hugepage/enabled") else {
        return Check::ok("huge_pages", "unknown on this system");
    };
    let chosen = setting.split(['[', ']']).nth(1).unwrap_or(&setting).to_owned();
    if chosen == "always" {
        let fix = "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`";
        return Check::warn("huge_pages", "always: the kernel may stall a core to build one", fix);
    }
    Check::ok("huge_pages", chosen)
}

/// Tries the ports from this one on, one for each core: the first is where clients begin, so it is the one that matters.
fn free_ports(check: &'static str, first: u16, count: u16, flag: &str) -> Check {
    let last = first + count - 1;
    let taken = (first..=last).find_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).err()?)));
    match taken {
        None if count == 1 => Check::ok(check, "free"),
        None => Check::ok(check, format!("free, and up to {last} for the other cores")),
        Some((port, error)) if port == first => Check::warn(
            check,
            error.to_string(),
            format!(
                "stop who holds it, or name another with {flag}: else the node moves to the next free one and says so"
            ),
        ),
        Some((port, error)) => Check::warn(
            check,
            format!("{port}, a further core's: {error}"),
            "none is needed: such a core takes another port and tells its clients; where a firewall names ports, stop who holds it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn every_cores_port_is_tried_and_the_fix_says_that_a_default_moves() {
        let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let first = free_ports("port", port, 1, "--listen");
        assert!(first.state == State::Warn && first.fix.as_ref().unwrap().contains("next free one"), "{first:?}");
        let further = free_ports("port", port - 1, 2, "--listen");
        // Whoever holds the one before, one of the two is told.
        assert_eq!(further.state, State::Warn, "{further:?}");
        drop(held);
    }
}
