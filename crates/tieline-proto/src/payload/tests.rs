//! Payloads in and out, and what must be refused.

use proptest::prelude::*;

use super::*;

fn data(data_type: DataType, json: &str) -> Result<String, DataError> {
    let raw: &RawValue = serde_json::from_str(json).unwrap();
    Data::from_raw(data_type, raw).map(|data| String::from_utf8_lossy(&data.to_bytes()).into_owned())
}

#[test]
fn a_frame_keeps_its_json_untouched() {
    let json = r#"{ "a" : [1, 2.50, 1e400, "\u00fc\/"] }"#;
    let raw: &RawValue = serde_json::from_str(json).unwrap();
    assert_eq!(Data::from_raw(DataType::Json, raw).unwrap().json(), json);
}

#[test]
fn each_type_gives_its_bytes() {
    assert_eq!(data(DataType::Json, " null "), Ok("null".into()));
    assert_eq!(data(DataType::Text, r#""a\"\ud83d\ude00""#), Ok("a\"😀".into()));
    assert_eq!(data(DataType::Text, r#""\ud83d""#), Ok("\u{fffd}".into()));
    assert_eq!(data(DataType::Binary, r#""aGk/""#), Ok("hi?".into()));
    // PHP and others escape the slash.
    assert_eq!(data(DataType::Protobuf, r#""aGk\/""#), Ok("hi?".into()));
    assert_eq!(data(DataType::Binary, r#""""#), Ok(String::new()));
}

#[test]
fn data_that_does_not_fit_is_refused() {
    for json in ["1", "null", "{}", "[\"a\"]", "true"] {
        assert_eq!(data(DataType::Text, json), Err(DataError::NotString), "{json}");
        assert_eq!(data(DataType::Binary, json), Err(DataError::NotBase64), "{json}");
    }
    for text in [
        "a", "ab", "abc", "a===", "ab=c", "====", "QR==", "QUJ=", "a-b_", "aGk\\n", "aGk/ ", "üüüü",
        "QQ==QQ==",
    ] {
        assert_eq!(data(DataType::Binary, &format!("\"{text}\"")), Err(DataError::NotBase64), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    assert_eq!(data(DataType::Json, &deep), Err(DataError::TooDeep));
}

#[test]
fn rest_bodies_become_payloads() {
    let body =
        |data_type, body: &[u8]| Payload::from_body(data_type, body).map(|p| p.as_data().json().to_owned());
    assert_eq!(body(DataType::Text, "say \"hü\"\n".as_bytes()), Ok(r#""say \"hü\"\n""#.into()));
    assert_eq!(body(DataType::Json, b" {\"a\": 1}\n"), Ok(r#"{"a": 1}"#.into()));
    assert_eq!(body(DataType::Binary, &[0, 255, 1, 2]), Ok(r#""AP8BAg==""#.into()));
    assert_eq!(body(DataType::Text, &[0xff]), Err(DataError::NotUtf8));
    assert_eq!(body(DataType::Json, &[b'"', 0xff, b'"']), Err(DataError::NotUtf8));
    for bad in ["", "{", "1 2", "'a'", "nul"] {
        assert_eq!(body(DataType::Json, bad.as_bytes()), Err(DataError::NotJson), "{bad}");
    }
}

proptest! {
    #[test]
    fn bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let payload = Payload::from_bytes(DataType::Binary, &bytes);
        prop_assert_eq!(&*payload.as_data().to_bytes(), &bytes[..]);
        prop_assert_eq!(Payload::from_parts(DataType::Binary, payload.as_data().json()).unwrap(), payload);
    }

    #[test]
    fn text_survives(text in any::<String>()) {
        let payload = Payload::from_text(&text);
        prop_assert_eq!(&*payload.as_data().to_bytes(), text.as_bytes());
        prop_assert_eq!(Payload::from_parts(DataType::Text, payload.as_data().json()).unwrap(), payload);
    }

    #[test]
    fn the_check_agrees_with_the_decoder(text in "[A-Za-z0-9+/=]{0,12}") {
        prop_assert_eq!(is_base64(text.as_bytes()), STANDARD.decode(&text).is_ok());
    }
}
