//! The table of settings as `docs/configuration.md`. `TIELINE_WRITE_DOCS=1 cargo test -p tieline config` writes it.

use std::fmt::Write;

use super::row::{Row, rows};

/// What stands above the tables.
const HEAD: &str = "\
# Configuration

<!-- Printed from the table in crates/tieline/src/config/table.rs; do not edit by hand. -->

A setting is read from the TOML file that `--config FILE` or `TIELINE_CONFIG` names, overridden by its environment variable, overridden by its flag.
A key, section or variable that is not known is an error that names the nearest one that is.
`tieline check-config` takes the same flags as `tieline serve`, checks everything, and prints what is in effect and where each value comes from; secrets are masked.

Sizes are written as `\"1MiB\"` (1024 × 1024) or `\"1MB\"` (1,000,000), durations as `\"500ms\"`, `\"25s\"`, `\"5m\"`, `\"1h\"` or `\"7d\"`.
In a variable, the values of a list have commas between them; a flag of a list is repeated.
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
        "What holds for hubs, by their names. In the file alone, as often as needed: the first table that fits a hub counts.",
    ),
    (
        "group",
        "What holds for groups, by their names. In the file alone, as often as needed: the first table that fits a group counts.",
    ),
    ("deflate", "Compression of messages."),
    ("log", "The program's own log, which goes to the standard error."),
    (
        "upstream",
        "An HTTP endpoint of the application that is told of events and asked by clients, as [upstream.md](upstream.md) says. \
         The table may stand several times, in the file alone; `(required)` has to be given.",
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
            "| setting | default | unit | variable | meaning |\n|---|---|---|---|---|\n"
        });
        for Row { name, default, unit, variable, text: meaning, .. } in rows {
            let variable = if repeats { String::new() } else { format!(" `{variable}` |") };
            writeln!(text, "| `{name}` | `{default}` | {unit} |{variable} {meaning} |")
                .expect("a string takes all text");
        }
    }
    text
}
