//! A request's body: read within its bounds of bytes and time, unpacked within bounds of its own.
//!
//! ```text
//!   frames -> room for all bodies -> bytes (8 MiB, 3 s and 64 KiB/s) -> zstd? -> plain bytes (16 MiB, window 8 MiB)
//! ```
//!
//! Invariant: what is held is paid for from [`Room`] before it is held. Deliberately absent: what the bytes say (`rows.rs`).

use super::failure::{Failure, HttpCode};
use super::limits;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures_lite::StreamExt as _;
use myelin_wire::Code;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::DCtx;

/// What all bodies together may take, in units of [`UNIT`].
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// **Units:** bytes.
const UNIT: usize = 4096;

impl Room {
    /// All of it free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(limits::BODIES_BYTES / UNIT)))
    }

    /// Nothing held yet.
    pub fn hold(&self) -> Held {
        Held { room: self.clone(), permit: None, held: 0 }
    }
}

/// What one request holds of it.
#[derive(Debug)]
pub struct Held {
    room: Room,
    permit: Option<OwnedSemaphorePermit>,
    held: usize,
}

impl Held {
    /// Holds at least so much. **Errors:** others have it: retrying helps.
    fn at_least(&mut self, bytes: usize) -> Result<(), Failure> {
        let more = bytes.saturating_sub(self.held).div_ceil(UNIT);
        if more == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.room.0).try_acquire_many_owned(more as u32);
        let permit = permit.map_err(|_| Failure::busy("other bodies take all the room there is"))?;
        self.held += more * UNIT;
        match &mut self.permit {
            Some(mine) => mine.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// `Content-Encoding: zstd`.
    Zstd,
}

impl Packing {
    /// As the head says. **Errors:** any other.
    pub fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Self::Plain) };
        let value = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match value.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "zstd" => Ok(Self::Zstd),
            other => {
                let message = format!("Content-Encoding is zstd or identity, not '{other}'");
                Err(Failure::http(HttpCode::UnsupportedMedia, message))
            }
        }
    }
}

/// Reads all of it. **Errors:** too long, too slow, cut short, no room.
pub async fn read(headers: &HeaderMap, body: Body, held: &mut Held) -> Result<Vec<u8>, Failure> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut frames = body.into_data_stream();
    let started = Instant::now();
    let mut bytes = Vec::new();
    let refused = loop {
        if length.unwrap_or(0).max(bytes.len()) > limits::BODY_BYTES {
            break oversize("as it is sent", limits::BODY_BYTES);
        }
        let due = started + limits::BODY_GRACE + Duration::from_millis(bytes.len() as u64 * 1000 / limits::BODY_RATE);
        match timeout_at(due, frames.next()).await {
            Ok(Some(Ok(frame))) => {
                if let Err(refused) = held.at_least(bytes.len() + frame.len()) {
                    break refused;
                }
                bytes.extend_from_slice(&frame);
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => {
                return Err(Failure::wire(Code::BadBody, format!("the body ended early: {error}")));
            }
            Err(_) => {
                let message = format!("{} bytes of the body came in {:?}", bytes.len(), started.elapsed());
                return Err(Failure::http(HttpCode::BodyTimeout, message));
            }
        }
    };
    // A sender that is still writing sees a reset and not the answer, if the connection is closed now.
    drop(bytes);
    let until = Instant::now() + limits::DRAIN_WITHIN;
    let mut drained = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(until, frames.next()).await {
        drained += frame.len();
        if drained > limits::DRAIN_BYTES {
            break;
        }
    }
    Err(refused)
}

fn oversize(how: &str, bytes: usize) -> Failure {
    Failure::wire(Code::Oversize, format!("a body has at most {bytes} bytes {how}: send it in several requests"))
}

/// How much is unpacked before room is asked for again. **Units:** bytes.
const STEP: usize = 256 << 10;

/// Gives the plain bytes. **Errors:** damaged, more than the bound, a window above the bound.
pub fn unpack(bytes: Vec<u8>, packing: Packing, held: &mut Held) -> Result<Vec<u8>, Failure> {
    match packing {
        Packing::Plain => Ok(bytes),
        Packing::Zstd => {
            let mut context = DCtx::try_create().ok_or_else(|| Failure::busy("no memory to unpack a body with"))?;
            unpack_zstd(&bytes, &mut context, held)
        }
    }
}

/// The same with a context that is at hand: to make one, zstd asks the processor what it can, and on a virtual machine each
/// of these questions goes to its host.
pub(super) fn unpack_zstd(bytes: &[u8], context: &mut DCtx<'static>, held: &mut Held) -> Result<Vec<u8>, Failure> {
    let mut decoder = Decoder::with_context(bytes, context);
    decoder.window_log_max(limits::ZSTD_WINDOW_LOG).map_err(|error| damaged(&error))?;
    let mut plain = Vec::new();
    loop {
        held.at_least(bytes.len() + plain.len() + STEP)?;
        let read = (&mut decoder).take(STEP as u64).read_to_end(&mut plain).map_err(|error| damaged(&error))?;
        if plain.len() > limits::DECODED_BYTES {
            return Err(oversize("when it is unpacked", limits::DECODED_BYTES));
        }
        if read < STEP {
            return Ok(plain);
        }
    }
}

fn damaged(error: &std::io::Error) -> Failure {
    let said = error.to_string();
    // The library's own words are all that tells this error from others.
    if said.contains("too much memory") {
        let bytes = 1_usize << limits::ZSTD_WINDOW_LOG;
        return Failure::wire(
            Code::Oversize,
            format!("the zstd window has at most {bytes} bytes: pack it without --long"),
        );
    }
    Failure::wire(Code::BadBody, format!("the zstd stream is damaged: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(packed: Vec<u8>) -> Result<usize, String> {
        let room = Room::new();
        unpack(packed, Packing::Zstd, &mut room.hold())
            .map(|plain| plain.len())
            .map_err(|failure| failure.words().code.to_owned())
    }

    #[test]
    fn a_packed_body_is_bounded_in_size_and_window_and_must_be_whole() {
        let packed = |bytes: usize| zstd::encode_all(&vec![7; bytes][..], 3).unwrap();
        assert_eq!(code(packed(100_000)), Ok(100_000));
        assert_eq!(code(packed(limits::DECODED_BYTES)), Ok(limits::DECODED_BYTES));
        assert_eq!(code(packed(limits::DECODED_BYTES + 1)), Err("oversize".to_owned()));
        let whole = packed(100_000);
        assert_eq!(code(whole[..whole.len() - 1].to_vec()), Err("bad_body".to_owned()));
        // A frame that asks for a window of 2 GiB, and one that asks for 8 MiB.
        assert_eq!(code(vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0]), Err("oversize".to_owned()));
        assert_eq!(code(vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3, 1, 0, 0]), Ok(0));
    }

    #[test]
    fn all_bodies_together_are_bounded() {
        let room = Room::new();
        let (mut one, mut other) = (room.hold(), room.hold());
        assert!(one.at_least(limits::BODIES_BYTES - UNIT).is_ok());
        assert!(other.at_least(UNIT).is_ok());
        assert!(other.at_least(UNIT + 1).is_err());
        drop(one);
        assert!(other.at_least(UNIT + 1).is_ok());
    }
}
