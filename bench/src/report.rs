//! Tables: a summary for people, the details for those who doubt it.

use std::{fmt, fmt::Write as _};

use crate::{
    measure::{Outcome, Row},
    memory::Memory,
    sample::Sample,
    workload::Workload,
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
    let mut text = String::from("CPU time per request in µs, median [min–max] of the rounds:\n\n| |");
    for contestant in &outcome.contestants {
        let _ = write!(text, " {} |", contestant.name);
    }
    let ours = outcome.contestants.iter().position(|c| !c.is_peer);
    text.push_str(" sidecar ÷ better peer |\n|---|");
    text.push_str(&"---|".repeat(outcome.contestants.len() + 1));
    text.push('\n');
    for row in &outcome.rows {
        let _ = write!(text, "| {} |", row.workload.title());
        for place in 0..outcome.contestants.len() {
            let _ = write!(text, " {} |", cell(row.spread(place, |sample| sample.micros), 1));
        }
        let ratio = ours.and_then(|place| Spread::of(row.against_better_peer(outcome, place)));
        let _ = writeln!(text, " {} |", cell(ratio, 2));
    }
    text.push_str(&disturbance(outcome));
    text.push_str(&login_ratio(outcome));
    text.push_str(&memory_table(outcome));
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
    let place = |name: &str| outcome.contestants.iter().position(|c| c.name == name);
    let login = outcome.rows.iter().find(|row| row.workload == Workload::Login);
    let ratio = (|| {
        let (with, without) = (place("sidecar")?, place("sidecar-no-store")?);
        let samples = login?.rounds.iter().filter_map(|round| Some((round.get(with)?, round.get(without)?)));
        Spread::of(samples.map(|(with, without)| with.micros / without.micros))
    })();
    ratio.map_or_else(String::new, |ratio| {
        format!("\nA recorded login costs {ratio:.2} times the same request without a store.\n")
    })
}

fn memory_table(outcome: &Outcome) -> String {
    let mut text = String::from(
        "\n| | idle, MB | per idle connection, kB | after they closed, MB | ready, ms |\n|---|---|---|---|---|\n",
    );
    for (contestant, memory) in outcome.contestants.iter().zip(&outcome.memory) {
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
        "| | | CPU µs/request | of it user | requests/s | its core busy, % | by others, % | load's core busy, % | ÷ better peer |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &outcome.rows {
        for (place, contestant) in outcome.contestants.iter().enumerate() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.workload.name(),
                contestant.name,
                cell(row.spread(place, |sample| sample.micros), 1),
                cell(row.spread(place, |sample| sample.user_micros), 1),
                cell(row.spread(place, |sample| sample.per_second), 0),
                cell(row.spread(place, |sample| sample.busy * 100.0), 0),
                cell(row.spread(place, |sample| sample.others * 100.0), 0),
                cell(row.spread(place, |sample| sample.load_busy * 100.0), 0),
                cell(Spread::of(row.against_better_peer(outcome, place)), 2),
            );
        }
    }
    text
}

impl Row {
    fn spread(&self, place: usize, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(place)).map(figure))
    }

    /// Round by round, so that the machine's drift cancels out.
    fn against_better_peer(&self, outcome: &Outcome, place: usize) -> Vec<f64> {
        let ratio = |round: &Vec<Sample>| {
            let peers = outcome.contestants.iter().zip(round).filter(|(c, _)| c.is_peer);
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
}
