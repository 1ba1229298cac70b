//! The scanner takes exactly what `serde_json` takes, and cuts it at the same places.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// One whole text as a value.
fn scan(text: &str) -> Result<&str, NotJson> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

fn agree(text: &str) {
    let theirs = serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get);
    assert_eq!(scan(text).ok(), theirs, "{text:.200}");
}

#[test]
fn edges() {
    let deep = |levels| format!("{}{}", "[{\"a\":".repeat(levels) + "1", "}]".repeat(levels));
    for text in [
        "",
        " ",
        "1",
        "-",
        "-0",
        "01",
        "1.",
        ".5",
        "1.5e",
        "1e+",
        "1E-7",
        "-1.25e+10",
        "0x1",
        "1 2",
        "nul",
        "nulll",
        "true ",
        "\"",
        "\"\\\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\\uDEAD\"",
        "\"a\tb\"",
        "\"a\u{7f}ü😀\"",
        "\"\u{0}\"",
        "[",
        "]",
        "[]",
        "[ ]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1,2]",
        "{",
        "{}",
        "{ }",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "{\"a\":[{},[],\"\"],\"b\":{\"c\":null}}",
        "[}",
        "{]",
        "[[]",
        "[]]",
        "\u{a0}1",
        "\u{feff}1",
        "[1]x",
        "'a'",
        "//",
        "NaN",
        "[[[[],[]],{}],[{}]]",
    ] {
        agree(text);
    }
    for levels in [63, 64, 65, 1_000] {
        agree(&deep(levels));
        agree(&format!(" {} , ", deep(levels)));
        agree(&deep(levels).replace("}]", "]}"));
    }
}

#[test]
fn special_bytes_are_found_wherever_they_stand() {
    for special in [0, 1, 0x1f, b'"', b'\\'] {
        for neighbour in [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
            for at in 0..80 {
                let mut bytes = [neighbour; 80];
                bytes[at] = special;
                assert_eq!(clean_run(&bytes), at, "{special} among {neighbour}");
                assert_eq!(clean_run(&bytes[..at]), at);
            }
        }
    }
}

/// Text made of the pieces of JSON, mostly wrong.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\\",
        "\\u00",
        "\\n",
        "0",
        "1",
        "-",
        ".",
        "e",
        "+",
        "true",
        "null",
        " ",
        "\n",
        "ü",
        "\u{1}",
        "\"type\":",
        "\"abcdefgh",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// JSON, mostly right, with one byte struck out.
fn nearly() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        let member = (any::<String>(), inner.clone())
            .prop_map(|(name, value)| format!("{} : {value}", serde_json::to_string(&name).unwrap()));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(" , "))),
            prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    (value, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(text, index, whole)| {
        let mut letters: Vec<char> = text.chars().collect();
        if !whole {
            letters.remove(index.index(letters.len()));
        }
        letters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn as_serde_takes_it(wild in any::<String>(), pieces in pieces(), nearly in nearly()) {
        for text in [wild, pieces, nearly] {
            agree(&text);
        }
    }
}
