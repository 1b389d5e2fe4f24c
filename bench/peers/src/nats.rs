//! NATS JetStream, one stream in files, its plain protocol. Debian's 2.9 answers **before** it syncs (every two minutes
//! by default, without a setting for "always"): its figures are those of a weaker promise, and labelled so.
//!
//! A tick is a message of 64 bytes; a batch is so many messages in one write, each with its own answer.

use crate::Settings;
use crate::pipe::{Dialect, measure};
use crate::report::Figures;
use crate::server::{DataDir, Server, Stop, free_address, output_of};
use anyhow::{Context, Result, bail, ensure};
use myelin_datom::Tick;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const SETUP: &str = "JetStream, file storage; answers BEFORE it syncs";

const CREATE: &str = r#"{"name":"T","subjects":["ticks"],"storage":"file","retention":"limits","discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"num_replicas":1}"#;

/// The longest that the server's API may take.
const ANSWER: Duration = Duration::from_secs(30);

pub(crate) fn version() -> Result<String> {
    Ok(output_of(Command::new("nats-server").arg("--version"))?.trim().trim_start_matches("nats-server: ").to_owned())
}

/// One round.
pub(crate) fn round(settings: &Settings) -> Result<Figures> {
    let address = free_address()?;
    let dir = DataDir::new(&settings.dir, "nats")?;
    let port = address.port().to_string();
    let words = ["nats-server", "-js", "-sd", ".", "-a", "127.0.0.1", "-p", &port].map(str::to_owned);
    let server = Server::start(&words, None, address, dir, Stop::Term)?;
    let socket = TcpStream::connect(server.address)?;
    request(socket.try_clone()?, "$JS.API.STREAM.CREATE.T", CREATE)?;
    let empty = || request(TcpStream::connect(server.address)?, "$JS.API.STREAM.PURGE.T", "");
    measure(server.address, settings, Plain::new, empty)
}

/// Asks the server's API once. **Errors:** also when the answer names an error.
fn request(mut socket: TcpStream, subject: &str, body: &str) -> Result<()> {
    socket.set_read_timeout(Some(ANSWER))?;
    let mut plain = Plain::new();
    plain.hello(&mut socket)?;
    write!(socket, "PUB {subject} {} {}\r\n{body}\r\n", plain.inbox, body.len())?;
    let mut lines = BufReader::new(socket);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let bytes = line.split_whitespace().last().and_then(|word| word.parse().ok());
    let mut answer = vec![0; bytes.with_context(|| format!("NATS: {line}"))?];
    lines.read_exact(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(!answer.contains("\"error\""), "NATS: {answer}");
    Ok(())
}

/// The client protocol of text. Answers come to a subject of this connection's own: all who listen to one get them all.
struct Plain {
    inbox: String,
}

impl Plain {
    fn new() -> Self {
        static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
        Self { inbox: format!("_I.{}", CONNECTIONS.fetch_add(1, Ordering::Relaxed)) }
    }
}

impl Dialect for Plain {
    fn hello(&mut self, socket: &mut TcpStream) -> Result<()> {
        let inbox = &self.inbox;
        write!(socket, "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\nPING\r\n")?;
        let mut lines = BufReader::with_capacity(1 << 12, socket);
        let mut line = String::new();
        while line != "PONG\r\n" {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "NATS closed the connection");
            ensure!(!line.starts_with("-ERR"), "NATS: {line}");
        }
        Ok(())
    }

    fn ask(&mut self, ticks: &[Tick], out: &mut Vec<u8>) -> usize {
        for tick in ticks {
            out.extend_from_slice(b"PUB ticks ");
            out.extend_from_slice(self.inbox.as_bytes());
            out.extend_from_slice(b" 64\r\n");
            out.extend_from_slice(bytemuck::bytes_of(tick));
            out.extend_from_slice(b"\r\n");
        }
        ticks.len()
    }

    /// `MSG _I.7 1 26\r\n{"stream":"T", "seq":1234}\r\n`
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, usize)> {
        let (mut at, mut answers) = (0, 0);
        while let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n').map(|end| at + end + 1) {
            let line = &bytes[at..end];
            if line.starts_with(b"PING") {
                // Four unanswered minutes of these are forgiven; no connection of ours grows that old.
                at = end;
                continue;
            }
            let length: Option<usize> =
                std::str::from_utf8(line).ok().and_then(|line| line.trim_end().rsplit(' ').next()?.parse().ok());
            let (true, Some(length)) = (line.starts_with(b"MSG "), length) else {
                bail!("NATS: {}", String::from_utf8_lossy(line));
            };
            let Some(body) = bytes.get(end..end + length + 2) else { break };
            if !body.starts_with(b"{\"stream\"") {
                bail!("NATS: {}", String::from_utf8_lossy(body));
            }
            at = end + length + 2;
            answers += 1;
        }
        Ok((at, answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_acks_are_answers() {
        let ack = b"MSG _I.7 1 22\r\n{\"stream\":\"T\",\"seq\":1}\r\n";
        let twice = [&ack[..], ack].concat();
        for (upto, expected) in [(5, (0, 0)), (20, (0, 0)), (39, (39, 1)), (60, (39, 1)), (78, (78, 2))] {
            assert_eq!(Plain::new().hear(&twice[..upto]).unwrap(), expected);
        }
        assert!(Plain::new().hear(b"-ERR 'Slow Consumer'\r\n").is_err());
        assert!(Plain::new().hear(b"MSG _I.7 1 12\r\n{\"error\":{}}\r\n").is_err());
    }
}
