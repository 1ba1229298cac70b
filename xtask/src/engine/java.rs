//! Servers that are Java programs: their jars come from Maven, by a profile of `engines/pom.xml`, into `target/engines/java`.
//!
//! What was fetched is fetched again when the files that say what to fetch have changed. Maven's own settings say from where.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Error, package};

/// What brings Java's compiler and Maven.
pub(super) const PACKAGES: &[&str] = &["default-jdk-headless", "maven"];

/// Says what was fetched: the texts that it was fetched by.
const STAMP: &str = "stamp";

/// One server's jars.
pub struct Jars {
    /// The profile of `engines/pom.xml`.
    pub(super) profile: &'static str,
    /// The file in `engines` with the main class, for a server that has none of its own.
    pub(super) source: Option<&'static str>,
    /// What else is made of them, once.
    pub(super) finish: Option<fn() -> Result<(), Error>>,
}

/// Whether all programs that are needed are on the search path.
pub(super) fn has_tools() -> bool {
    ["java", "javac", "mvn"].into_iter().all(package::is_there)
}

impl Jars {
    /// Whether this is what the files now say.
    pub(super) fn are_here(&self) -> bool {
        fs::read_to_string(self.folder().join(STAMP)).is_ok_and(|stamp| Some(stamp) == self.stamp().ok())
    }

    /// Fetches and compiles what is needed, with nothing left of what was there before.
    pub(super) fn fetch(&self) -> Result<(), Error> {
        let (folder, stamp) = (self.folder(), self.stamp()?);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| Error::io(format!("empty {}", folder.display()), e))?;
        }
        fs::create_dir_all(&folder).map_err(|e| Error::io(format!("create {}", folder.display()), e))?;
        eprintln!("fetching the jars of {}", self.profile);
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-P", self.profile, "-f"]).arg(sources().join("pom.xml"));
        maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        maven.arg(joined("-DoutputDirectory=", &self.jars()));
        run(maven)?;
        if let Some(source) = self.source {
            let mut compiler = Command::new("javac");
            compiler.arg("-cp").arg(every_jar(&self.jars())).arg("-d").arg(self.classes());
            compiler.arg(sources().join(source));
            run(compiler)?;
        }
        if let Some(finish) = self.finish {
            finish()?;
        }
        fs::write(folder.join(STAMP), stamp).map_err(|e| Error::io(format!("mark {}", folder.display()), e))
    }

    /// Every jar, and the classes that were compiled; what is in `first` comes before them.
    pub(super) fn class_path(&self, first: &[PathBuf]) -> OsString {
        let own = [self.classes().into_os_string(), every_jar(&self.jars())];
        let parts: Vec<OsString> =
            first.iter().map(|path| path.clone().into_os_string()).chain(own).collect();
        parts.join(std::ffi::OsStr::new(":"))
    }

    /// Where the jars are.
    pub(super) fn jars(&self) -> PathBuf {
        self.folder().join("jars")
    }

    fn classes(&self) -> PathBuf {
        self.folder().join("classes")
    }

    fn folder(&self) -> PathBuf {
        super::folder().join("java").join(self.profile)
    }

    fn stamp(&self) -> Result<String, Error> {
        let read = |file: &str| {
            let path = sources().join(file);
            fs::read_to_string(&path).map_err(|e| Error::io(format!("read {}", path.display()), e))
        };
        Ok(read("pom.xml")? + &self.source.map_or(Ok(String::new()), read)?)
    }
}

/// A virtual machine that starts quickly and stays small: none of these servers has much to do.
pub(super) fn machine(megabytes: u32) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xms32m", &format!("-Xmx{megabytes}m"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"]);
    command
}

/// Where it is said what to fetch.
fn sources() -> PathBuf {
    crate::root().join("engines")
}

fn joined(word: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(word);
    joined.push(path);
    joined
}

/// All jars of a folder, as Java's class path says it.
fn every_jar(folder: &Path) -> OsString {
    folder.join("*").into_os_string()
}

/// Runs a program that gets something, and tells all that it said if it fails.
pub(super) fn run(mut command: Command) -> Result<(), Error> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|e| Error::io(format!("run {program}"), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Err(Error::Fetch { program, said: String::from_utf8_lossy(&said).into_owned() })
}
