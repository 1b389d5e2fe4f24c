//! Redis, durable before it answers: an append-only file that is synced in every turn of its event loop.
//!
//! A batch is one `RPUSH` of so many 64-byte values: fewer and cheaper commands than `XADD`, so the best case for Redis.
//! Its rewriting of the file, which would fork in the middle of a run, is off.

use crate::Settings;
use crate::pipe::{Dialect, measure};
use crate::report::Figures;
use crate::server::{DataDir, Server, Stop, free_address, output_of};
use anyhow::{Result, bail, ensure};
use myelin_datom::Tick;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

pub(crate) const SETUP: &str = "appendonly yes, appendfsync always, save '', no rewrite during the run; RPUSH";

pub(crate) fn version() -> Result<String> {
    let said = output_of(Command::new("redis-server").arg("--version"))?;
    Ok(said.split_whitespace().find(|word| word.starts_with("v=")).map_or(said.clone(), |word| word[2..].to_owned()))
}

/// One round.
pub(crate) fn round(settings: &Settings) -> Result<Figures> {
    let address = free_address()?;
    let dir = DataDir::new(&settings.dir, "redis")?;
    let port = address.port().to_string();
    let words = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--dir", "."].into_iter().chain([
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
    ]);
    let words: Vec<String> = words.map(str::to_owned).collect();
    let server = Server::start(&words, None, address, dir, Stop::Term)?;
    let empty = || {
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(b"*2\r\n$3\r\nDEL\r\n$5\r\nticks\r\n")?;
        let mut answer = [0; 4];
        socket.read_exact(&mut answer)?;
        ensure!(answer[0] == b':', "DEL was refused");
        Ok(())
    };
    measure(server.address, settings, || Resp, empty)
}

/// RESP: the little of it that `RPUSH` takes.
struct Resp;

impl Dialect for Resp {
    fn hello(&mut self, _: &mut TcpStream) -> Result<()> {
        Ok(())
    }

    fn ask(&mut self, ticks: &[Tick], out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(format!("*{}\r\n$5\r\nRPUSH\r\n$5\r\nticks\r\n", ticks.len() + 2).as_bytes());
        for tick in ticks {
            out.extend_from_slice(b"$64\r\n");
            out.extend_from_slice(bytemuck::bytes_of(tick));
            out.extend_from_slice(b"\r\n");
        }
        1
    }

    /// `:12345\r\n`, the length of the list.
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, usize)> {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok((0, 0)) };
        let whole = &bytes[..=end];
        if let Some(at) = whole.iter().position(|byte| !matches!(byte, b':' | b'0'..=b'9' | b'\r' | b'\n')) {
            bail!("Redis: {}", String::from_utf8_lossy(&whole[at..]));
        }
        Ok((whole.len(), whole.iter().filter(|byte| **byte == b':').count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_integers_are_answers() {
        for (bytes, expected) in [("", (0, 0)), (":1", (0, 0)), (":1\r\n:2", (4, 1)), (":1\r\n:22\r\n", (9, 2))] {
            assert_eq!(Resp.hear(bytes.as_bytes()).unwrap(), expected);
        }
        assert!(Resp.hear(b":1\r\n-MISCONF no space\r\n").is_err());
    }
}
