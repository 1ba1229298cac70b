//! The workspace is tidy; and each rule finds what it is there for.

use std::path::Path;

use super::{arrows, check, header, names, size, workplace};

#[test]
fn the_workspace_is_tidy() {
    let findings = check(&crate::root()).unwrap();
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

#[test]
fn a_file_of_801_lines_is_found() {
    let path = Path::new("crates/x/src/long.rs");
    assert_eq!(size(path, &"x\n".repeat(800)), None);
    assert!(size(path, &"x\n".repeat(801)).is_some());
}

#[test]
fn a_source_file_without_a_header_is_found() {
    assert!(header(Path::new("crates/x/src/a.rs"), "use std::fmt;\n").is_some());
    assert_eq!(header(Path::new("crates/x/src/a.rs"), "//! A thing.\n"), None);
}

#[test]
fn words_of_a_workplace_are_found_with_their_line() {
    let text = format!("fine\nsee {}notes\n", concat!("/ro", "ot/"));
    let findings = workplace(Path::new("README.md"), &text);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].line, Some(2));
}

#[test]
fn empty_names_are_found_in_paths() {
    for path in [
        "src/connection_manager.rs",
        "src/utils/io.rs",
        "src/base.rs",
        "web/string-helpers.ts",
        "factories.rs",
    ] {
        assert!(names::of_path(Path::new(path)).is_some(), "{path}");
    }
    for path in ["src/database.rs", "src/base64.rs", "src/basement.rs", "tests/utility_bill.rs"] {
        assert_eq!(names::of_path(Path::new(path)), None, "{path}");
    }
}

#[test]
fn empty_names_are_found_in_items() {
    let names = |text| names::of_items(Path::new("x.rs"), text).len();
    assert_eq!(names("pub struct SessionManager {"), 1);
    assert_eq!(names("pub(crate) async fn make_common<T>(t: T)"), 1);
    assert_eq!(names("mod util;\nmod fine;"), 1);
    assert_eq!(names("/// a fn helper of sorts\nlet base = 1;"), 0);
    assert_eq!(names("struct Database;\nfn commonly() {}"), 0);
}

fn of_manifest(text: &str) -> Vec<String> {
    arrows::check(Path::new("crates/x/Cargo.toml"), text).into_iter().map(|finding| finding.message).collect()
}

const LINTS: &str = "[lints]\nworkspace = true\n";

#[test]
fn an_arrow_that_is_not_stated_is_found() {
    let text = format!(
        "[package]\nname = \"tieline-bench\"\n{LINTS}[dependencies]\ntieline-core.workspace = true\n"
    );
    assert_eq!(of_manifest(&text), ["no arrow leads from tieline-bench to tieline-core"]);
    let text = format!("[package]\nname = \"tieline-core\"\n{LINTS}[dependencies]\nmio.workspace = true\n");
    assert_eq!(of_manifest(&text), ["tieline-core does without mio"]);
}

#[test]
fn an_arrow_cannot_hide_behind_a_platform_or_another_name() {
    let head = format!("[package]\nname = \"tieline-proto\"\n{LINTS}");
    let platform = format!("{head}[target.'cfg(unix)'.dependencies]\ntokio = \"1\"\n");
    assert_eq!(of_manifest(&platform), ["tieline-proto does without tokio"]);
    let renamed = format!(
        "{head}[dependencies]\nbrain = {{ package = \"tieline-core\", path = \"../tieline-core\" }}\n"
    );
    assert_eq!(of_manifest(&renamed), ["no arrow leads from tieline-proto to tieline-core"]);
}

#[test]
fn dependencies_for_tests_are_free() {
    let text = format!(
        "[package]\nname = \"tieline-proto\"\n{LINTS}[dev-dependencies]\ntokio = \"1\"\nxtask.path = \"x\"\n"
    );
    assert!(of_manifest(&text).is_empty());
}

#[test]
fn a_crate_without_the_lints_or_without_arrows_is_found() {
    assert_eq!(
        of_manifest("[package]\nname = \"tieline-proto\"\n"),
        ["every crate says `[lints] workspace = true`"]
    );
    let unknown = format!("[package]\nname = \"tieline-new\"\n{LINTS}");
    assert!(of_manifest(&unknown)[0].contains("tieline-new"));
}
