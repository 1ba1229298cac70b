//! Gets a server's Debian packages when its program is not there yet, and what no package brings.
//!
//! Debian starts the service of a freshly installed package; `policy-rc.d` forbids that while we install, so that the
//! only instances on the machine are private ones.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Error, Kind, Source, java};

/// Debian asks this program whether a service may be started; exit code 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Makes sure that the kind's program can be started.
pub(super) fn install(kind: &dyn Kind) -> Result<(), Error> {
    let source = kind.source();
    if source.is_here() {
        return Ok(());
    }
    let _lock = only_installer()?;
    if !source.has_packages() {
        let packages = source.packages();
        let failed =
            |reason| Error::Install { packages: packages.join(" "), reason, variable: kind.variable() };
        get(packages).map_err(failed)?;
    }
    match source {
        Source::Jars(jars) if !jars.are_here() => jars.fetch(),
        _ => Ok(()),
    }
}

impl Source {
    /// Whether everything is there.
    pub(super) fn is_here(&self) -> bool {
        self.has_packages()
            && match self {
                Source::Package { .. } => true,
                Source::Jars(jars) => jars.are_here(),
            }
    }

    fn has_packages(&self) -> bool {
        match self {
            Source::Package { is_there, .. } => is_there(),
            Source::Jars(_) => java::has_tools(),
        }
    }

    fn packages(&self) -> &[&'static str] {
        match self {
            Source::Package { name, .. } => std::slice::from_ref(name),
            Source::Jars(_) => java::PACKAGES,
        }
    }
}

/// Gets a package that is no server's, where what it brings is missing. The error says why it cannot be had.
pub(crate) fn install_once(package: &str, is_there: impl Fn() -> bool) -> Result<(), String> {
    if is_there() {
        return Ok(());
    }
    let _lock = only_installer().map_err(|error| error.to_string())?;
    if is_there() { Ok(()) } else { get(&[package]) }
}

/// Several test processes may miss the same program at once: one installs, the others wait and look again.
fn only_installer() -> Result<File, Error> {
    let folder = super::folder();
    fs::create_dir_all(&folder).map_err(|e| Error::io(format!("create {}", folder.display()), e))?;
    let lock = File::create(folder.join("install.lock"))
        .map_err(|e| Error::io("create the installation's lock", e))?;
    lock.lock().map_err(|e| Error::io("lock the installation", e))?;
    Ok(lock)
}

fn get(packages: &[&str]) -> Result<(), String> {
    eprintln!("installing {}", packages.join(" "));
    let forbidden = Policy::forbid().map_err(|error| error.to_string())?;
    let updated = apt(&["update"]);
    let outcome = apt(&[&["install", "-y", "--no-install-recommends"], packages].concat());
    drop(forbidden);
    // Stale lists are often good enough, so a failed update only matters when the installation failed too.
    outcome.map_err(|error| updated.err().unwrap_or(error))
}

pub(super) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("apt-get: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// While this lives, installing a package starts no service. A policy that was there before is left alone.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid() -> Result<Self, Error> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"))
            .map_err(|e| Error::io(format!("write {POLICY}, which keeps services from starting"), e))?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("{POLICY} stays behind and keeps services from starting: {error}");
        }
    }
}
