//! One column of one block: how its cells are coded, and the way back.
//!
//! ```text
//!   constant   one cell, no pages
//!   whole      cell = multiplier * number               numbers: pco, i64
//!   decimal    cell = number / 10^exponent (f64 bits)   numbers: pco, i64
//!   float      cell = number (f64 bits)                 numbers: pco, f64
//! ```
//! Invariants: every cell comes back bit for bit: a coding is taken only after every cell was seen to survive it; pages
//! of [`PAGE_ROWS`] rows are decoded on their own. Deliberately absent: a compression of our own; prices arrive as decimal
//! strings, so scaling them (as ALP does) gives pco what the source meant: measured on the recorded trades 0.30 instead of
//! 0.43 bytes a price and 3.5 instead of 6.3 ns to decode one, against pco's own float mode.

use pco::metadata::DeltaEncoding;
use pco::wrapped::{ChunkDecompressor, FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::Shape;

/// Rows of a page, but for the last of a block.
pub(crate) const PAGE_ROWS: usize = 2048;
/// pco's level: 8 saves 1.5 % more bytes and costs 15 % more time; 4 costs 6 % more bytes.
const LEVEL: usize = 6;
/// Digits after the point that are tried.
const EXPONENT_MAX: u8 = 15;
/// Beyond this a scaled price may not come back.
const SCALED_MAX: f64 = (1_u64 << 51) as f64;

/// The powers of ten that a float holds exactly, as far as they are used.
const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// How a column is coded. The numbers are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Constant { cell: u64 },
    Whole { multiplier: u64 },
    Decimal { exponent: u8 },
    Float,
}

impl Coding {
    /// **Shape:** kind, exponent, operand.
    pub(crate) fn fields(self) -> (u8, u8, u64) {
        match self {
            Self::Constant { cell } => (0, 0, cell),
            Self::Whole { multiplier } => (1, 0, multiplier),
            Self::Decimal { exponent } => (2, exponent, 0),
            Self::Float => (3, 0, 0),
        }
    }

    pub(crate) fn from_fields(kind: u8, exponent: u8, operand: u64) -> Option<Self> {
        match (kind, exponent, operand) {
            (0, 0, cell) => Some(Self::Constant { cell }),
            (1, 0, multiplier) => Some(Self::Whole { multiplier }),
            (2, exponent, 0) if exponent <= EXPONENT_MAX => Some(Self::Decimal { exponent }),
            (3, 0, 0) => Some(Self::Float),
            _ => None,
        }
    }
}

/// A coded column, ready to be laid out.
pub(crate) struct Coded {
    pub coding: Coding,
    /// pco's chunk metadata, then the pages; empty when constant.
    bytes: Vec<u8>,
    meta_len: usize,
    /// Where each page ends, from the end of the metadata.
    pub page_ends: Vec<u32>,
}

impl Coded {
    /// pco's chunk metadata.
    pub(crate) fn meta(&self) -> &[u8] {
        &self.bytes[..self.meta_len]
    }

    /// The pages, one behind the other.
    pub(crate) fn pages(&self) -> &[u8] {
        &self.bytes[self.meta_len..]
    }
}

/// Buffers that are reused from column to column.
#[derive(Default)]
pub(crate) struct Encoder {
    numbers: Vec<i64>,
    pco: FileCompressor,
}

impl Encoder {
    /// Codes a column of at least one cell, in pages of `page_rows`.
    pub(crate) fn encode(&mut self, shape: Shape, cells: &[u64], page_rows: usize) -> Coded {
        if cells.iter().all(|&cell| cell == cells[0]) {
            let coding = Coding::Constant { cell: cells[0] };
            return Coded { coding, bytes: Vec::new(), meta_len: 0, page_ends: Vec::new() };
        }
        let near = DeltaSpec::TryConsecutive(1);
        match shape {
            Shape::Rising => self.whole(cells, near, page_rows),
            Shape::Small | Shape::Delta => self.whole(cells, near, page_rows),
            Shape::Whole => self.whole(cells, DeltaSpec::NoOp, page_rows),
            Shape::Price => self.float(cells, near, page_rows),
            Shape::Volume => self.float(cells, DeltaSpec::NoOp, page_rows),
        }
    }

    fn whole(&mut self, cells: &[u64], delta: DeltaSpec, page_rows: usize) -> Coded {
        let divides = |multiplier: i64| cells.iter().all(|&cell| cell as i64 % multiplier == 0);
        let multiplier = [1_000_000_000, 1_000_000, 1_000].into_iter().find(|&m| divides(m)).unwrap_or(1);
        self.numbers.clear();
        self.numbers.extend(cells.iter().map(|&cell| cell as i64 / multiplier));
        let coding = Coding::Whole { multiplier: multiplier as u64 };
        compress(&self.pco, coding, &self.numbers, ModeSpec::Classic, delta, page_rows)
    }

    fn float(&mut self, cells: &[u64], delta: DeltaSpec, page_rows: usize) -> Coded {
        let floats: &[f64] = bytemuck::cast_slice(cells);
        match decimals(floats).filter(|&exponent| self.scale(floats, exponent)) {
            Some(exponent) => {
                let coding = Coding::Decimal { exponent };
                compress(&self.pco, coding, &self.numbers, ModeSpec::Classic, delta, page_rows)
            }
            None => compress(&self.pco, Coding::Float, floats, ModeSpec::Auto, DeltaSpec::Auto, page_rows),
        }
    }

    /// Scales every float; false when one does not come back bit for bit.
    fn scale(&mut self, floats: &[f64], exponent: u8) -> bool {
        self.numbers.clear();
        let mut sound = true;
        self.numbers.extend(floats.iter().map(|&float| {
            let number = scaled(float, exponent);
            sound &= survives(float, number, exponent);
            number as i64
        }));
        sound
    }
}

/// The nearest whole number; meaningless beyond [`SCALED_MAX`], which [`survives`] tells.
#[inline]
fn scaled(float: f64, exponent: u8) -> f64 {
    const ROUNDER: f64 = 1.5 * (1_u64 << 52) as f64;
    (float * POWERS[exponent as usize] + ROUNDER) - ROUNDER
}

#[inline]
fn survives(float: f64, number: f64, exponent: u8) -> bool {
    // -0.0 scales to 0.0 or -0.0; through an integer it comes back as 0.0, so bits are compared after that way.
    ((number as i64 as f64) / POWERS[exponent as usize]).to_bits() == float.to_bits() && number.abs() < SCALED_MAX
}

/// The fewest digits after the point that every number might have.
fn decimals(floats: &[f64]) -> Option<u8> {
    let mut exponent = 0;
    for &float in floats {
        while !survives(float, scaled(float, exponent), exponent) {
            exponent += 1;
            if exponent > EXPONENT_MAX {
                return None;
            }
        }
    }
    Some(exponent)
}

fn compress<T: pco::data_types::Number>(
    pco: &FileCompressor,
    coding: Coding,
    numbers: &[T],
    mode: ModeSpec,
    delta: DeltaSpec,
    page_rows: usize,
) -> Coded {
    let mut pages = vec![page_rows; numbers.len() / page_rows];
    pages.extend(Some(numbers.len() % page_rows).filter(|&rest| rest > 0));
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(mode)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(pages.clone()));
    let mut bytes = Vec::new();
    let mut page_ends = Vec::with_capacity(pages.len());
    let mut write = || -> pco::errors::PcoResult<usize> {
        let mut chunk = pco.chunk_compressor(numbers, &config)?;
        chunk.write_meta(&mut bytes)?;
        let meta_len = bytes.len();
        for page in 0..pages.len() {
            chunk.write_page(page, &mut bytes)?;
            page_ends.push((bytes.len() - meta_len) as u32);
        }
        Ok(meta_len)
    };
    match write() {
        Ok(meta_len) => Coded { coding, meta_len, bytes, page_ends },
        Err(error) => unreachable!("pco writes numbers to memory: {error}"),
    }
}

/// Decodes one column page by page.
pub(crate) enum Decoder {
    Constant(u64),
    Whole(Box<ChunkDecompressor<i64>>, u64),
    Decimal(Box<ChunkDecompressor<i64>>, u8),
    Float(Box<ChunkDecompressor<f64>>),
}

impl Decoder {
    /// Reads a column's metadata; `None` when it is malformed.
    pub(crate) fn new(pco: &FileDecompressor, coding: Coding, meta: &[u8]) -> Option<Self> {
        Some(match coding {
            Coding::Constant { cell } => Self::Constant(cell),
            Coding::Whole { multiplier } => Self::Whole(chunk(pco, meta)?, multiplier),
            Coding::Decimal { exponent } => Self::Decimal(chunk(pco, meta)?, exponent),
            Coding::Float => Self::Float(chunk(pco, meta)?),
        })
    }

    /// Decodes a page of `cells.len()` rows into `cells`; `None` when it is malformed.
    pub(crate) fn page(&mut self, page: &[u8], cells: &mut [u64]) -> Option<()> {
        match self {
            Self::Constant(cell) => cells.fill(*cell),
            Self::Whole(chunk, multiplier) => {
                read(chunk, page, bytemuck::cast_slice_mut(cells))?;
                if *multiplier != 1 {
                    cells.iter_mut().for_each(|cell| *cell = cell.wrapping_mul(*multiplier));
                }
            }
            Self::Decimal(chunk, exponent) => {
                read(chunk, page, bytemuck::cast_slice_mut(cells))?;
                let power = POWERS[*exponent as usize];
                cells.iter_mut().for_each(|cell| *cell = (*cell as i64 as f64 / power).to_bits());
            }
            Self::Float(chunk) => read(chunk, page, bytemuck::cast_slice_mut::<_, f64>(cells))?,
        }
        Some(())
    }
}

/// What pco's metadata begins with for values by dictionary: the low four bits.
const BY_DICTIONARY: u8 = 4;
/// Longest window that pco's writer looks back over is 2^15 numbers.
const WINDOW_LOG_MAX: u32 = 15;

/// Opens a column, unless its metadata asks for memory that our own writer never needs: a dictionary, which it does not use
/// and which pco makes room for before it reads it, or a window beyond the writer's. Found by the campaign `index-runs`: 128
/// MiB for a page of a few bytes.
fn chunk<T: pco::data_types::Number>(pco: &FileDecompressor, meta: &[u8]) -> Option<Box<ChunkDecompressor<T>>> {
    if meta.first()? & 0x0f == BY_DICTIONARY {
        return None;
    }
    let (chunk, _) = pco.chunk_decompressor(meta).ok()?;
    let window_log = match &chunk.meta().delta_encoding {
        DeltaEncoding::Lookback { config, .. } => config.window_n_log,
        _ => 0,
    };
    (window_log <= WINDOW_LOG_MAX).then(|| Box::new(chunk))
}

fn read<T: pco::data_types::Number>(chunk: &mut ChunkDecompressor<T>, page: &[u8], numbers: &mut [T]) -> Option<()> {
    let mut decompressor = chunk.page_decompressor(page, numbers.len()).ok()?;
    let progress = decompressor.read(numbers).ok()?;
    (progress.n_processed == numbers.len()).then_some(())
}
