//! PostgreSQL, durable before it answers: `synchronous_commit=on`, `fsync=on`, and room enough that no checkpoint falls
//! into a measurement. A table of the tick's columns without any index: its best case, it neither finds nor compares ids.
//!
//! A batch is one binary `COPY`, a transaction of its own; a single tick is a prepared `INSERT`.

use crate::Settings;
use crate::clock::{self, SECOND_NS, Span, histogram, now_ns, sleep_until};
use crate::report::Figures;
use crate::server::{DataDir, Server, Stop, free_address, output_of};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use myelin_datom::Tick;
use myelin_feed::Tape;
use postgres::{Client, NoTls, Statement};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const SETUP: &str = "synchronous_commit=on, fsync=on, shared_buffers=512MB, max_wal_size=16GB; binary COPY, \
     prepared INSERT, no index; open loop over 8 connections";

/// A session commits one transaction at a time, so that one could not hold the rate of the open loop.
const OPEN_CONNECTIONS: usize = 8;
const USER: &str = "postgres";
const TABLE: &str = "CREATE TABLE ticks (market int8 NOT NULL, id int8 NOT NULL, event_time_ns int8 NOT NULL, \
     price float8 NOT NULL, volume float8 NOT NULL, trader int8 NOT NULL, side int2 NOT NULL, \
     received_delta_us int4 NOT NULL, source int4 NOT NULL)";
const COPY: &str = "COPY ticks FROM STDIN (FORMAT binary)";
const INSERT: &str = "INSERT INTO ticks VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

pub(crate) fn version() -> Result<String> {
    let said = output_of(Command::new(program("postgres")?).arg("--version"))?;
    Ok(said.trim().trim_start_matches("postgres (PostgreSQL) ").to_owned())
}

/// The newest that Debian's packages brought, else whatever the path leads to.
fn program(name: &str) -> Result<PathBuf> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return Ok(name.into()) };
    let paths = versions.map(|version| Ok(version?.path())).collect::<Result<Vec<_>>>()?;
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = paths.into_iter().filter(|path| path.join("bin").join(name).exists()).max_by_key(number);
    Ok(newest.map_or_else(|| name.into(), |path| path.join("bin").join(name)))
}

/// One round.
pub(crate) fn round(settings: &Settings) -> Result<Figures> {
    let address = free_address()?;
    let server = start(settings, address)?;
    let connect = |n: usize| Session::connect(server.address, crate::tape(n));
    let mut control = connect_to(server.address)?;
    for line in [TABLE, "CHECKPOINT"] {
        control.batch_execute(line)?;
    }
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String = control.query_one(&format!("SHOW {name}"), &[])?.get(0);
        ensure!(value == "on", "PostgreSQL runs with {name}={value}");
    }
    let mut figures = Figures::new();
    figures.latency("ack", &connect(0)?.closed_loop()?);
    let sessions = (0..OPEN_CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    let open = Open::new(settings.seconds);
    let mut taken = histogram()?;
    for one in crate::on_threads(sessions, |mut session| session.open_loop(&open))? {
        taken.add(one)?;
    }
    figures.latency("open", &taken);
    for (key, batch, connections) in crate::THROUGHPUTS.into_iter().filter(|(_, batch, _)| *batch > 1) {
        control.batch_execute("TRUNCATE ticks; CHECKPOINT")?;
        let sessions = (0..connections).map(connect).collect::<Result<Vec<_>>>()?;
        let spans = crate::on_threads(sessions, |mut session| session.throughput(batch, settings.seconds))?;
        figures.insert(key, Span::rate(&spans));
    }
    Ok(figures)
}

fn start(settings: &Settings, address: SocketAddr) -> Result<Server> {
    let dir = DataDir::new(&settings.dir, "postgresql")?;
    let mut initdb = Command::new("setpriv");
    let user = rustix::process::geteuid().is_root().then_some(USER);
    if let Some(user) = user {
        // The parents of the directory must let this user through.
        output_of(Command::new("chown").arg(user).arg(&dir.0))?;
        initdb.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    initdb.arg("--").arg(program("initdb")?).args(["-D", "data", "-A", "trust", "-U", USER, "-E", "UTF8"]);
    output_of(initdb.args(["--locale", "C"]).current_dir(&dir.0))?;
    let port = format!("port={}", address.port());
    let settings = [
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "synchronous_commit=on",
        "fsync=on",
        "shared_buffers=512MB",
        "max_wal_size=16GB",
        "checkpoint_timeout=1h",
    ];
    let mut words = vec![program("postgres")?.display().to_string(), "-D".to_owned(), "data".to_owned()];
    words.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting.to_owned()]));
    Server::start(&words, user, address, dir, Stop::Quit)
}

/// It takes connections a little before it takes users.
fn connect_to(address: SocketAddr) -> Result<Client> {
    let start_ns = now_ns();
    loop {
        match Client::connect(&format!("host=127.0.0.1 port={} user={USER}", address.port()), NoTls) {
            Err(error) if now_ns() > start_ns + 30 * SECOND_NS => return Err(error).context("PostgreSQL"),
            Err(_) => sleep_until(now_ns() + SECOND_NS / 100),
            Ok(client) => return Ok(client),
        }
    }
}

/// The open loop of all connections: whoever is free takes the next intended time.
struct Open {
    start_ns: u64,
    measured_from_ns: u64,
    count: u64,
    next: AtomicU64,
}

impl Open {
    fn new(seconds: f64) -> Self {
        let start_ns = now_ns() + SECOND_NS / 100;
        Self {
            start_ns,
            measured_from_ns: Span::starting_now(seconds).from_ns,
            count: (crate::OPEN_RATE as f64 * seconds) as u64,
            next: AtomicU64::new(0),
        }
    }
}

struct Session {
    client: Client,
    copy: Statement,
    insert: Statement,
    tape: Tape,
}

impl Session {
    fn connect(address: SocketAddr, tape: Tape) -> Result<Self> {
        clock::settle();
        let mut client = connect_to(address)?;
        let (copy, insert) = (client.prepare(COPY)?, client.prepare(INSERT)?);
        Ok(Self { client, copy, insert, tape })
    }

    fn throughput(&mut self, batch: usize, seconds: f64) -> Result<Span> {
        let mut bytes = Vec::new();
        let mut span = Span::starting_now(seconds);
        while now_ns() < span.until_ns {
            bytes.clear();
            bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
            (0..batch).for_each(|_| write_row(&self.tape.next_tick().1, &mut bytes));
            bytes.extend_from_slice(&(-1_i16).to_be_bytes());
            let mut copy = self.client.copy_in(&self.copy)?;
            copy.write_all(&bytes)?;
            let rows = copy.finish()?;
            ensure!(rows == batch as u64, "COPY took {rows} of {batch} rows");
            span.acked(now_ns(), rows);
        }
        Ok(span)
    }

    fn closed_loop(&mut self) -> Result<Histogram<u64>> {
        let mut taken = histogram()?;
        for turn in 0..crate::ACKS + crate::ACKS_UNMEASURED {
            let tick = self.tape.next_tick().1;
            let start_ns = now_ns();
            self.insert(&tick)?;
            if turn >= crate::ACKS_UNMEASURED {
                taken.record((now_ns() - start_ns).max(1))?;
            }
        }
        Ok(taken)
    }

    fn open_loop(&mut self, open: &Open) -> Result<Histogram<u64>> {
        clock::settle();
        let mut taken = histogram()?;
        loop {
            let n = open.next.fetch_add(1, Ordering::Relaxed);
            if n >= open.count {
                return Ok(taken);
            }
            let intended_ns = open.start_ns + n * SECOND_NS / crate::OPEN_RATE;
            let tick = self.tape.next_tick().1;
            sleep_until(intended_ns);
            self.insert(&tick)?;
            if intended_ns >= open.measured_from_ns {
                taken.saturating_record((now_ns() - intended_ns).max(1));
            }
        }
    }

    fn insert(&mut self, tick: &Tick) -> Result<()> {
        let [market, id, trader] = [tick.market.bits(), tick.id, tick.trader.bits()].map(|number| number as i64);
        let (side, source) = (i16::from(tick.side), tick.source as i32);
        let values: [&(dyn postgres::types::ToSql + Sync); 9] = [
            &market,
            &id,
            &tick.event_time_ns,
            &tick.price,
            &tick.volume,
            &trader,
            &side,
            &tick.received_delta_us,
            &source,
        ];
        let rows = self.client.execute(&self.insert, &values)?;
        ensure!(rows == 1, "INSERT took {rows} rows");
        Ok(())
    }
}

/// A row of the binary format: 16 bits of columns, then 32 bits of length before each value, all big-endian.
fn write_row(tick: &Tick, out: &mut Vec<u8>) {
    fn column<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
        out.extend_from_slice(&(N as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out.extend_from_slice(&9_u16.to_be_bytes());
    column(out, tick.market.bits().to_be_bytes());
    column(out, tick.id.to_be_bytes());
    column(out, tick.event_time_ns.to_be_bytes());
    column(out, tick.price.to_be_bytes());
    column(out, tick.volume.to_be_bytes());
    column(out, tick.trader.bits().to_be_bytes());
    column(out, u16::from(tick.side).to_be_bytes());
    column(out, tick.received_delta_us.to_be_bytes());
    column(out, tick.source.to_be_bytes());
}
