//! The suite's results as a table in Markdown, with the shape of the machine above it.
//! Tested here on made-up results.

use super::{Outcome, ROWS, Results, Target};
use crate::report::{Figure, Spread};
use std::fmt::{self, Display, Write};
use std::fs;

/// The results of all servers, each with one outcome for each of the suite's rows.
pub(super) struct Table<'a> {
    /// In the order of the columns; the first is held against the targets.
    pub(super) results: &'a [Results],
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        let (mut head, mut line) = ("| what |".to_owned(), "|---|".to_owned());
        for (index, results) in self.results.iter().enumerate() {
            write!(head, " {} | floor | ratio |", results.server)?;
            line.push_str("---|---|---|");
            if index == 0 {
                head.push_str(" target |");
                line.push_str("---|");
            }
        }
        writeln!(f, "{head}\n{line}")?;
        for (row, (index, name)) in ROWS.iter().zip(ROWS.iter().map(|row| row.name).enumerate()) {
            for (measure, target) in row.shows {
                let kind = measure.split(',').next().filter(|kind| kind.starts_with('p')).unwrap_or_default();
                write!(f, "| {name}{}{kind} |", if kind.is_empty() { "" } else { ", " })?;
                for (contender, results) in self.results.iter().enumerate() {
                    let cells = Cells::of(&results.rows[index], measure);
                    write!(f, " {} | {} | {} |", cells.server, cells.floor, cells.ratio)?;
                    if contender == 0 {
                        write!(f, " {} |", verdict(*target, &cells))?;
                    }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// What one server has in one row.
#[derive(Default)]
struct Cells {
    /// The server's own number.
    server: String,
    /// The floor's in the same runs.
    floor: String,
    /// Their ratio with quartiles.
    ratio: String,
    /// The number that a target of the kind [`Target::Most`] is held against.
    value: Option<f64>,
    /// The ratio that a target of the kind [`Target::Floor`] is held against.
    times: Option<f64>,
}

impl Cells {
    /// The cells of `outcome` that show `measure`.
    fn of(outcome: &Outcome, measure: &str) -> Self {
        match outcome {
            Outcome::Absent => Self { server: "–".to_owned(), ..Self::default() },
            // A bar would end the cell.
            Outcome::Failed { failed } => {
                Self { server: format!("failed: {}", failed.replace('|', "/")), ..Self::default() }
            }
            Outcome::Memory(report) => {
                let figure = |memory: &crate::idle::Memory| Figure(memory.per_connection).to_string();
                Self {
                    server: figure(&report.server),
                    floor: report.floor.as_ref().map(figure).unwrap_or_default(),
                    value: Some(report.server.per_connection),
                    ..Self::default()
                }
            }
            Outcome::Runs(report) => match report.measure(measure) {
                None => Self { server: "not measured".to_owned(), ..Self::default() },
                Some(measure) => Self {
                    server: Figure(measure.server.median).to_string(),
                    floor: measure.floor.map(|floor| Figure(floor.median).to_string()).unwrap_or_default(),
                    ratio: measure.ratio.map(|ratio| Spread(ratio).to_string()).unwrap_or_default(),
                    value: Some(measure.server.median),
                    times: measure.ratio.map(|ratio| ratio.median),
                },
            },
        }
    }
}

/// The target, and whether it holds.
fn verdict(target: Target, cells: &Cells) -> String {
    let (words, found, most) = match target {
        Target::None => return String::new(),
        Target::Floor(most) => (format!("≤ {most} × floor"), cells.times, most),
        Target::Most(most) => (format!("≤ {most}"), cells.value, most),
    };
    match found {
        None => words,
        Some(found) if found <= most => format!("{words}: held"),
        Some(_) => format!("{words}: **missed**"),
    }
}

/// The shape of this machine, as far as the system tells.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Not the parallelism available here, which is one when this program is pinned.
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("processor of unknown name", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpus} CPUs ({model}), Linux {}, loopback, 128 bytes of JSON data.", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Run};

    fn runs(server: f64, floor: f64) -> Outcome {
        let run = |cpu| Run { cpu_us: Some(cpu), p50_us: Some(cpu), p99_us: Some(cpu), ..Run::default() };
        Outcome::Runs(Report::new(String::new(), String::new(), "x", vec![run(server)], vec![run(floor)]))
    }

    #[test]
    fn each_row_has_its_numbers_and_its_verdict() {
        let mut first: Vec<Outcome> = ROWS.iter().map(|_| runs(1.2, 1.0)).collect();
        first[2] = Outcome::Failed { failed: "a | b".to_owned() };
        let second = ROWS.iter().map(|_| Outcome::Absent).collect();
        let results = [Results { server: "tieline", rows: first }, Results { server: "other", rows: second }];
        let text = Table { results: &results }.to_string();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines[0], "| what | tieline | floor | ratio | target | other | floor | ratio |");
        let columns = lines[0].matches('|').count();
        assert!(lines.iter().all(|line| line.matches('|').count() == columns), "{text}");
        assert_eq!(lines.len(), 2 + ROWS.iter().map(|row| row.shows.len()).sum::<usize>());
        assert!(lines[2].contains("| 1.20 | 1.00 | 1.20 | ≤ 1.15 × floor: **missed** | – |"), "{}", lines[2]);
        assert!(lines[3].ends_with("≤ 1.3 × floor: held | – |  |  |"), "{}", lines[3]);
        assert!(lines[4].contains("failed: a / b"));
        assert!(text.contains("unicast at 1,000/s, µs, p99 |"), "{text}");
        assert!(text.contains("| ≤ 40: held |"), "{text}");
    }
}
