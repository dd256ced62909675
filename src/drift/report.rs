//! What an audit found, as a table for people and as JSON for programs. Session ids are no secrets; nothing
//! else of a session is shown.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

use super::compare::{Cause, Excuse, Kind};
use crate::{
    session::{Seconds, SessionId},
    store::redis::LastAudit,
};

/// Sessions that are named for each cause.
const EXAMPLES: usize = 20;

/// What was found, counted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rows of `auth.sessions` that were read.
    pub rows: u64,
    /// Sessions that the store has a record of; one or the other may be counted twice while Redis grows.
    pub sessions: u64,
    /// Whether differences were to be repaired.
    pub repair: bool,
    /// How long it took.
    pub took: Duration,
    drift: [Count; Cause::ALL.len()],
    excused: [Count; Excuse::ALL.len()],
}

/// Sessions of one cause.
#[derive(Clone, Debug, Default)]
struct Count {
    found: u64,
    repaired: u64,
    examples: Vec<SessionId>,
}

impl Count {
    fn add(&mut self, session: SessionId, repaired: bool) {
        self.found += 1;
        self.repaired += u64::from(repaired);
        if self.examples.len() < EXAMPLES {
            self.examples.push(session);
        }
    }

    fn json(&self) -> Map<String, Value> {
        let examples: Vec<String> = self.examples.iter().map(ToString::to_string).collect();
        let fields = [("sessions", self.found.into()), ("examples", examples.into())];
        fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect()
    }
}

impl Report {
    /// Of an audit that has seen nothing yet.
    pub(super) fn new(repair: bool) -> Self {
        Self { repair, ..Self::default() }
    }

    /// A session that differs.
    pub(super) fn drifted(&mut self, cause: Cause, session: SessionId, repaired: bool) {
        if let Some(count) = self.drift.get_mut(cause as usize) {
            count.add(session, repaired);
        }
    }

    /// A session that only the database has, and may.
    pub(super) fn excused(&mut self, excuse: Excuse, session: SessionId) {
        if let Some(count) = self.excused.get_mut(excuse as usize) {
            count.add(session, false);
        }
    }

    /// Sessions that differ in this way, repaired or not.
    pub fn found(&self, kind: Kind) -> u64 {
        self.causes().filter(|(cause, _)| cause.kind() == kind).map(|(_, count)| count.found).sum()
    }

    /// Sessions that differ for this reason, repaired or not.
    pub fn found_of(&self, cause: Cause) -> u64 {
        self.causes().filter(|(of, _)| *of == cause).map(|(_, count)| count.found).sum()
    }

    /// Sessions that only the database has for this reason.
    pub fn excused_of(&self, excuse: Excuse) -> u64 {
        self.excused.get(excuse as usize).map_or(0, |count| count.found)
    }

    /// Sessions that were put right.
    pub fn repaired(&self) -> u64 {
        self.causes().map(|(_, count)| count.repaired).sum()
    }

    /// Sessions that still differ.
    pub fn left(&self) -> u64 {
        self.causes().map(|(_, count)| count.found - count.repaired).sum()
    }

    /// For the metrics.
    pub(super) fn last_audit(&self, at: Seconds) -> LastAudit {
        LastAudit {
            at,
            missing: self.found(Kind::Missing),
            surplus: self.found(Kind::Surplus),
            differing: self.found(Kind::Differing),
            repaired: self.repaired(),
        }
    }

    /// For people: counts, then examples.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let took = self.took.as_secs_f64();
        let _ = writeln!(text, "{:<34}{:>12}", "rows in auth.sessions", self.rows);
        let _ = writeln!(text, "{:<34}{:>12}", "sessions in the store", self.sessions);
        for (cause, count) in self.causes() {
            let name = format!("{:<10} {}", cause.kind().as_str(), cause.as_str());
            let repaired = if self.repair { format!("  repaired {}", count.repaired) } else { String::new() };
            let _ = writeln!(text, "{name:<34}{:>12}{repaired}", count.found);
        }
        for (excuse, count) in Excuse::ALL.iter().zip(&self.excused) {
            let name = format!("{:<10} {}", "no drift", excuse.as_str());
            let _ = writeln!(text, "{name:<34}{:>12}", count.found);
        }
        for (name, count) in self.named().filter(|(_, count)| !count.examples.is_empty()) {
            let _ = writeln!(text, "\n{name}, for example");
            for session in &count.examples {
                let _ = writeln!(text, "  {session}");
            }
        }
        let _ = match self.left() {
            0 => writeln!(text, "\nno drift left, after {took:.1} s"),
            left => writeln!(text, "\n{left} sessions differ, after {took:.1} s"),
        };
        text
    }

    /// For programs: one object, on one line.
    pub fn json(&self) -> String {
        let mut drift = Map::new();
        for kind in Kind::ALL {
            let causes = self.causes().filter(|(cause, _)| cause.kind() == kind);
            let causes: Map<String, Value> = causes
                .map(|(cause, count)| {
                    let mut fields = count.json();
                    fields.insert("repaired".to_owned(), count.repaired.into());
                    (cause.as_str().to_owned(), Value::Object(fields))
                })
                .collect();
            drift.insert(kind.as_str().to_owned(), Value::Object(causes));
        }
        let excused = Excuse::ALL.iter().zip(&self.excused);
        let no_drift: Map<String, Value> = excused
            .map(|(excuse, count)| (excuse.as_str().to_owned(), Value::Object(count.json())))
            .collect();
        let report = json!({
            "rows": self.rows,
            "sessions": self.sessions,
            "drift": drift,
            "no_drift": no_drift,
            "repair": self.repair,
            "repaired": self.repaired(),
            "left": self.left(),
            "seconds": self.took.as_secs_f64(),
        });
        format!("{report}\n")
    }

    fn causes(&self) -> impl Iterator<Item = (Cause, &Count)> {
        Cause::ALL.into_iter().zip(&self.drift)
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Count)> {
        let drift = self.causes().map(|(cause, count)| (cause.as_str(), count));
        drift
            .chain(Excuse::ALL.into_iter().zip(&self.excused).map(|(excuse, count)| (excuse.as_str(), count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        SessionId::parse(&format!("0191d1a0-0000-7000-8000-{number:012}")).unwrap()
    }

    fn report() -> Report {
        let mut report = Report { rows: 3, sessions: 2, repair: true, ..Report::default() };
        report.drifted(Cause::Unknown, session(1), true);
        report.drifted(Cause::Aal, session(2), false);
        report.excused(Excuse::EndedHere, session(3));
        report
    }

    #[test]
    fn a_cause_stands_at_its_place() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
        for (place, excuse) in Excuse::ALL.into_iter().enumerate() {
            assert_eq!(excuse as usize, place);
        }
    }

    #[test]
    fn counts_add_up() {
        let report = report();
        assert_eq!(Kind::ALL.map(|kind| report.found(kind)), [1, 0, 1]);
        assert_eq!((report.repaired(), report.left()), (1, 1));
        let expected = LastAudit { at: 9, missing: 1, surplus: 0, differing: 1, repaired: 1 };
        assert_eq!(report.last_audit(9), expected);
    }

    #[test]
    fn examples_are_bounded() {
        let mut report = Report::default();
        for number in 0..100 {
            report.drifted(Cause::RowGone, session(number), false);
        }
        assert_eq!(report.found_of(Cause::RowGone), 100);
        assert_eq!(report.text().matches("0191d1a0").count(), EXAMPLES);
    }

    #[test]
    fn both_forms_say_the_same() {
        let report = report();
        let text = report.text();
        for line in ["missing    unknown", "differing  aal", "no drift   ended_here", "1 sessions differ"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["drift"]["missing"]["unknown"]["repaired"], 1);
        assert_eq!(json["drift"]["differing"]["aal"]["sessions"], 1);
        assert_eq!(json["no_drift"]["ended_here"]["examples"][0], session(3).to_string());
        assert_eq!((&json["rows"], &json["left"], &json["repaired"]), (&json!(3), &json!(1), &json!(1)));
    }
}
