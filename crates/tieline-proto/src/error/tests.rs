//! The table is whole, without doubles, and printed into the document.

use std::{collections::HashSet, fs, path::Path};

use super::*;

#[test]
fn names_and_numbers_are_told_apart() {
    let names: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), ErrorCode::ALL.len());
    let codes: HashSet<_> = CloseCode::ALL.iter().map(|code| code.code()).collect();
    assert_eq!(codes.len(), CloseCode::ALL.len());
}

#[test]
fn statuses_and_close_codes_may_be_sent() {
    for code in ErrorCode::ALL {
        assert!((400..600).contains(&code.http_status()), "{code}");
    }
    for code in CloseCode::ALL {
        let number = code.code();
        assert!(matches!(number, 1000..=1003 | 1007..=1014 | 4000..=4999), "{code}");
        assert!(code.text().len() <= 123, "a close frame's reason has at most 123 bytes: {code}");
    }
}

#[test]
fn a_close_for_good_is_1008_on_the_reliable_protocol() {
    for code in CloseCode::ALL {
        let seen = code.on_reliable().code();
        assert_eq!(seen == 1008, !code.is_recoverable(), "{code}");
        if code.is_recoverable() {
            assert_eq!(seen, code.code());
        }
    }
    assert_eq!(CloseCode::Removed.on_reliable().code(), 1008);
    assert_eq!(CloseCode::Draining.on_reliable().code(), 4503);
}

#[test]
fn the_document_is_what_the_table_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    if std::env::var_os("TIELINE_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, markdown()).unwrap();
    }
    let document = fs::read_to_string(&path).unwrap();
    assert_eq!(document, markdown(), "docs/errors.md is stale; run the tests with TIELINE_WRITE_DOCS=1");
}
