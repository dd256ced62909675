//! What one cell found, and the table of all.

use std::{fmt::Write as _, time::Duration};

use super::{Cell, world::Differing};

/// The result of one cell.
pub(super) struct Report {
    pub(super) cell: Cell,
    pub(super) requests: usize,
    /// Answers that were not GoTrue's.
    pub(super) errors: usize,
    /// What the slowest request took.
    pub(super) longest: Duration,
    /// What nine of ten took once the fault had lasted a second.
    pub(super) once_known: Option<Duration>,
    /// From the end of the fault, without anybody doing anything.
    pub(super) true_after: Option<Duration>,
    /// What was still different then.
    pub(super) differing: Vec<Differing>,
    complaints: Vec<String>,
}

impl Report {
    pub(super) fn new(cell: Cell) -> Self {
        Self {
            cell,
            requests: 0,
            errors: 0,
            longest: Duration::ZERO,
            once_known: None,
            true_after: None,
            differing: Vec::new(),
            complaints: Vec::new(),
        }
    }

    pub(super) fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    pub(super) fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }

    /// What was wrong, with the cell's name.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        self.complaints.iter().map(|complaint| format!("{}: {complaint}", self.cell.name()))
    }

    /// Its row of the table.
    pub(super) fn line(&self) -> String {
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let or_dash = |time: Option<Duration>| time.map_or_else(|| "–".to_owned(), ms);
        let true_after = self.true_after.map_or_else(|| "its next use".to_owned(), ms);
        format!(
            "{} {} | {} | {} | {} | {true_after} | {} |",
            head(self.cell),
            self.requests,
            self.errors,
            ms(self.longest),
            or_dash(self.once_known),
            self.differing.len(),
        )
    }
}

/// The part of a row that is known without a run.
pub(super) fn head(cell: Cell) -> String {
    let Cell { shape, fault } = cell;
    format!("| {} | {} | {} | {} |", shape.as_str(), fault.as_str(), cell.what(), cell.loss().as_str())
}

/// The table of docs/faults.md.
pub(super) fn table(reports: &[Report]) -> String {
    let mut table = "| shape | fault | what is done; what ends it | may lose | requests | errors | longest wait | once known | true after | lost |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for cell in Cell::all() {
        for report in reports.iter().filter(|report| report.cell == cell) {
            let _ = writeln!(table, "{}", report.line());
        }
    }
    table
}
