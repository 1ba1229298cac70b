//! [`StoreReport`]: what was measured, as a table for people and as JSON for machines. It measures nothing. Tested here.

use std::fmt::{self, Display};

use serde::Serialize;
use tieline_bench::statistics::Quartiles;
use tieline_bench::{Figure, Spread};

use super::StoreBenchArgs;

/// What one run gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Run {
    /// Acknowledged appends, or flushes.
    pub(super) per_second: f64,
    /// What half of them did not exceed.
    pub(super) p50_ms: f64,
    /// What one in a hundred exceeded.
    pub(super) p99_ms: f64,
    /// Bytes written to disks for each.
    pub(super) bytes_each: Option<f64>,
}

/// All runs of one load.
#[derive(Clone, Debug, Serialize)]
struct Load {
    /// How many appended at once; none for the floor.
    writers: Option<u32>,
    /// Over the runs.
    per_second: Option<Quartiles>,
    /// Over the runs.
    p50_ms: Option<Quartiles>,
    /// Over the runs.
    p99_ms: Option<Quartiles>,
    /// Over the runs.
    bytes_each: Option<Quartiles>,
    /// Over the ratios of each run to the floor of its round.
    times_floor: Option<Quartiles>,
    runs: Vec<Run>,
}

impl Load {
    fn new(writers: Option<u32>) -> Self {
        Load {
            writers,
            per_second: None,
            p50_ms: None,
            p99_ms: None,
            bytes_each: None,
            times_floor: None,
            runs: Vec::new(),
        }
    }

    fn add(&mut self, run: Run, floor: Option<&Load>) {
        self.runs.push(run);
        let of = |value: fn(&Run) -> Option<f64>| Quartiles::of(self.runs.iter().filter_map(value));
        self.per_second = of(|run| Some(run.per_second));
        self.p50_ms = of(|run| Some(run.p50_ms));
        self.p99_ms = of(|run| Some(run.p99_ms));
        self.bytes_each = of(|run| run.bytes_each);
        let pairs = floor.into_iter().flat_map(|floor| floor.runs.iter().zip(&self.runs));
        self.times_floor =
            Quartiles::of(pairs.map(|(floor, run)| run.per_second / floor.per_second.max(1e-9)));
    }
}

/// The result of `tieline bench store`.
#[derive(Clone, Debug, Serialize)]
pub struct StoreReport {
    /// Bytes of a message.
    bytes: u32,
    /// Seconds of a run.
    seconds: f64,
    floor: Option<Load>,
    loads: Vec<Load>,
}

impl StoreReport {
    pub(super) fn new(args: &StoreBenchArgs) -> Self {
        let loads = args.writers.iter().map(|writers| Load::new(Some(*writers))).collect();
        StoreReport { bytes: args.bytes, seconds: args.duration.as_secs_f64(), floor: None, loads }
    }

    /// A run of the floor, before those of the loads of the same round.
    pub(super) fn add_floor(&mut self, run: Run) {
        self.floor.get_or_insert_with(|| Load::new(None)).add(run, None);
    }

    /// A run of the load with this index in the arguments.
    pub(super) fn add(&mut self, index: usize, run: Run) {
        self.loads[index].add(run, self.floor.as_ref());
    }

    /// The whole of it, each run too.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("numbers and names can always be written");
        text + "\n"
    }
}

impl Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.loads.first().map_or(0, |load| load.runs.len());
        writeln!(
            f,
            "{} bytes each, {rounds} rounds of {} s; median (quartiles)\n",
            self.bytes, self.seconds
        )?;
        let row = |f: &mut fmt::Formatter<'_>, cells: [String; 6]| {
            let [name, rate, times, p50, p99, bytes] = cells;
            writeln!(f, "{name:<16}{rate:>26}{times:>20}{p50:>24}{p99:>24}{bytes:>10}")
        };
        let times = if self.floor.is_some() { "× floor" } else { "" };
        row(f, ["", "appends/s", times, "p50, ms", "p99, ms", "bytes"].map(str::to_owned))?;
        let spread =
            |value: Option<Quartiles>| value.map_or_else(String::new, |value| Spread(value).to_string());
        for load in self.floor.iter().chain(&self.loads) {
            let name = match load.writers {
                None => "floor".to_owned(),
                Some(1) => "1 writer".to_owned(),
                Some(writers) => format!("{writers} writers"),
            };
            let bytes =
                load.bytes_each.map_or_else(String::new, |bytes| Figure(bytes.median.round()).to_string());
            let rest = [load.per_second, load.times_floor, load.p50_ms, load.p99_ms].map(spread);
            let [rate, times, p50, p99] = rest;
            row(f, [name, rate, times, p50, p99, bytes])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(per_second: f64) -> Run {
        Run { per_second, p50_ms: 1.0, p99_ms: 2.0, bytes_each: Some(4096.0) }
    }

    #[test]
    fn ratios_are_those_of_one_round() {
        let args = StoreBenchArgs {
            store: "memory:".parse(),
            writers: vec![1, 16],
            bytes: 64,
            duration: Duration::from_secs(1),
            rounds: 2,
            json: false,
        };
        let mut report = StoreReport::new(&args);
        for (floor, one, many) in [(100.0, 90.0, 1000.0), (10.0, 8.0, 400.0), (50.0, 45.0, 1000.0)] {
            report.add_floor(run(floor));
            report.add(0, run(one));
            report.add(1, run(many));
        }
        let ratio = |load: usize| report.loads[load].times_floor.unwrap().median;
        assert_eq!((ratio(0), ratio(1)), (0.9, 20.0));
        let text = report.to_string();
        assert!(text.starts_with("64 bytes each, 3 rounds of 1 s; median (quartiles)\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("16 writers")).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["16 writers", "1000 (700.0–1000)", "20.0 (15.0–30.0)", "1.00", "2.00", "4096"]);
    }
}
