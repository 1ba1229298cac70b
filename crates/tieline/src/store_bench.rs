//! `tieline bench store`: what a store takes in a second, how long each append waits, and what that writes to the disk.
//!
//! Beside each run of a file, in the same folder, a plain loop writes records of the same size to a file and flushes each to the disk:
//! the *floor*. Disks differ by a hundredfold, and change from minute to minute, so the ratio to the floor of the same
//! round is what counts. Floor and loads alternate. The report is in `report.rs`; tested there, and here with a
//! store in memory and one in a file.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_bench::statistics::Histogram;
use tieline_core::store::{Append, Cut, LogKey, Store, StoreError, fresh_epoch};
use tieline_core::unix_ms;
use tieline_proto::{GroupName, HubName, MessageId};

use crate::config::parse_duration;
use crate::store::{StoreOpenError, StoreUrl, StoreUrlError};

mod report;

use report::Run;
pub use report::StoreReport;

/// Flags of `tieline bench store`.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreBenchArgs {
    /// Store to append to, such as `sqlite:///tmp/bench.db` or `redis://127.0.0.1`: best one of its own
    // A mistake is told later: clap would repeat the whole address, with its password.
    #[arg(long, value_name = "URL", value_parser = |text: &str| Ok::<_, Infallible>(text.parse::<StoreUrl>()))]
    pub store: Result<StoreUrl, StoreUrlError>,
    /// How many append at once, each to a log of its own and one message at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,16,256",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub writers: Vec<u32>,
    /// Size of a message
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub bytes: u32,
    /// How long each run lasts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How often the floor and each load are run in turn
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a store could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StoreBenchError {
    /// Its address is none.
    #[error("--store: {0}")]
    Url(#[from] StoreUrlError),
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] StoreOpenError),
    /// It did not take an append.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The floor has no file, or the system does not tell what is written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// No runtime, or a writer that panicked.
    #[error("the writers cannot be run: {0}")]
    Writers(#[source] io::Error),
}

/// Measures, and tells.
///
/// # Errors
/// [`StoreBenchError`]; the logs that were made are then left.
pub fn run(args: &StoreBenchArgs) -> Result<StoreReport, StoreBenchError> {
    let url = args.store.clone()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(StoreBenchError::Writers)?;
    let store = runtime.block_on(url.open())?.store;
    let floor = match &url {
        // The disk of a server is the server's.
        StoreUrl::Memory | StoreUrl::Redis(_) => None,
        StoreUrl::Sqlite(path) => {
            let mut name = path.clone().into_os_string();
            name.push("-floor");
            Some(PathBuf::from(name))
        }
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        StoreUrl::Sql(_) => None,
    };
    let mut report = StoreReport::new(args);
    for _ in 0..args.rounds {
        if let Some(path) = &floor {
            report.add_floor(flush_plainly(path, args.bytes as usize, args.duration)?);
        }
        for (index, writers) in args.writers.iter().enumerate() {
            report.add(index, runtime.block_on(append(&store, *writers, args, floor.is_some()))?);
        }
    }
    Ok(report)
}

/// One append or flush after the other for the time of one run, and at least one, however late it begins.
struct Meter {
    latency: Histogram,
    count: u64,
}

impl Meter {
    fn new() -> Self {
        Meter { latency: Histogram::default(), count: 0 }
    }

    fn add(&mut self, took: Duration) {
        self.latency.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.count += 1;
    }

    fn run(&self, wall: Duration, written: Option<u64>) -> Run {
        let ms = |part| self.latency.quantile(part) as f64 / 1e6;
        Run {
            per_second: self.count as f64 / wall.as_secs_f64().max(1e-9),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            bytes_each: written.map(|bytes| bytes as f64 / self.count.max(1) as f64),
        }
    }
}

/// The floor: write a record, flush it, and again.
fn flush_plainly(path: &Path, bytes: usize, duration: Duration) -> Result<Run, StoreBenchError> {
    let failed = |source| StoreBenchError::File { path: path.to_owned(), source };
    // Whatever is there already belongs to somebody.
    let mut file = File::create_new(path).map_err(failed)?;
    let record = vec![7; bytes.max(1)];
    let mut meter = Meter::new();
    let (begin, written) = (Instant::now(), written()?);
    loop {
        let since = Instant::now();
        file.write_all(&record).and_then(|()| file.sync_data()).map_err(failed)?;
        meter.add(since.elapsed());
        if begin.elapsed() >= duration {
            break;
        }
    }
    let run = meter.run(begin.elapsed(), bytes_since(written)?);
    fs::remove_file(path).map_err(failed)?;
    Ok(run)
}

/// So many writers, each of which says its next message when the last one is acknowledged.
/// What is written is counted where this process writes it.
async fn append(
    store: &Arc<dyn Store>,
    writers: u32,
    args: &StoreBenchArgs,
    writes_here: bool,
) -> Result<Run, StoreBenchError> {
    let (begin, written) = (Instant::now(), if writes_here { written()? } else { None });
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            tokio::spawn(write(Arc::clone(store), log(writer), args.bytes as usize, begin + args.duration))
        })
        .collect();
    let (mut all, mut logs) = (Meter::new(), Vec::new());
    let mut latest = begin;
    for task in tasks {
        let written = task.await.map_err(|error| StoreBenchError::Writers(error.into()))??;
        all.latency.merge(&written.latency);
        all.count += written.count;
        latest = latest.max(Instant::now());
    }
    let run = all.run(latest - begin, bytes_since(written)?);
    // What was only a load is not left in the store, and its removal is no part of the next run.
    for writer in 0..writers {
        logs.push(store.trim(log(writer), Cut::Whole));
    }
    for removed in logs {
        removed.await?;
    }
    Ok(run)
}

fn log(writer: u32) -> LogKey {
    let name = GroupName::new(&format!("bench {writer}")).expect("a short name");
    LogKey::Group(HubName::new("tieline.bench").expect("letters and a dot"), name)
}

async fn write(
    store: Arc<dyn Store>,
    log: LogKey,
    bytes: usize,
    until: Instant,
) -> Result<Meter, StoreBenchError> {
    let body: Arc<[u8]> = vec![7; bytes].into();
    let mut meter = Meter::new();
    let mut random = u128::from(fresh_epoch());
    loop {
        random = random.wrapping_add(1 << 60);
        let id = MessageId::new(unix_ms(), random);
        let (log, body) = (log.clone(), Arc::clone(&body));
        let since = Instant::now();
        store.append(Append { log, key: id.into(), id, body, retention: Default::default() }).await?;
        meter.add(since.elapsed());
        if Instant::now() >= until {
            return Ok(meter);
        }
    }
}

/// Bytes that this process has had written to disks; none where the system does not tell.
fn written() -> Result<Option<u64>, StoreBenchError> {
    let path = Path::new("/proc/self/io");
    if !path.exists() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(path).map_err(|source| StoreBenchError::File { path: path.to_owned(), source })?;
    Ok(text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()))
}

fn bytes_since(before: Option<u64>) -> Result<Option<u64>, StoreBenchError> {
    Ok(written()?.zip(before).map(|(now, before)| now.saturating_sub(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(store: &str) -> StoreBenchArgs {
        StoreBenchArgs {
            store: store.parse(),
            writers: vec![1, 3],
            bytes: 100,
            duration: Duration::from_millis(50),
            rounds: 2,
            json: false,
        }
    }

    #[test]
    fn a_file_is_measured_and_left_empty() {
        let folder = std::env::temp_dir().join(format!("tieline-bench-{:x}", fresh_epoch()));
        fs::create_dir(&folder).unwrap();
        let store = format!("sqlite://{}/s.db", folder.display());
        let json: serde_json::Value = serde_json::from_str(&run(&args(&store)).unwrap().to_json()).unwrap();
        assert_eq!(json["loads"][1]["writers"], 3);
        for load in [&json["floor"]["runs"], &json["loads"][0]["runs"], &json["loads"][1]["runs"]] {
            assert_eq!(load.as_array().unwrap().len(), 2);
            assert!(load[0]["per_second"].as_f64().unwrap() > 1.0, "{load}");
        }
        assert!(json["loads"][0]["times_floor"]["median"].as_f64().unwrap() > 0.0);
        assert!(!folder.join("s.db-floor").exists());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = runtime.block_on(StoreUrl::Sqlite(folder.join("s.db")).open()).unwrap().store;
        assert_eq!(runtime.block_on(store.heads(vec![log(0), log(2)])), Ok(vec![None, None]));
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn memory_has_no_floor() {
        let report = run(&args("memory:")).unwrap();
        assert!(report.to_string().lines().any(|line| line.starts_with("3 writers")), "{report}");
        assert!(!report.to_string().contains("floor"), "{report}");
    }
}
