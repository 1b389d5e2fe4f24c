//! What the disk promises those who test with it, tried through the kernel: each test mounts a disk of its own.
//!
//! Without `/dev/fuse` or without root every test is skipped, and the reason printed. What needs no kernel is tested beside
//! the code. Deliberately absent: the appliance itself.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: a file system for Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::run()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;
    use std::process::{Command, ExitCode, Stdio};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use anyhow::{Result, ensure};
    use libtest_mimic::{Arguments, Trial};
    use myelin_faultfs::{Client, Failure, Fault, FaultFs, Op, PowerCut, unavailable};
    use nix::libc;

    const PAGE: usize = 4096;
    /// With this variable the program is the process that maps the file it names.
    const MAP: &str = "FAULTFS_TEST_MAP";

    macro_rules! trials {
        ($($name:ident),* $(,)?) => { vec![$(trial(stringify!($name), $name)),*] };
    }

    pub(crate) fn run() -> ExitCode {
        if let Some(path) = std::env::var_os(MAP) {
            return match store_into_a_mapping(Path::new(&path)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        let missing = unavailable();
        let trials = trials![
            synced_data_survives_a_power_cut_and_unsynced_data_is_gone,
            a_new_file_is_gone_unless_its_directory_was_synced,
            a_rename_is_durable_with_its_directory_and_replaces_atomically,
            a_write_under_dsync_is_durable_whichever_way_it_takes,
            a_mapping_sees_what_was_written_and_msync_makes_stores_durable,
            a_failed_sync_is_told_once_and_its_pages_are_lost,
            the_nth_operation_fails_and_the_others_do_not,
            a_full_disk_refuses_new_pages_and_takes_writes_to_allocated_ones,
            a_file_open_across_a_power_cut_is_dead,
            a_random_power_cut_repeats_with_its_seed,
            bad_spots_show_on_read_until_healed_and_decay_stays,
            a_slow_disk_takes_its_time,
            a_process_in_a_frozen_write_dies_with_the_power,
            another_process_controls_the_disk_through_its_socket,
        ];
        if let Some(reason) = &missing {
            println!("skipped, all {}: {reason}", trials.len());
        }
        let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing.is_some())).collect();
        libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
    }

    fn trial(name: &'static str, test: fn(&FaultFs) -> Result<()>) -> Trial {
        Trial::test(name, move || {
            let disk = FaultFs::temporary("test")?;
            test(&disk).map_err(|error| format!("{error:#}").into())
        })
    }

    /// A file whose name is durable already.
    fn durable_file(disk: &FaultFs, name: &str, bytes: &[u8]) -> Result<File> {
        let path = disk.path().join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        sync_folder(disk.path())?;
        Ok(file)
    }

    fn sync_folder(path: &Path) -> Result<()> {
        Ok(File::open(path)?.sync_all()?)
    }

    fn read(disk: &FaultFs, name: &str) -> Result<Vec<u8>> {
        Ok(std::fs::read(disk.path().join(name))?)
    }

    fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    fn synced_data_survives_a_power_cut_and_unsynced_data_is_gone(disk: &FaultFs) -> Result<()> {
        let file = durable_file(disk, "log", b"one")?;
        file.write_all_at(b"two", 3)?;
        file.sync_data()?;
        file.write_all_at(b"three", 6)?;
        file.write_all_at(b"ONE", 0)?;
        drop(file);
        ensure!(read(disk, "log")? == b"ONEtwothree");
        let loss = disk.power_cut(PowerCut::DropUnsynced)?;
        ensure!(loss.unsynced_pages == 1 && loss.kept_pages == 0, "{loss}");
        ensure!(read(disk, "log")? == b"onetwo");
        Ok(())
    }

    fn a_new_file_is_gone_unless_its_directory_was_synced(disk: &FaultFs) -> Result<()> {
        std::fs::create_dir(disk.path().join("wal"))?;
        sync_folder(disk.path())?;
        std::fs::write(disk.path().join("wal/kept"), b"x")?;
        File::open(disk.path().join("wal/kept"))?.sync_all()?;
        sync_folder(&disk.path().join("wal"))?;
        let lost = File::create(disk.path().join("wal/lost"))?;
        lost.sync_all()?;
        std::fs::remove_file(disk.path().join("wal/kept"))?;
        let loss = disk.power_cut(PowerCut::DropUnsynced)?;
        ensure!(loss.unsynced_names == 2, "{loss}");
        ensure!(!disk.path().join("wal/lost").exists());
        ensure!(read(disk, "wal/kept")? == b"x", "a removal that was not synced is undone");
        Ok(())
    }

    fn a_rename_is_durable_with_its_directory_and_replaces_atomically(disk: &FaultFs) -> Result<()> {
        durable_file(disk, "manifest", b"old")?;
        for (sync, expected) in [(false, &b"old"[..]), (true, &b"new"[..])] {
            let path = disk.path().join("manifest.next");
            let mut next = File::create(&path)?;
            next.write_all(b"new")?;
            next.sync_all()?;
            std::fs::rename(&path, disk.path().join("manifest"))?;
            if sync {
                sync_folder(disk.path())?;
            }
            disk.power_cut(PowerCut::DropUnsynced)?;
            ensure!(read(disk, "manifest")? == expected, "synced: {sync}");
            ensure!(!path.exists());
        }
        Ok(())
    }

    fn a_write_under_dsync_is_durable_whichever_way_it_takes(disk: &FaultFs) -> Result<()> {
        let mut space = vec![7_u8; 2 * PAGE];
        let skip = space.as_ptr().align_offset(PAGE);
        let page = &mut space[skip..skip + PAGE];
        for (at, uncached, flags) in [
            (0, false, libc::O_DSYNC),
            (1, false, libc::O_DSYNC | libc::O_DIRECT),
            (2, true, libc::O_DSYNC),
            (3, true, libc::O_DSYNC | libc::O_DIRECT),
            (4, false, libc::O_DIRECT),
        ] {
            page.fill(at as u8 + 1);
            let name = format!("log{at}");
            durable_file(disk, &name, b"")?;
            disk.bypass_cache(uncached);
            let file = OpenOptions::new().write(true).custom_flags(flags).open(disk.path().join(&name))?;
            file.write_all_at(page, 0)?;
            disk.power_cut(PowerCut::DropUnsynced)?;
            let durable = read(disk, &name)? == page;
            ensure!(durable == (flags & libc::O_DSYNC != 0), "uncached {uncached}, flags {flags:o}: durable {durable}");
        }
        Ok(())
    }

    fn a_mapping_sees_what_was_written_and_msync_makes_stores_durable(disk: &FaultFs) -> Result<()> {
        for uncached in [false, true] {
            let name = format!("mapped-{uncached}");
            durable_file(disk, &name, &[1; 2 * PAGE])?;
            disk.bypass_cache(uncached);
            // In a process of its own: see the crate's header for what happens to one that maps its own disk.
            let mapper = Command::new(std::env::current_exe()?).env(MAP, disk.path().join(&name)).output()?;
            ensure!(mapper.status.success(), "{}", String::from_utf8_lossy(&mapper.stderr));
            disk.bypass_cache(false);
            let before = read(disk, &name)?;
            let loss = disk.power_cut(PowerCut::DropUnsynced)?;
            let after = read(disk, &name)?;
            ensure!((before[0], before[PAGE]) == (2, 3), "uncached {uncached}: {} {}", before[0], before[PAGE]);
            ensure!((after[0], after[PAGE]) == (2, 1), "uncached {uncached}: {} {}", after[0], after[PAGE]);
            ensure!(loss.unsynced_pages == 1, "{loss}");
        }
        Ok(())
    }

    /// What the process of the mapping test does: one store that is synced, one that is not.
    #[expect(unsafe_code, reason = "mapping a file is unsafe; nobody else has this one")]
    fn store_into_a_mapping(path: &Path) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // SAFETY: the file belongs to this test and keeps its length while it is mapped.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&file)? };
        ensure!(map.iter().all(|byte| *byte == 1));
        map[0] = 2;
        map.flush()?;
        map[PAGE] = 3;
        Ok(())
    }

    fn a_failed_sync_is_told_once_and_its_pages_are_lost(disk: &FaultFs) -> Result<()> {
        let file = durable_file(disk, "log", b"old")?;
        file.write_all_at(b"new", 0)?;
        disk.fail(Fault::new(Op::Sync, Failure::Eio));
        ensure!(errno(file.sync_data()) == Some(libc::EIO));
        file.sync_data()?;
        disk.power_cut(PowerCut::DropUnsynced)?;
        ensure!(read(disk, "log")? == b"old");
        Ok(())
    }

    fn the_nth_operation_fails_and_the_others_do_not(disk: &FaultFs) -> Result<()> {
        let file = durable_file(disk, "log", b"")?;
        let other = durable_file(disk, "other", b"")?;
        let before = disk.counts();
        disk.fail(Fault::new(Op::Write, Failure::Eio).on("log").skip(2));
        for at in 0..5 {
            other.write_all_at(b"x", at)?;
            let failed = errno(file.write_all_at(b"x", at)) == Some(libc::EIO);
            ensure!(failed == (at == 2), "write {at}");
        }
        ensure!(disk.counts().of(Op::Write) - before.of(Op::Write) == 10);
        disk.fail(Fault::new(Op::Open, Failure::Eio));
        ensure!(errno(File::open(disk.path().join("log"))) == Some(libc::EIO));
        disk.fail(Fault::new(Op::Rename, Failure::Enospc));
        ensure!(errno(std::fs::rename(disk.path().join("log"), disk.path().join("x"))) == Some(libc::ENOSPC));
        disk.fail(Fault::new(Op::SyncDir, Failure::Eio));
        ensure!(errno(File::open(disk.path())?.sync_all()) == Some(libc::EIO));
        Ok(())
    }

    fn a_full_disk_refuses_new_pages_and_takes_writes_to_allocated_ones(disk: &FaultFs) -> Result<()> {
        let file = durable_file(disk, "log", &[1; 4 * PAGE])?;
        disk.leave_room(Some(0));
        file.write_all_at(&[2; 4 * PAGE], 0)?;
        file.sync_data()?;
        ensure!(errno(file.write_all_at(b"x", 4 * PAGE as u64)) == Some(libc::ENOSPC));
        ensure!(errno(fallocate(&file, 8 * PAGE as u64)) == Some(libc::ENOSPC));
        disk.leave_room(Some(PAGE as u64));
        file.write_all_at(b"x", 4 * PAGE as u64)?;
        disk.heal();
        fallocate(&file, 8 * PAGE as u64)?;
        disk.fail(Fault::new(Op::Allocate, Failure::Enospc));
        ensure!(errno(fallocate(&file, 9 * PAGE as u64)) == Some(libc::ENOSPC));
        Ok(())
    }

    fn fallocate(file: &File, length: u64) -> std::io::Result<()> {
        let mode = nix::fcntl::FallocateFlags::empty();
        nix::fcntl::fallocate(file, mode, 0, length as i64).map_err(std::io::Error::from)
    }

    fn a_file_open_across_a_power_cut_is_dead(disk: &FaultFs) -> Result<()> {
        let mut file = durable_file(disk, "log", b"old")?;
        disk.power_cut(PowerCut::DropUnsynced)?;
        ensure!(errno(file.write_all_at(b"new", 0)).is_some());
        ensure!(errno(file.sync_data()).is_some());
        ensure!(errno(File::read(&mut file, &mut [0; 8])).is_some() || read(disk, "log")? == b"old");
        ensure!(read(disk, "log")? == b"old");
        Ok(())
    }

    fn a_random_power_cut_repeats_with_its_seed(disk: &FaultFs) -> Result<()> {
        let cut = |name: &str, seed| -> Result<Vec<u8>> {
            let file = durable_file(disk, name, &[1; 32 * PAGE])?;
            file.write_all_at(&[2; 32 * PAGE], 0)?;
            let loss = disk.power_cut(PowerCut::Random { seed })?;
            ensure!(loss.unsynced_pages == 32 && loss.kept_pages > 0 && loss.torn_pages > 0, "{loss}");
            read(disk, name)
        };
        let (first, again, other) = (cut("a", 1)?, cut("b", 1)?, cut("c", 2)?);
        ensure!(first == again && first != other);
        ensure!(first.contains(&1) && first.contains(&2));
        Ok(())
    }

    fn bad_spots_show_on_read_until_healed_and_decay_stays(disk: &FaultFs) -> Result<()> {
        durable_file(disk, "run", &[0; 3 * PAGE])?;
        ensure!(read(disk, "run")?.iter().all(|byte| *byte == 0), "the kernel has it in its cache now");
        let read_byte = |at: usize| -> std::io::Result<u8> {
            let mut byte = [0; 1];
            File::open(disk.path().join("run"))?.read_exact_at(&mut byte, at as u64).map(|()| byte[0])
        };
        disk.bypass_cache(true);
        disk.flip_on_read("run", 5, 0x10)?;
        disk.bad_page("run", 1)?;
        ensure!(read_byte(5)? == 0x10 && read_byte(6)? == 0);
        ensure!(errno(read_byte(PAGE)) == Some(libc::EIO));
        disk.bypass_cache(false);
        disk.heal();
        ensure!(read_byte(5)? == 0 && read_byte(PAGE)? == 0);
        disk.decay("run", 2 * PAGE as u64, 1)?;
        ensure!(read_byte(2 * PAGE)? == 1);
        disk.power_cut(PowerCut::DropUnsynced)?;
        ensure!(read_byte(2 * PAGE)? == 1);
        ensure!(disk.decay("gone", 0, 1).is_err());
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "that a slow disk is slow shows only on the wall clock")]
    fn a_slow_disk_takes_its_time(disk: &FaultFs) -> Result<()> {
        let file = durable_file(disk, "log", b"")?;
        disk.slow(Some(100));
        let start = Instant::now();
        for at in 0..10 {
            file.write_all_at(b"x", at)?;
        }
        file.sync_data()?;
        ensure!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
        disk.slow(None);
        Ok(())
    }

    fn a_process_in_a_frozen_write_dies_with_the_power(disk: &FaultFs) -> Result<()> {
        durable_file(disk, "log", b"old")?;
        let log = disk.path().join("log");
        let before = disk.counts().of(Op::Write);
        let script = "printf 1 >>\"$0\"; echo written; read go; printf 2 >>\"$0\"; echo never";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&log).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = shell.spawn()?;
        let (Some(mut go), Some(mut said)) = (process.stdin.take(), process.stdout.take()) else {
            anyhow::bail!("no pipes");
        };
        said.read_exact(&mut [0; 8])?;
        ensure!(disk.counts().of(Op::Write) == before + 1);
        disk.freeze();
        go.write_all(b"go\n")?;
        let loss = disk.cut_power_of(&mut process, PowerCut::DropUnsynced)?;
        ensure!(loss.unsynced_pages == 1, "{loss}");
        let mut rest = String::new();
        said.read_to_string(&mut rest)?;
        ensure!(!rest.contains("never") && read(disk, "log")? == b"old", "{rest}");
        std::fs::write(&log, b"alive again")?;
        Ok(())
    }

    fn another_process_controls_the_disk_through_its_socket(_: &FaultFs) -> Result<()> {
        let disk = Arc::new(FaultFs::temporary("socket")?);
        let socket = disk.path().with_extension("socket");
        disk.listen(&socket)?;
        let mut client = Client::connect(&socket)?;
        let file = durable_file(&disk, "log", b"old")?;
        ensure!(client.ask("room plenty")?.is_empty());
        client.ask("fail sync EIO path=log")?;
        ensure!(errno(file.sync_data()) == Some(libc::EIO));
        file.write_all_at(b"new", 0)?;
        ensure!(client.ask("counts")?.ends_with("unsynced_pages=1"));
        ensure!(client.ask("power-cut")?.contains("unsynced_pages=1"));
        ensure!(read(&disk, "log")? == b"old");
        ensure!(client.ask("nonsense").is_err());
        drop(client);
        std::fs::remove_file(&socket)?;
        let path = disk.path().to_owned();
        drop(disk);
        ensure!(!path.exists(), "a disk that is let go of is unmounted although its socket was open");
        Ok(())
    }
}
