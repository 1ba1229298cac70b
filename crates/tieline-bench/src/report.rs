//! Results: as JSON for machines, as a table for people, as a row of Markdown for the documents.
//! It measures nothing. Tested here.

use crate::course::Sample;
use crate::statistics::Quartiles;
use serde::Serialize;
use std::fmt::{self, Display};

/// What one run gave, per delivery or per connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Run {
    /// Deliveries, or connections opened.
    pub(crate) count: u64,
    /// Messages sent; none in a run of connections.
    pub(crate) messages: u64,
    /// Wall time.
    pub(crate) seconds: f64,
    /// Count per second.
    pub(crate) per_second: f64,
    /// The server's processor time for each, when its process is known.
    pub(crate) cpu_us: Option<f64>,
    /// The part of the wall time in which the generator was on a processor; near 1 it is the bottleneck.
    pub(crate) generator_busy: f64,
    /// Average bytes of a delivery on the wire.
    pub(crate) frame_bytes: usize,
    /// Median latency, only at a rate.
    pub(crate) p50_us: Option<f64>,
    /// Latency that one delivery in a hundred exceeds, only at a rate.
    pub(crate) p99_us: Option<f64>,
}

impl From<&Sample> for Run {
    fn from(sample: &Sample) -> Self {
        let seconds = sample.wall.as_secs_f64().max(1e-9);
        let latency = |part| sample.latency.as_ref().map(|latency| latency.quantile(part) as f64 / 1e3);
        Self {
            count: sample.deliveries,
            messages: sample.messages,
            seconds,
            per_second: sample.deliveries as f64 / seconds,
            cpu_us: sample.cpu_per_delivery(),
            generator_busy: sample.own_cpu.as_secs_f64() / seconds,
            frame_bytes: sample.frame_bytes(),
            p50_us: latency(0.5),
            p99_us: latency(0.99),
        }
    }
}

/// One quantity over all runs of a load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    /// Its name, with unit.
    pub(crate) name: &'static str,
    /// Over the server's runs.
    pub(crate) server: Quartiles,
    /// Over the floor's runs.
    pub(crate) floor: Option<Quartiles>,
    /// Over the pairs' ratios of server to floor.
    pub(crate) ratio: Option<Quartiles>,
}

/// Takes one quantity from a run that has it.
type Quantity = fn(&Run) -> Option<f64>;

/// All runs of one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The load and its parameters, in words.
    pub(crate) load: String,
    /// The protocol spoken.
    pub(crate) protocol: String,
    /// What is counted: deliveries or connections.
    pub(crate) counted: &'static str,
    /// Quantities over all runs.
    pub(crate) measures: Vec<Measure>,
    /// Runs against the server.
    pub(crate) server: Vec<Run>,
    /// Runs against the floor, the n-th before the server's n-th.
    pub(crate) floor: Vec<Run>,
}

impl Report {
    /// Summarises runs; `floor` is empty or as long as `server`.
    pub(crate) fn new(
        load: String,
        protocol: String,
        counted: &'static str,
        server: Vec<Run>,
        floor: Vec<Run>,
    ) -> Self {
        let quantities: [(&'static str, Quantity); 5] = [
            ("server CPU, µs", |run| run.cpu_us),
            ("p50, µs", |run| run.p50_us),
            ("p99, µs", |run| run.p99_us),
            ("per second", |run| Some(run.per_second)),
            ("generator busy", |run| Some(run.generator_busy)),
        ];
        let measures = quantities
            .into_iter()
            .filter_map(|(name, value)| {
                let ratios = floor.iter().zip(&server).filter_map(|(floor, server)| {
                    Some(value(server)? / value(floor).filter(|floor| *floor > 0.0)?)
                });
                Some(Measure {
                    name,
                    server: Quartiles::of(server.iter().filter_map(value))?,
                    floor: Quartiles::of(floor.iter().filter_map(value)),
                    ratio: Quartiles::of(ratios),
                })
            })
            .collect();
        Self { load, protocol, counted, measures, server, floor }
    }

    /// The measure with this name.
    pub(crate) fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}", self.load, self.protocol)?;
        let counts: u64 = self.server.iter().map(|run| run.count).sum();
        let seconds: f64 = self.server.iter().map(|run| run.seconds).sum();
        let bytes = self.server.first().map_or(0, |run| run.frame_bytes);
        write!(f, "{counts} {} in {seconds:.2} s and {} runs, all right", self.counted, self.server.len())?;
        if bytes > 0 {
            write!(f, "; {bytes} bytes each")?;
        }
        writeln!(f, "\n\n{:<18}{:>26}{:>26}{:>22}", "median (quartiles)", "server", "floor", "ratio")?;
        for measure in &self.measures {
            let floor = measure.floor.map(Spread).map_or_else(String::new, |spread| spread.to_string());
            let ratio = measure.ratio.map(Spread).map_or_else(String::new, |spread| spread.to_string());
            let server = Spread(measure.server).to_string();
            writeln!(f, "{:<18}{server:>26}{floor:>26}{ratio:>22}", measure.name)?;
        }
        Ok(())
    }
}

/// A median with its quartiles behind it.
pub struct Spread(
    /// What is shown.
    pub Quartiles,
);

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quartiles { lower, median, upper } = self.0;
        if lower == upper {
            return write!(f, "{}", Figure(median));
        }
        write!(f, "{} ({}–{})", Figure(median), Figure(lower), Figure(upper))
    }
}

/// A number with as many decimals as its size deserves.
pub struct Figure(
    /// What is shown.
    pub f64,
);

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            size if size >= 1000.0 => write!(f, "{:.0}", self.0),
            size if size >= 10.0 => write!(f, "{:.1}", self.0),
            size if size >= 0.1 => write!(f, "{:.2}", self.0),
            _ => write!(f, "{:.3}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with this much processor time for each delivery.
    fn run(cpu_us: f64) -> Run {
        Run {
            count: 10,
            seconds: 1.0,
            per_second: 10.0,
            cpu_us: Some(cpu_us),
            frame_bytes: 200,
            ..Run::default()
        }
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        let floor = vec![run(1.0), run(2.0), run(4.0)];
        let server = vec![run(2.0), run(2.0), run(12.0)];
        let report = Report::new("fan-out".into(), "tieline.v1".into(), "deliveries", server, floor);
        let cpu = report.measure("server CPU, µs").unwrap();
        assert_eq!(cpu.ratio.unwrap().median, 2.0);
        assert_eq!((cpu.server.median, cpu.floor.unwrap().median), (2.0, 2.0));
        assert!(report.measure("p99, µs").is_none());
        let text = report.to_string();
        assert!(text.contains("30 deliveries in 3.00 s and 3 runs, all right; 200 bytes each"), "{text}");
        assert!(text.contains("2.00 (1.50–2.50)"), "{text}");
    }

    #[test]
    fn without_a_floor_there_is_no_ratio() {
        let report = Report::new("idle".into(), "x".into(), "deliveries", vec![run(0.05)], Vec::new());
        let cpu = report.measure("server CPU, µs").unwrap();
        assert!(cpu.floor.is_none() && cpu.ratio.is_none());
        assert!(report.to_string().contains("0.050"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["server"][0]["cpu_us"], 0.05);
        assert_eq!(json["measures"][0]["ratio"], serde_json::Value::Null);
    }
}
