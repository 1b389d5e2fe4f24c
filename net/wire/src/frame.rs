//! A frame: a 64-byte header and a body, padded with zeros to a multiple of 8.
//!
//! ```text
//!  0 magic "MYLN" |  4 version | 5 kind | 6 flags:2 |  8 body bytes:4 | 12 body CRC:4
//! 16 session:8    | 24 request:8    | 32 tx:8       | 40 shard:2 | 42 code:2 | 44 count:4
//! 48 aux:8        | 56 credit:4     | 60 header CRC:4
//! ```
//!
//! All numbers are little-endian. Both checksums are CRC-32/ISO-HDLC; the header's covers bytes 0..60, the body's covers
//! the body without padding and is kept, as the client computed it, down to the log record.

use thiserror::Error;

/// The first four bytes of every frame: `MYLN`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MYLN");
/// The version spoken here.
pub const VERSION: u8 = 1;
/// **Units:** bytes.
pub const HEADER_BYTES: usize = 64;
/// Frames are padded to a multiple of this, so that rows can be used in place. **Units:** bytes.
pub const ALIGN: usize = 8;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal;)*) => {
        /// What a frame is. Below 128 a client speaks, from 128 on a node.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant = $number,)* }
        impl Kind {
            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// The first frame of a connection.
    Hello = 1;
    /// `count` ticks of 64 bytes for `shard`, request `request` of `session`.
    Ticks = 2;
    /// `count` quotes of 64 bytes.
    Quotes = 3;
    /// Creates markets that do not exist yet and answers the ids of all that were named.
    Markets = 4;
    /// Lists the markets of a shard.
    ListMarkets = 5;
    /// Counts an attribute as of `tx` (0 = now), not before `aux` (`min_tx`).
    Count = 6;
    /// The newest row of a market as of `tx`.
    Latest = 7;
    /// Rows of a market, a page at a time.
    Rows = 8;
    /// Volume-weighted average price per market.
    Vwap = 9;
    /// Open, high, low, close and volume per interval of event time.
    Bars = 10;
    /// Registers a reflex.
    Register = 11;
    /// Removes a reflex.
    Remove = 12;
    /// Lists the reflexes of a shard.
    ListReflexes = 13;
    /// Subscribes this connection to firings.
    Subscribe = 14;
    /// Grants `count` more pushes.
    Credit = 15;
    /// After a retryable refusal: `aux` is the request the session goes on with.
    Resume = 16;
    /// Answered by [`Kind::Pong`] at once.
    Ping = 17;
    /// Asks for a `tx` that every shard can be read at: the shard's clock.
    Now = 18;
    /// What the shard has counted about itself.
    Status = 19;
    /// A transaction of facts.
    Transact = 20;
    /// Datoms of an order as of `tx`, a page at a time.
    Datoms = 21;
    /// What holds about one entity as of `tx`, a page at a time.
    Pull = 22;
    /// Says what is kept of markets: `count` rows of 24 bytes.
    Retain = 23;
    /// Lists what is kept, by policy and in fact.
    Policies = 24;
    /// The log as a stream, from any `tx`, then live.
    Tail = 25;
    /// The greatest markets of a shard by a measure.
    Top = 26;
    /// Ends the subscription or tail that began with this session and request.
    End = 27;
    /// What the ticks of a market, or of a shard, come to: sums that merge.
    Totals = 28;
    /// Answer to a hello.
    Welcome = 129;
    /// Durable and applied.
    Ack = 130;
    /// Refused, with `code` and a sentence.
    Refused = 131;
    /// Answer to a read or a command.
    Answer = 132;
    /// `count` firings.
    Firings = 133;
    /// Answer to a ping.
    Pong = 134;
    /// A subscription ended, with `code`.
    Ended = 135;
    /// `count` entries of the log.
    Tailed = 136;
}

/// Bits of [`Header::flags`].
impl Header {
    /// A verdict per row instead of all or nothing.
    pub const PARTIAL: u16 = 1;
    /// More pages follow.
    pub const MORE: u16 = 1 << 1;
    /// These firings come from history.
    pub const REPLAYED: u16 = 1 << 2;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// See the constants.
    pub flags: u16,
    /// **Units:** bytes, without padding.
    pub body_len: u32,
    /// CRC-32/ISO-HDLC of the body.
    pub body_crc: u32,
    /// The client's session, chosen at random by the client; 0 = none.
    pub session: u64,
    /// The request's number in its session and shard, from 1.
    pub request: u64,
    /// In requests the `as_of` of a read; in replies the `tx`.
    pub tx: u64,
    /// The shard spoken to.
    pub shard: u16,
    /// A refusal's code, else 0.
    pub code: u16,
    /// How many rows, items or credits.
    pub count: u32,
    /// What the kind says.
    pub aux: u64,
    /// In replies: how many requests the client may have under way.
    pub credit: u32,
    /// CRC-32/ISO-HDLC of the 60 bytes before.
    pub header_crc: u32,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(offset_of!(Header, kind) == 5);
    assert!(offset_of!(Header, body_len) == 8);
    assert!(offset_of!(Header, session) == 16);
    assert!(offset_of!(Header, tx) == 32);
    assert!(offset_of!(Header, shard) == 40);
    assert!(offset_of!(Header, count) == 44);
    assert!(offset_of!(Header, aux) == 48);
    assert!(offset_of!(Header, credit) == 56);
    assert!(offset_of!(Header, header_crc) == 60);
};

impl Header {
    /// A header of this kind with everything else zero; [`finish`] fills in lengths and checksums.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { magic: MAGIC, version: VERSION, kind: kind as u8, ..bytemuck::Zeroable::zeroed() }
    }

    fn crc(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..HEADER_BYTES - 4])
    }
}

/// One frame, checked, in place.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it says.
    pub header: Header,
    /// Which kind it is.
    pub kind: Kind,
    /// What it carries, 8-byte aligned if the buffer was.
    pub body: &'a [u8],
}

/// Why bytes are no frame. All of them end the connection: after one the next frame's start is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The first four bytes are not the magic.
    #[error("expected a frame, found {found:#010x} where the magic belongs")]
    Magic {
        /// What stood there.
        found: u32,
    },
    /// A version that is not spoken here.
    #[error("expected version {VERSION}, found {found}")]
    Version {
        /// What stood there.
        found: u8,
    },
    /// A body longer than allowed.
    #[error("a body of {len} bytes, {max} are allowed")]
    Oversize {
        /// The length it claims.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// The header's checksum does not fit.
    #[error("the header's checksum is {expected:#010x}, found {found:#010x}")]
    HeaderCrc {
        /// What we computed.
        expected: u32,
        /// What stood there.
        found: u32,
    },
    /// The body's checksum does not fit.
    #[error("the body's checksum is {expected:#010x}, found {found:#010x}")]
    BodyCrc {
        /// What we computed.
        expected: u32,
        /// What stood there.
        found: u32,
    },
    /// A kind that is not known here.
    #[error("kind {found} is not known")]
    Kind {
        /// What stood there.
        found: u8,
    },
}

impl WireError {
    /// The code to answer with before the connection is closed.
    #[must_use]
    pub const fn code(&self) -> crate::Code {
        match self {
            Self::Version { .. } => crate::Code::WrongVersion,
            Self::Oversize { .. } => crate::Code::Oversize,
            Self::Kind { .. } => crate::Code::UnknownKind,
            Self::Magic { .. } | Self::HeaderCrc { .. } | Self::BodyCrc { .. } => crate::Code::BadFrame,
        }
    }
}

/// The length of a frame with a body of `body` bytes. **Units:** bytes.
#[must_use]
pub const fn framed_len(body: usize) -> usize {
    HEADER_BYTES + body.next_multiple_of(ALIGN)
}

/// The first frame in `bytes` and how many bytes it takes, or `None` while it is not all there.
///
/// **Cost:** one pass over the body for its checksum; nothing is copied but the header.
/// **Errors:** lengths are refused before anything is believed about the rest.
pub fn decode(bytes: &[u8], max_body: u32) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(head) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.magic != MAGIC {
        return Err(WireError::Magic { found: header.magic });
    }
    if header.version != VERSION {
        return Err(WireError::Version { found: header.version });
    }
    let expected = header.crc();
    if header.header_crc != expected {
        return Err(WireError::HeaderCrc { expected, found: header.header_crc });
    }
    if header.body_len > max_body {
        return Err(WireError::Oversize { len: header.body_len, max: max_body });
    }
    let body_len = header.body_len as usize;
    let total = framed_len(body_len);
    let Some(framed) = bytes.get(..total) else { return Ok(None) };
    let kind = Kind::from_number(header.kind).ok_or(WireError::Kind { found: header.kind })?;
    let body = &framed[HEADER_BYTES..HEADER_BYTES + body_len];
    let expected = crc32fast::hash(body);
    if header.body_crc != expected {
        return Err(WireError::BodyCrc { expected, found: header.body_crc });
    }
    Ok(Some((Frame { header, kind, body }, total)))
}

/// Reserves the header of a frame at the end of `out`; write the body after it, then call [`finish`].
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    debug_assert!(start.is_multiple_of(ALIGN));
    out.resize(start + HEADER_BYTES, 0);
    start
}

/// Completes the frame that began at `start`: length, padding, checksums.
pub fn finish(out: &mut Vec<u8>, start: usize, mut header: Header) {
    let body_at = start + HEADER_BYTES;
    let body_len = out.len() - body_at;
    assert!(body_len <= u32::MAX as usize, "a body is bounded before it is written");
    header.body_len = body_len as u32;
    header.body_crc = crc32fast::hash(&out[body_at..]);
    header.header_crc = header.crc();
    out[start..body_at].copy_from_slice(bytemuck::bytes_of(&header));
    out.resize(start + framed_len(body_len), 0);
}

/// Appends a whole frame to `out`.
pub fn write_frame(out: &mut Vec<u8>, header: Header, body: &[u8]) {
    let start = begin(out);
    out.extend_from_slice(body);
    finish(out, start, header);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, Header { session: 7, request: 9, ..Header::new(Kind::Ping) }, body);
        out
    }

    #[test]
    fn a_frame_is_read_back_as_it_was_written_and_cut_ones_wait() {
        for len in [0, 1, 7, 8, 64, 1000] {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let bytes = frame_of(&body);
            assert!(bytes.len().is_multiple_of(ALIGN));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut], 4096).unwrap().is_none());
            }
            let (frame, taken) = decode(&bytes, 4096).unwrap().unwrap();
            assert_eq!((frame.kind, frame.body, taken), (Kind::Ping, &body[..], bytes.len()));
            assert_eq!((frame.header.session, frame.header.request), (7, 9));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let body = [3_u8; 40];
        let bytes = frame_of(&body);
        for bit in 0..(HEADER_BYTES + body.len()) * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&broken, 4096), Ok(Some(_))), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn an_oversize_body_is_refused_before_it_is_awaited() {
        let bytes = frame_of(&[0; 100]);
        assert_eq!(decode(&bytes[..HEADER_BYTES], 99).unwrap_err(), WireError::Oversize { len: 100, max: 99 });
    }
}
