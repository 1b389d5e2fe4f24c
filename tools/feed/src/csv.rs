//! A table's header and map made into a plan, and a line read by it.
//!
//! ```text
//!   header  received_ns , market , trade_id , ...        plan   0 -> received_time, ns
//!   map     received_time=received_ns:ns, ...                   1 -> market
//! ```
//!
//! A column is found once, by name; a row is then read by position, and has as many fields as the header. Deliberately
//! absent: anything that differs between Binance's tables and anyone else's.

use std::borrow::Cow;

use crate::columns::{ColumnMap, Field, How};
use crate::draft::{Draft, RowKind};
use crate::error::{Expected, Fault, Found, WHOLE_LINE};
use crate::fields::Fields;

pub(crate) struct Plan {
    header: Vec<String>,
    steps: Vec<Step>,
    market: Market,
    delimiter: u8,
    pub(crate) kind: RowKind,
}

struct Step {
    at: usize,
    field: Field,
    how: How,
}

enum Market {
    Column(usize),
    Always(String),
}

impl Plan {
    /// The error is a pair of what was expected and what was found.
    pub(crate) fn new(header: Vec<String>, map: &ColumnMap, delimiter: u8) -> Result<Self, (String, String)> {
        let mut market = map.market.clone().map(Market::Always);
        let mut steps = Vec::new();
        for mapped in &map.columns {
            let mut places = (0..header.len()).filter(|&at| header[at] == mapped.column);
            let at = match (places.next(), places.next()) {
                (Some(at), None) => at,
                (Some(_), Some(_)) => return Err((format!("one column {}", mapped.column), header.join(","))),
                (None, _) => return Err((format!("a column {}", mapped.column), header.join(","))),
            };
            if mapped.field == Field::Market {
                market = Some(Market::Column(at));
            } else {
                steps.push(Step { at, field: mapped.field, how: mapped.how });
            }
        }
        // In the order of the line, so that the first fault from the left is the one that is told.
        steps.sort_by_key(|step| step.at);
        match market {
            Some(market) => Ok(Self { header, steps, market, delimiter, kind: map.kind }),
            None => Err(("a column for market".to_owned(), header.join(","))),
        }
    }

    #[inline]
    pub(crate) fn draft<'a>(&'a self, line: &'a [u8], fields: &'a mut Fields) -> Result<Draft<'a>, Fault<'a>> {
        let cut = fields.cut(line, self.delimiter)?;
        if cut.len() != self.header.len() {
            let expected = Expected::Fields(self.header.len());
            return Err(Fault { column: WHOLE_LINE, expected, found: Found::Fields(cut.len()) });
        }
        let mut draft = Draft::new();
        draft.set_market(Cow::Borrowed(match &self.market {
            Market::Column(at) => cut.get(*at),
            Market::Always(name) => name.as_bytes(),
        }));
        for step in &self.steps {
            let text = cut.get(step.at);
            if let Err(expected) = draft.set(step.field, step.how, text) {
                return Err(self.fault(step.at, expected, text));
            }
        }
        Ok(draft)
    }

    #[cold]
    fn fault<'a>(&'a self, at: usize, expected: Expected, text: &'a [u8]) -> Fault<'a> {
        let column = self.header.get(at).map_or(WHOLE_LINE, |name| name.as_bytes());
        Fault { column, expected, found: Found::Bytes(text) }
    }
}
