//! What is asked of `GET /v2/query/as_of/{tx}`: its parameters, and which question they make.
//!
//! ```text
//!   parameters -> the question they lead to -> every parameter that is there has a use in it? -> asked
//!                                                       \- no: refused by name, nothing is read
//! ```
//!
//! Invariant: a parameter that a question does not use is refused, so that no answer is one to another question. What
//! each question uses stands here once ([`Question::uses`]) and in the table of `net/README.md`, which a test compares.
//! Deliberately absent: what the values mean.

use super::failure::{Failure, HttpCode};
use myelin_datom::{EntityId, Kind};
use myelin_wire::Attribute;
use serde::Deserialize;

/// All there are; each question uses some.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    pub(super) attribute: Option<String>,
    pub(super) market: Option<String>,
    pub(super) entity: Option<String>,
    /// Of a market: ticks or its quotes.
    pub(super) kind: Option<String>,
    /// Whose idents and whose facts; main where nothing is said.
    pub(super) partition: Option<String>,
    /// Only what later transactions said or stored.
    pub(super) since: Option<String>,
    /// Everything that was ever said.
    #[serde(default)]
    pub(super) history: bool,
    #[serde(default)]
    rows: bool,
    #[serde(default)]
    vwap: bool,
    pub(super) bars: Option<String>,
    pub(super) top: Option<String>,
    #[serde(default)]
    totals: bool,
    pub(super) limit: Option<u64>,
    /// The number of the row that a page begins at.
    pub(super) from_row: Option<u32>,
    /// Event time.
    pub(super) from: Option<String>,
    /// Likewise.
    pub(super) to: Option<String>,
    pub(super) min_tx: Option<String>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How many rows have an attribute.
    Count,
    /// The newest row of a market.
    Newest,
    /// A page of a market's rows.
    Rows,
    /// Averages.
    Vwap,
    /// Bars.
    Bars,
    /// The greatest markets.
    Top,
    /// Sum, average, least and greatest.
    Totals,
    /// Facts.
    Facts,
}

impl Question {
    /// Every one, as in the table of `net/README.md`.
    #[cfg(test)]
    const ALL: [Self; 8] =
        [Self::Count, Self::Newest, Self::Rows, Self::Vwap, Self::Bars, Self::Top, Self::Totals, Self::Facts];

    /// The parameters that lead to it, as people write them.
    const fn leads(self) -> &'static str {
        match self {
            Self::Count => "attribute=tick/id, quote/id or market/id",
            Self::Newest => "market=NAME or entity=ID alone",
            Self::Rows => "rows=true",
            Self::Vwap => "vwap=true",
            Self::Bars => "bars=LENGTH",
            Self::Top => "top=MEASURE",
            Self::Totals => "totals=true",
            Self::Facts => "an attribute or an entity of facts",
        }
    }

    /// The parameters it uses.
    const fn uses(self) -> &'static [&'static str] {
        match self {
            Self::Count => &["attribute", "market", "entity", "min_tx"],
            Self::Newest => &["market", "entity", "kind", "min_tx"],
            Self::Rows => &["rows", "market", "entity", "kind", "from_row", "since", "from", "to", "limit", "min_tx"],
            Self::Vwap => &["vwap", "market", "entity", "min_tx"],
            Self::Bars => &["bars", "market", "entity", "from", "to", "min_tx"],
            Self::Top => &["top", "limit", "from", "to", "min_tx"],
            Self::Totals => &["totals", "market", "entity", "from", "to", "min_tx"],
            Self::Facts => &["attribute", "entity", "market", "partition", "since", "history", "min_tx"],
        }
    }
}

impl Parameters {
    /// What they ask. **Errors:** nothing, several things at once, or one that a parameter among them has no use for.
    pub fn question(&self) -> Result<Question, Failure> {
        let question = self.leads_to().ok_or_else(|| {
            bad("ask for one of: attribute=NAME, market=NAME, rows=true, vwap=true, bars=LENGTH, top=MEASURE, totals=true")
        })?;
        let uses = question.uses();
        // Of a market's facts or an entity's the partition is its own.
        let owned = question == Question::Facts && (self.market.is_some() || self.entity.is_some());
        let idle = self.given().find(|name| !uses.contains(name) || owned && *name == "partition");
        match idle {
            None => Ok(question),
            Some(name) => {
                let message = format!(
                    "'{name}' has no use here: {} goes with {} only",
                    question.leads(),
                    uses.iter().filter(|used| !owned || **used != "partition").copied().collect::<Vec<_>>().join(", ")
                );
                Err(bad(message))
            }
        }
    }

    fn leads_to(&self) -> Option<Question> {
        let of_rows = self.attribute.as_deref().map(|name| Attribute::from_name(name).is_some());
        // Ticks and quotes are rows, and a market alone asks for its newest one.
        let of_facts = |text: &String| {
            let kind = text.parse().ok().and_then(|bits| EntityId::from_bits(bits).kind());
            matches!(kind, Some(Kind::Ordinary | Kind::Transaction | Kind::System))
        };
        match (of_rows, &self.entity) {
            _ if self.rows => Some(Question::Rows),
            _ if self.vwap => Some(Question::Vwap),
            _ if self.bars.is_some() => Some(Question::Bars),
            _ if self.top.is_some() => Some(Question::Top),
            _ if self.totals => Some(Question::Totals),
            (Some(true), _) => Some(Question::Count),
            (Some(false), _) => Some(Question::Facts),
            (None, Some(entity)) if of_facts(entity) || self.history || self.since.is_some() => Some(Question::Facts),
            (None, None) if self.market.is_none() => None,
            (None, _) => Some(Question::Newest),
        }
    }

    /// The names of those that are there.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let there = [
            ("attribute", self.attribute.is_some()),
            ("market", self.market.is_some()),
            ("entity", self.entity.is_some()),
            ("kind", self.kind.is_some()),
            ("partition", self.partition.is_some()),
            ("since", self.since.is_some()),
            ("history", self.history),
            ("rows", self.rows),
            ("vwap", self.vwap),
            ("bars", self.bars.is_some()),
            ("top", self.top.is_some()),
            ("totals", self.totals),
            ("limit", self.limit.is_some()),
            ("from_row", self.from_row.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("min_tx", self.min_tx.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name)
    }
}

/// A parameter that cannot be read, or has no use.
pub fn bad(message: impl Into<String>) -> Failure {
    Failure::http(HttpCode::BadQuery, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Query;
    use axum::http::Uri;

    fn asked(query: &str) -> Result<Question, String> {
        let uri: Uri = format!("/v2/query/as_of/now?{query}").parse().unwrap();
        let Query(parameters) = Query::<Parameters>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        parameters.question().map_err(|failure| failure.words().message.to_owned())
    }

    /// A value of each that can be read.
    fn sample(name: &str) -> String {
        let value = match name {
            "attribute" => "tick/id",
            "entity" => "0",
            "history" | "rows" | "vwap" | "totals" => "true",
            "limit" | "from_row" => "1",
            _ => "x",
        };
        format!("{name}={value}")
    }

    const ALONE: [(Question, &str); 8] = [
        (Question::Count, "attribute=quote/id"),
        (Question::Newest, "market=m"),
        (Question::Rows, "rows=true&market=m"),
        (Question::Vwap, "vwap=true"),
        (Question::Bars, "bars=1m&market=m"),
        (Question::Top, "top=volume"),
        (Question::Totals, "totals=true"),
        (Question::Facts, "attribute=person/name"),
    ];

    #[test]
    fn a_parameter_that_a_question_does_not_use_is_refused_by_its_name() {
        let all: Vec<&str> = Question::ALL.iter().flat_map(|question| question.uses()).copied().collect();
        for (question, query) in ALONE {
            assert_eq!(asked(query), Ok(question), "{query}");
            for name in &all {
                let leads =
                    matches!(*name, "rows" | "vwap" | "bars" | "top" | "totals" | "attribute" | "since" | "history");
                if question.uses().contains(name) || (leads && question == Question::Newest) || query.contains(name) {
                    continue;
                }
                let told = asked(&format!("{query}&{}", sample(name))).unwrap_err();
                // Of two that lead somewhere one is in the other's way, whichever is named.
                let other = matches!(*name, "rows" | "vwap" | "bars" | "top" | "totals" | "attribute");
                assert!(told.contains("has no use here"), "{query}&{name}: {told}");
                assert!(other || told.starts_with(&format!("'{name}'")), "{query}&{name}: {told}");
            }
        }
        assert!(asked("").unwrap_err().contains("ask for one of"));
        assert!(asked("colour=red").unwrap_err().contains("colour"));
    }

    #[test]
    fn an_entity_leads_to_facts_or_to_the_newest_row_by_what_it_is() {
        let market = EntityId::market(myelin_datom::Slot::of_name("x"), 7).bits();
        let ordinary = 3_u64 << 60;
        for (query, due) in [
            (format!("entity={market}"), Question::Newest),
            (format!("entity={market}&history=true"), Question::Facts),
            (format!("entity={market}&since=5"), Question::Facts),
            (format!("entity={market}&rows=true&since=5"), Question::Rows),
            (format!("entity={market}&kind=quote"), Question::Newest),
            (format!("entity={ordinary}"), Question::Facts),
            ("market=m&attribute=feed/gap".to_owned(), Question::Facts),
        ] {
            assert_eq!(asked(&query), Ok(due), "{query}");
        }
        assert!(asked("market=m&history=true").unwrap_err().starts_with("'history'"));
        assert!(asked("market=m&attribute=feed/gap&partition=p").unwrap_err().starts_with("'partition'"));
    }

    #[test]
    fn the_table_of_net_readme_says_what_each_question_uses() {
        let page = include_str!("../../net/README.md");
        for question in Question::ALL {
            let name = format!("| {} |", format!("{question:?}").to_lowercase());
            let row = page.lines().find(|line| line.starts_with(&name));
            let row = row.unwrap_or_else(|| panic!("'{name}' has a row"));
            let said: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            for name in question.uses().iter().filter(|name| **name != "min_tx") {
                assert!(said.iter().any(|said| said.split('=').next() == Some(name)), "{question:?}: {name}");
            }
        }
    }
}
