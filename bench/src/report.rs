//! Tables: a summary for people, the details for those who doubt it.

use std::{fmt, fmt::Write as _};

use crate::{
    contestant::{Contestant, Role},
    measure::{Outcome, Row},
    memory::Memory,
    sample::Sample,
    workload::{Table, Workload},
};

/// Median, smallest and largest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (lower, upper) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Self { median: f64::midpoint(*lower, *upper), min, max })
    }
}

/// `{:.1}` sets the digits of all three.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Self { median, min, max } = self;
        write!(f, "{median:.digits$} [{min:.digits$}–{max:.digits$}]")
    }
}

fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{spread:.digits$}"))
}

/// The tables of the README.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::from("CPU time per request in µs, median [min–max] of the rounds:\n\n");
    text.push_str(&table(outcome, Table::Requests));
    text.push_str(&login_ratio(outcome));
    text.push_str(&memory_table(outcome));
    if outcome.rows_of(Table::Checks).next().is_some() {
        text.push_str(CHECKS);
        text.push_str(&table(outcome, Table::Checks));
        text.push_str(&check_ratios(outcome));
    }
    text.push_str(&disturbance(outcome));
    text
}

const CHECKS: &str = "\nCPU time per check in µs. The sidecar has 1,000, 100,000 and 1,000,000 live sessions in its store, \
    recorded at sign-ins through it; it answers from memory what it asked within the last second, which of 98,304 sessions \
    in turn is never. nginx answers 200 to whatever it is asked. oauth2-proxy, where it is there, has 1,000 sessions of its \
    own in the same Redis and asks it every time:\n\n";

/// The rows of one table.
fn table(outcome: &Outcome, table: Table) -> String {
    let contestants = outcome.contestants_of(table);
    let mut text = String::from("| |");
    for contestant in &contestants {
        let _ = write!(text, " {} |", contestant.name);
    }
    // of those that are asked for checks, the one with the largest store
    let of_table = |role| contestants.iter().filter(move |contestant| contestant.role == role);
    let ours = match table {
        Table::Requests => of_table(Role::Ours).next(),
        Table::Checks => of_table(Role::Ours).next_back(),
    };
    let name = ours.map_or("sidecar", |contestant| contestant.name);
    let peer = match table {
        Table::Requests => "better peer",
        Table::Checks => of_table(Role::Peer).next().map_or("peer", |contestant| contestant.name),
    };
    let _ = writeln!(text, " {name} ÷ {peer} |\n|---|{}", "---|".repeat(contestants.len() + 1));
    for row in outcome.rows_of(table) {
        let _ = write!(text, "| {} |", row.workload.title());
        for contestant in &contestants {
            let spread =
                row.place(contestant.name).and_then(|place| row.spread(place, |sample| sample.micros));
            let _ = write!(text, " {} |", cell(spread, 1));
        }
        let ratio = row.place(name).and_then(|place| Spread::of(row.against_better_peer(place)));
        let _ = writeln!(text, " {} |", cell(ratio, 2));
    }
    text
}

/// A warning where the machine was not the contestants' own.
fn disturbance(outcome: &Outcome) -> String {
    const BEARABLE: f64 = 0.1;
    let samples = outcome.rows.iter().flat_map(|row| row.rounds.iter().flatten());
    let disturbed = samples.clone().filter(|sample| sample.others > BEARABLE).count();
    if disturbed == 0 {
        return String::new();
    }
    format!(
        "\nOther programs took more than {:.0} % of the contestant's core in {disturbed} of {} measurements: \
         repeat this on an idle machine.\n",
        BEARABLE * 100.0,
        samples.count()
    )
}

/// What recording a session costs: the same request through the same sidecar with and without a store.
fn login_ratio(outcome: &Outcome) -> String {
    let login = (Workload::Login, "sidecar");
    outcome.ratio(login, (Workload::Login, "sidecar-no-store")).map_or_else(String::new, |ratio| {
        format!("\nA recorded login costs {ratio:.2} times the same request without a store.\n")
    })
}

/// What others do to learn the same.
fn check_ratios(outcome: &Outcome) -> String {
    let check = (Workload::Remembered, "sidecar-1m");
    let mut text = String::new();
    if let Some(ratio) = outcome.ratio((Workload::Remembered, "oauth2-proxy"), check) {
        let _ = writeln!(
            text,
            "\noauth2-proxy's check costs {ratio:.1} times the sidecar's with a million sessions."
        );
    }
    if let Some(ratio) = outcome.ratio((Workload::Lookup, "sidecar"), check) {
        let _ = writeln!(
            text,
            "\nA `GET /user` to GoTrue costs the sidecar alone {ratio:.2} times that check, and then GoTrue its own work."
        );
    }
    text
}

fn memory_table(outcome: &Outcome) -> String {
    let mut text = String::from(
        "\n| | idle, MB | per idle connection, kB | after they closed, MB | ready, ms |\n|---|---|---|---|---|\n",
    );
    for (contestant, memory) in &outcome.memory {
        let column = |values: &[f64]| cell(Spread::of(values.iter().copied()), 1);
        let Memory { ready_millis, idle_megabytes, connection_kilobytes, afterwards_megabytes } = memory;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            contestant.name,
            column(idle_megabytes),
            column(connection_kilobytes),
            column(afterwards_megabytes),
            column(ready_millis),
        );
    }
    text
}

/// Every figure of every pair.
pub fn details(outcome: &Outcome) -> String {
    let mut text = String::from(
        "| | | CPU µs/request | of it user | requests/s | its core busy, % | by others, % | load's core busy, % | from memory, % | ÷ better peer |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &outcome.rows {
        for (place, contestant) in row.contestants.iter().enumerate() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.workload.name(),
                contestant.name,
                cell(row.spread(place, |sample| sample.micros), 1),
                cell(row.spread(place, |sample| sample.user_micros), 1),
                cell(row.spread(place, |sample| sample.per_second), 0),
                cell(row.spread(place, |sample| sample.busy * 100.0), 0),
                cell(row.spread(place, |sample| sample.others * 100.0), 0),
                cell(row.spread(place, |sample| sample.load_busy * 100.0), 0),
                cell(row.remembered(place), 0),
                cell(Spread::of(row.against_better_peer(place)), 2),
            );
        }
    }
    text
}

impl Outcome {
    fn rows_of(&self, table: Table) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.workload.table() == table)
    }

    /// Who is in a row of the table, in the order of the first row that has them.
    fn contestants_of(&self, table: Table) -> Vec<Contestant> {
        let mut all: Vec<Contestant> = Vec::new();
        for contestant in self.rows_of(table).flat_map(|row| &row.contestants) {
            if all.iter().all(|known| known.name != contestant.name) {
                all.push(*contestant);
            }
        }
        all
    }

    /// What one costs in units of the other, round by round.
    fn ratio(&self, one: (Workload, &str), other: (Workload, &str)) -> Option<Spread> {
        let micros = |(workload, name): (Workload, &str)| {
            let row = self.rows.iter().find(|row| row.workload == workload)?;
            let place = row.place(name)?;
            Some(row.rounds.iter().filter_map(move |round| round.get(place)).map(|sample| sample.micros))
        };
        Spread::of(micros(one)?.zip(micros(other)?).map(|(one, other)| one / other))
    }
}

impl Row {
    fn place(&self, name: &str) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.name == name)
    }

    fn spread(&self, place: usize, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(place)).map(figure))
    }

    fn remembered(&self, place: usize) -> Option<Spread> {
        let shares = self.rounds.iter().filter_map(|round| round.get(place)?.remembered);
        Spread::of(shares.map(|share| share * 100.0))
    }

    /// Round by round, so that the machine's drift cancels out.
    fn against_better_peer(&self, place: usize) -> Vec<f64> {
        let ratio = |round: &Vec<Sample>| {
            let peers = self.contestants.iter().zip(round).filter(|(c, _)| c.role == Role::Peer);
            let better = peers.map(|(_, sample)| sample.micros).min_by(f64::total_cmp)?;
            Some(round.get(place)?.micros / better)
        };
        self.rounds.iter().filter_map(ratio).collect()
    }
}

/// A document whose text between `<!-- bench -->` and `<!-- /bench -->` is replaced; `None` without the two.
pub fn splice(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once("<!-- bench -->")?;
    let (_, after) = rest.split_once("<!-- /bench -->")?;
    Some(format!("{before}<!-- bench -->\n{table}<!-- /bench -->{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(format!("{spread:.1}"), "2.5 [1.0–4.0]");
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let readme = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n";
        let spliced = splice(readme, "new\n").unwrap();
        assert_eq!(spliced, "a\n<!-- bench -->\nnew\n<!-- /bench -->\nb\n");
        assert_eq!(splice(&spliced, "new\n").unwrap(), spliced);
        assert_eq!(splice("no markers", "new"), None);
    }

    #[test]
    fn who_is_not_in_a_row_has_no_figure_there() {
        let sample = |micros| Sample {
            micros,
            user_micros: 0.0,
            per_second: 0.0,
            busy: 0.0,
            others: 0.0,
            load_busy: 0.0,
            remembered: None,
        };
        let row = |workload, names: &[&str]| Row {
            workload,
            contestants: names.iter().filter_map(|name| Contestant::named(name)).collect(),
            rounds: vec![(0..names.len()).map(|place| sample(10.0 * (place + 1) as f64)).collect()],
        };
        let rows = vec![
            row(Workload::Remembered, &["nginx-200", "sidecar-1k", "sidecar-1m"]),
            row(Workload::Asked, &["nginx-200", "sidecar-1m"]),
        ];
        let text = table(&Outcome { rows, memory: Vec::new() }, Table::Checks);
        let last = text.lines().last().unwrap();
        assert!(last.ends_with("| 10.0 [10.0–10.0] | – | 20.0 [20.0–20.0] | 2.00 [2.00–2.00] |"), "{text}");
        assert!(text.lines().next().unwrap().ends_with("sidecar-1m ÷ nginx-200 |"), "{text}");
    }
}
