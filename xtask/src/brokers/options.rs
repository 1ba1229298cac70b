//! [`Options`]: what is asked for on the command line.

use std::path::PathBuf;

use super::NAMES;

/// How `cargo xtask brokers` is called.
pub(super) const USAGE: &str = "\
usage: cargo xtask brokers --binary PATH [--rounds N] [--seconds S] [--socketio FOLDER] [--traffic N,…] [--beats N] [NAME…]
  --binary    the program, which should be optimised and have every engine built in
  --rounds    how often each is measured (3)
  --seconds   length of each measurement (1)
  --socketio  put socket.io with its Redis adapter beside it, from the folder of the comparison
  --traffic   count instead what messages are on the way between nodes, in clusters of so many, 3 or more
  --beats     for how many beats of 5 s each is counted (1); a mesh of many nodes wants more
  NAME        brokers, as the keeper of engines calls them, and mesh; without one, all";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) binary: PathBuf,
    /// How often each broker is measured.
    pub(super) rounds: usize,
    /// Length of each measurement.
    pub(super) seconds: f64,
    /// Where socket.io's server is, if it is compared.
    pub(super) socketio: Option<PathBuf>,
    /// How many nodes clusters have in which traffic is counted, if it is that.
    pub(super) traffic: Option<Vec<usize>>,
    /// For how many beats of the nodes each is counted.
    pub(super) beats: u32,
    /// Brokers, of [`NAMES`].
    pub(super) names: Vec<String>,
}

impl Options {
    /// Reads the words behind `brokers`; the error says what is wrong with them.
    pub(super) fn parse(words: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            binary: PathBuf::new(),
            rounds: 3,
            seconds: 1.0,
            socketio: None,
            traffic: None,
            beats: 1,
            names: Vec::new(),
        };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                if !NAMES.contains(&word) {
                    return Err(format!("`{word}` is none of {}\n{USAGE}", NAMES.join(", ")));
                }
                options.names.push(word.to_owned());
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` needs a value\n{USAGE}"))?;
            let bad = || format!("`{word} {value}` makes no sense\n{USAGE}");
            match word {
                "--binary" => options.binary = value.into(),
                "--socketio" => options.socketio = Some(value.into()),
                "--rounds" => {
                    options.rounds = value.parse().ok().filter(|n| (1..100).contains(n)).ok_or_else(bad)?
                }
                "--seconds" => {
                    options.seconds =
                        value.parse().ok().filter(|s| (0.1..60.0).contains(s)).ok_or_else(bad)?
                }
                "--traffic" => {
                    let count = |word: &str| word.parse().ok().filter(|n| (3..=100).contains(n));
                    let counts: Option<Vec<usize>> = value.split(',').map(count).collect();
                    options.traffic = Some(counts.ok_or_else(bad)?);
                }
                "--beats" => {
                    options.beats = value.parse().ok().filter(|n| (1..=100).contains(n)).ok_or_else(bad)?
                }
                _ => return Err(format!("`{word}` is unknown\n{USAGE}")),
            }
        }
        if options.binary.as_os_str().is_empty() {
            return Err(format!("--binary is needed\n{USAGE}"));
        }
        if options.names.is_empty() {
            options.names = NAMES.iter().map(ToString::to_string).collect();
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_bad_ones_told() {
        let parse = |line: &str| Options::parse(&line.split_whitespace().collect::<Vec<_>>());
        let options = parse("--binary t --rounds 2 nats mesh --seconds 0.5").unwrap();
        assert_eq!((options.rounds, options.seconds), (2, 0.5));
        assert_eq!(options.names, ["nats", "mesh"]);
        assert_eq!(parse("--binary t").unwrap().names, NAMES);
        let options = parse("--binary t --traffic 3,50 --beats 10").unwrap();
        assert_eq!((options.traffic, options.beats), (Some(vec![3, 50]), 10));
        for (line, told) in [
            ("", "--binary is needed"),
            ("--binary t carrier-pigeon", "`carrier-pigeon` is none of mesh"),
            ("--binary t --rounds 0", "`--rounds 0` makes no sense"),
            ("--binary t --seconds nan", "`--seconds nan`"),
            ("--binary t --traffic 3,2", "`--traffic 3,2` makes no sense"),
            ("--binary t --beats 0", "`--beats 0` makes no sense"),
            ("--binary", "`--binary` needs a value"),
            ("--binary t --round 1", "`--round` is unknown"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
