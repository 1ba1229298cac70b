//! The table of settings as `docs/configuration.md`. `TIELINE_WRITE_DOCS=1 cargo test -p tieline config` writes it.

use std::fmt::Write;

use super::row::{Row, rows};

/// What stands above the tables.
const HEAD: &str = "\
# Configuration

<!-- Printed from the table in crates/tieline/src/config/table.rs; do not edit by hand. -->

A setting is read from the TOML file that `--config FILE` or `TIELINE_CONFIG` names, overridden by its environment variable, overridden by its flag.
The file may be a document of a Nacos server, as said [below](#a-configuration-on-nacos).
A key, section or variable that is not known is an error that names the nearest one that is.
`tieline check-config` takes the same flags as `tieline serve`, checks everything, and prints what is in effect and where each value comes from; secrets are masked.

Sizes are written as `\"1MiB\"` (1024 × 1024) or `\"1MB\"` (1,000,000), durations as `\"500ms\"`, `\"25s\"`, `\"5m\"`, `\"1h\"` or `\"7d\"`.
In a variable, the values of a list have commas between them; a flag of a list is repeated.

## Changes while a node runs

At SIGHUP a node reads its file again, and the files of access keys.
All of it is checked first: with one mistake in it nothing of it counts, what was in effect stays, the mistakes are in the log, and `tieline_config_changes_total{result=\"refused\"}` counts it.
Settings marked *live* are then changed at once, for connections that are there too; the others are named in a warning, and need a restart.
Environment and flags are those of the start, and prevail as they did then.

## A configuration on Nacos

`--config 'nacos://USER:PASSWORD@HOST[:PORT],…/NAMESPACE?group=GROUP&dataId=NAME'`, or the same in `TIELINE_CONFIG`, where a list of processes does not show the password.
Namespace and group are `public` and `DEFAULT_GROUP` where they are not named; the text is TOML, as in a file.
This needs a program with the feature `nacos`; the server is asked by HTTP, of version 1 or 3 of its interface, and each question has a limit of 4 s.

- A changed text is found within 5 s, and treated as a changed file at SIGHUP.
- The last good text is kept on the disk, readable by the node's user alone, and replaced as a whole: in the file that `TIELINE_CONFIG_COPY` names, or as `config-….toml` in `$STATE_DIRECTORY`, `$XDG_STATE_HOME/tieline` or `$HOME/.local/state/tieline`, whichever there is first.
- Where the server is away at the start, or has a text with mistakes in it, the node starts from that copy, and says so; without a copy it does not start.
- A wrong password, and a document that there is not, end the start with an error, copy or not.
- While the server is away what was in effect stays, and `tieline_config_source_up` is 0.
- `tieline check-config --config nacos://…` checks the text that is there now, and never reads the copy.
";

/// The introduction of each section.
const SECTIONS: [(&str, &str); 9] = [
    (
        "",
        "Above the first section of the file. Each of these is also a flag: `access_key` is `--access-key`.",
    ),
    ("limits", "How much of anything there may be."),
    ("times", "How long anything may take."),
    (
        "inbox",
        "Messages to users that are kept, whether the user is connected or not. What that promises is in [store.md](store.md).",
    ),
    (
        "hub",
        "What holds for hubs, by their names. In the file alone, as often as needed: the first table that fits a hub counts. A change needs a restart.",
    ),
    (
        "group",
        "What holds for groups, by their names. In the file alone, as often as needed: the first table that fits a group counts. A change needs a restart.",
    ),
    ("deflate", "Compression of messages."),
    ("log", "The program's own log, which goes to the standard error."),
    (
        "upstream",
        "An HTTP endpoint of the application that is told of events and asked by clients, as [upstream.md](upstream.md) says. \
         The table may stand several times, in the file alone; `(required)` has to be given. A change needs a restart.",
    ),
];

/// The document.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for (section, introduction) in SECTIONS {
        let rows: Vec<_> = rows().into_iter().filter(|row| row.section == section).collect();
        let repeats = rows.iter().any(|row| row.repeats);
        let title = match section {
            "" => "The node".to_owned(),
            section if repeats => format!("`[[{section}]]`"),
            section => format!("`[{section}]`"),
        };
        write!(text, "\n## {title}\n\n{introduction}\n\n").expect("a string takes all text");
        text.push_str(if repeats {
            "| setting | default | unit | meaning |\n|---|---|---|---|\n"
        } else {
            "| setting | default | unit | variable | change | meaning |\n|---|---|---|---|---|---|\n"
        });
        for Row { name, default, unit, variable, text: meaning, is_live, .. } in rows {
            let change = if is_live { "live" } else { "restart" };
            let variable = if repeats { String::new() } else { format!(" `{variable}` | {change} |") };
            writeln!(text, "| `{name}` | `{default}` | {unit} |{variable} {meaning} |")
                .expect("a string takes all text");
        }
    }
    text
}
