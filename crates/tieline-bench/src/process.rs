//! What the operating system knows of a process: processor time, private memory, where it may run.
//!
//! **Processor time** is read from the process's CPU clock (`clock_getcpuclockid`). It is the scheduler's own count in
//! nanoseconds: user and system time of all threads, those that have ended included, up to date at the moment of the
//! call. `/proc/PID/stat` carries the same sum in ticks of 10 ms, and `/proc/PID/task/*/schedstat` in nanoseconds but
//! only up to the last tick of a running thread and without ended threads. All three agreed to within their
//! granularity on Linux 6.18. Interrupt work done in the thread's name, which on loopback is the receiver's TCP input,
//! is in the sum unless the kernel was built with `CONFIG_IRQ_TIME_ACCOUNTING`; then it is missing for every server
//! and for the floor alike.
//!
//! **Memory** is `RssAnon` of `/proc/PID/status`: private pages in use, without the program's file and shared memory.
//! Tested here on this process and on recorded text.

use crate::error::BenchError;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::time::Duration;

/// Processor time of all `processes` together since they started.
pub(crate) fn cpu_time(processes: &[u32]) -> Result<Duration, BenchError> {
    processes.iter().try_fold(Duration::ZERO, |sum, process| {
        let clock = clock_getcpuclockid(pid(*process)?)
            .map_err(|errno| BenchError::process(format!("cannot measure process {process}"), errno))?;
        let time = clock
            .now()
            .map_err(|errno| BenchError::process(format!("cannot measure process {process}"), errno))?;
        Ok(sum + Duration::from(time))
    })
}

/// Private memory in use by all `processes` together, in bytes.
pub(crate) fn private_memory(processes: &[u32]) -> Result<u64, BenchError> {
    processes.iter().try_fold(0, |sum, process| {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path)
            .map_err(|source| BenchError::Process { what: format!("cannot read {path}"), source })?;
        let bytes = anonymous_bytes(&status).ok_or_else(|| BenchError::Process {
            what: format!("cannot read {path}"),
            source: io::Error::new(io::ErrorKind::InvalidData, "it has no RssAnon line"),
        })?;
        Ok(sum + bytes)
    })
}

/// The `RssAnon` line of a `/proc/PID/status`, in bytes.
fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Lets all present threads of `process` run on `cpu` alone; threads started later inherit it.
pub(crate) fn pin(process: u32, cpu: usize) -> Result<(), BenchError> {
    let set = only(cpu)?;
    let path = format!("/proc/{process}/task");
    let threads = fs::read_dir(&path)
        .map_err(|source| BenchError::Process { what: format!("cannot read {path}"), source })?;
    for thread in threads {
        let Some(thread) = thread?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match sched_setaffinity(Pid::from_raw(thread), &set) {
            // The thread has ended since the folder was read.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => {
                return Err(BenchError::process(format!("cannot pin process {process} to CPU {cpu}"), errno));
            }
        }
    }
    Ok(())
}

/// Lets this thread, and what it starts from now on, run on `cpu` alone.
pub(crate) fn pin_this_thread(cpu: usize) -> Result<(), BenchError> {
    restore(&only(cpu)?)
}

/// The set of one CPU.
fn only(cpu: usize) -> Result<CpuSet, BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu).map_err(|_| BenchError::arguments(format!("there is no CPU {cpu}")))?;
    Ok(set)
}

/// Where this thread may run, to go back to it after a child was started elsewhere.
pub(crate) fn affinity() -> Result<CpuSet, BenchError> {
    sched_getaffinity(Pid::from_raw(0))
        .map_err(|errno| BenchError::process("cannot read the CPU affinity", errno))
}

/// Lets this thread run where `affinity` once said it may.
pub(crate) fn restore(set: &CpuSet) -> Result<(), BenchError> {
    sched_setaffinity(Pid::from_raw(0), set)
        .map_err(|errno| BenchError::process("cannot set the CPU affinity", errno))
}

/// Raises the limit on open files to what the system allows and says how many that is.
pub(crate) fn raise_file_limit() -> Result<u64, BenchError> {
    let cannot = |errno| BenchError::process("cannot raise the limit on open files", errno);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(cannot)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(cannot)?;
    Ok(hard)
}

/// A process id as the system calls want it.
fn pid(process: u32) -> Result<Pid, BenchError> {
    i32::try_from(process)
        .ok()
        .filter(|id| *id > 0)
        .map(Pid::from_raw)
        .ok_or_else(|| BenchError::arguments(format!("{process} is not a process id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_read_from_its_line() {
        let status = "Name:\ttieline\nVmRSS:\t   11000 kB\nRssAnon:\t    2104 kB\nRssFile:\t    9000 kB\n";
        assert_eq!(anonymous_bytes(status), Some(2104 * 1024));
        assert_eq!(anonymous_bytes("Name:\tkthreadd\n"), None);
        assert_eq!(anonymous_bytes("RssAnon:\t many kB\n"), None);
    }

    #[test]
    fn processor_time_of_this_process_grows_with_work_and_counts_ended_threads() {
        let own = [std::process::id()];
        let before = cpu_time(&own).unwrap();
        std::thread::spawn(|| {
            let started = cpu_time(&own_id()).unwrap();
            while cpu_time(&own_id()).unwrap() - started < Duration::from_millis(5) {}
        })
        .join()
        .unwrap();
        assert!(cpu_time(&own).unwrap() - before >= Duration::from_millis(5));
    }

    fn own_id() -> [u32; 1] {
        [std::process::id()]
    }

    #[test]
    fn memory_of_this_process_is_more_than_nothing() {
        assert!(private_memory(&[std::process::id()]).unwrap() > 4096);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error_that_names_it() {
        let error = cpu_time(&[999_999_999]).unwrap_err();
        assert!(error.to_string().contains("999999999"), "{error}");
        assert!(private_memory(&[999_999_999]).is_err());
        assert!(cpu_time(&[0]).is_err());
    }

    #[test]
    fn a_cpu_that_cannot_be_is_refused() {
        assert!(pin(std::process::id(), 1_000_000).is_err());
    }
}
