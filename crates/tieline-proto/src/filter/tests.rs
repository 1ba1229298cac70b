//! The language by a table, its errors by place, and any expression against a naive evaluation.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A connection as filters see it.
#[derive(Debug, Clone)]
struct Person {
    user: Option<String>,
    id: ConnectionId,
    groups: BTreeSet<String>,
}

impl Subject for Person {
    fn user_id(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn connection_id(&self) -> ConnectionId {
        self.id
    }

    fn in_group(&self, group: &str) -> bool {
        self.groups.contains(group)
    }

    fn group_count(&self) -> usize {
        self.groups.len()
    }
}

fn person(user: Option<&str>, groups: &[&str]) -> Person {
    Person {
        user: user.map(str::to_owned),
        id: ConnectionId::from_bytes([1; 20]),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    }
}

fn error(text: &str) -> FilterError {
    Filter::parse(text).expect_err(text)
}

#[test]
fn the_language() {
    let someone = person(Some("user-ab-de"), &["group1", "it's"]);
    for (text, expected) in [
        ("true", true),
        ("false", false),
        ("userId eq 'user-ab-de'", true),
        ("USERID EQ 'user-ab-de'", true),
        ("userId eq 'User-ab-de'", false),
        ("userId ne 'x'", true),
        ("userId ne null", true),
        ("userId eq null", false),
        ("null eq userId", false),
        ("connectionId eq 'AQEBAQEBAQEBAQEBAQEBAQEBAQE'", true),
        ("connectionId ne '123'", true),
        ("userId gt 'user' and userId lt 'v'", true),
        ("length(userId) le 10 and length(userId) gt 3", true),
        ("length(userId) gt 10 or length(userId) le 3", false),
        ("not endswith(userId, 'milk')", true),
        ("not not true", true),
        ("not (length(userId) gt 5)", false),
        ("'group1' in groups", true),
        ("'group1' IN (groups)", true),
        ("'it''s' in groups", true),
        ("'Group1' in groups", false),
        ("'group9' in groups or 'group1' in groups", true),
        ("concat('group', '1') in groups", true),
        ("userId in ('a','user-ab-de')", true),
        ("userId in ('a')", false),
        ("userId in ('a', null)", false),
        ("length(userId) in (1, 10, -3)", true),
        ("contains(userId,'ab') in (true)", true),
        ("length(groups) gt 1", true),
        ("length((groups)) eq 2", true),
        ("tolower('ABC') eq 'abc' and toupper('abc') eq 'ABC'", true),
        ("trim('  a b ') eq 'a b'", true),
        ("substring(userId,5,2) eq 'ab'", true),
        ("substring(userId,5) eq 'ab-de'", true),
        ("substring(userId,50) eq ''", true),
        ("substring(userId,-5,4) eq 'user'", true),
        ("substring(userId,1,-1) eq ''", true),
        ("substring('aü😀b',1,2) eq 'ü😀'", true),
        ("startswith(userId,'user') and contains(userId,'-ab-')", true),
        ("indexof(userId,'-ab-') eq +4", true),
        ("indexof(userId,'x') eq -1", true),
        ("indexof('ü😀b','b') eq 2 and length('ü😀b') eq 3", true),
        ("startswith(userId,'user') eq true", true),
        ("(userId eq 'a') eq false", true),
        ("9223372036854775807 gt -9223372036854775808", true),
        ("true or false and false", true),
        ("(true or false) and false", false),
        ("  \t\r\nuserId   eq\n'user-ab-de' ", true),
        ("userId eq 'user1' or (not (startswith(userId,'user2')))", true),
    ] {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&someone), expected, "{text}");
        assert_eq!(filter.source(), text);
    }
}

#[test]
fn null_is_unknown() {
    let nobody = person(None, &[]);
    for (text, expected) in [
        ("userId eq null", true),
        ("userId ne null", false),
        ("userId ne 'a'", true),
        ("userId eq 'a'", false),
        ("null eq null", true),
        ("userId gt 'a'", false),
        ("userId le 'a'", false),
        ("userId ge null", false),
        ("length(userId) lt 5", false),
        ("length(userId) eq null", true),
        ("tolower(userId) eq null", true),
        ("substring('abc', length(userId)) eq null", true),
        ("concat(userId, 'a') eq null", true),
        ("contains(userId, 'a')", false),
        ("not contains(userId, 'a')", false),
        ("contains('a', null)", false),
        ("contains(userId, 'a') eq null", true),
        ("contains(userId, 'a') or true", true),
        ("contains(userId, 'a') or false", false),
        ("not (contains(userId, 'a') and false)", true),
        ("not (contains(userId, 'a') and true)", false),
        ("not (contains(userId, 'a') or false)", false),
        ("userId in ('a')", false),
        ("not (userId in ('a'))", true),
        ("userId in ('a', null)", true),
        ("null in (null)", true),
        ("userId in groups", false),
        ("null in groups", false),
        ("length(groups) eq 0", true),
    ] {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&nobody), expected, "{text}");
    }
}

#[test]
fn errors_have_a_place_and_a_reason() {
    for (text, said) in [
        ("", "expected a value (at character 1 of the filter)"),
        ("  ", "expected a value (at character 3 of the filter)"),
        ("userId", "the filter must be a boolean, but is a string (at character 1 of the filter)"),
        ("null", "the filter must be a boolean, but is null (at character 1 of the filter)"),
        ("groups", "the filter must be a boolean, but is the groups (at character 1 of the filter)"),
        ("userId eq", "expected a value (at character 10 of the filter)"),
        ("userId eq 'ü' x", "expected an operator or the end (at character 15 of the filter)"),
        ("userId eq 'a", "a string is not closed by ' (at character 11 of the filter)"),
        ("userId eq 'it's'", "a string is not closed by ' (at character 16 of the filter)"),
        ("userId = 'a'", "unexpected '=' (at character 8 of the filter)"),
        ("userId eq \"a\"", "unexpected '\"' (at character 11 of the filter)"),
        ("name eq 'a'", "unknown word \"name\" (at character 1 of the filter)"),
        ("userId eq 1", "a string cannot be compared with an integer (at character 11 of the filter)"),
        (
            "length(userId) eq '1'",
            "an integer cannot be compared with a string (at character 19 of the filter)",
        ),
        ("true gt false", "a boolean cannot be compared with a boolean (at character 9 of the filter)"),
        ("groups eq 'a'", "the groups cannot be compared with a string (at character 11 of the filter)"),
        ("groups eq null", "the groups cannot be compared with null (at character 11 of the filter)"),
        (
            "not length(userId) gt 5",
            "the operand of `not` must be a boolean, but is an integer (at character 5 of the filter)",
        ),
        (
            "true and userId",
            "an operand of `and` must be a boolean, but is a string (at character 10 of the filter)",
        ),
        (
            "userId or true",
            "an operand of `or` must be a boolean, but is a string (at character 1 of the filter)",
        ),
        ("1 eq 99999999999999999999", "an integer does not fit into 64 bits (at character 6 of the filter)"),
        ("1 eq -", "unexpected '-' (at character 6 of the filter)"),
        ("1 eq 1.5", "unexpected '.' (at character 7 of the filter)"),
        ("tolower() eq 'a'", "expected a value (at character 9 of the filter)"),
        ("tolower('a','b') eq 'a'", "expected one string as argument (at character 1 of the filter)"),
        (
            "substring(userId) eq 'a'",
            "expected a string and one or two integers as arguments (at character 1 of the filter)",
        ),
        (
            "substring(userId,'1') eq 'a'",
            "an argument of substring must be an integer, but is a string (at character 18 of the filter)",
        ),
        ("length(1) eq 1", "an argument must be a string, but is an integer (at character 8 of the filter)"),
        (
            "tolower(groups) eq 'a'",
            "an argument must be a string, but is the groups (at character 9 of the filter)",
        ),
        ("tolower 'a' eq 'a'", "expected ( (at character 9 of the filter)"),
        ("(true", "expected ) (at character 6 of the filter)"),
        ("true)", "expected an operator or the end (at character 5 of the filter)"),
        ("userId in ()", "expected a value (at character 12 of the filter)"),
        ("userId in 'a'", "expected groups or a list in parentheses (at character 11 of the filter)"),
        (
            "userId in tolower('a')",
            "expected groups or a list in parentheses (at character 11 of the filter)",
        ),
        (
            "userId in ('a', groups)",
            "expected groups or a list in parentheses (at character 11 of the filter)",
        ),
        ("userId in ('a', 1)", "a string cannot be compared with an integer (at character 17 of the filter)"),
        ("groups in ('a')", "the groups cannot be compared with a list (at character 1 of the filter)"),
        (
            "1 in groups",
            "the left side of `in groups` must be a string, but is an integer (at character 1 of the filter)",
        ),
        ("userId eq 'a' eq true", "expected an operator or the end (at character 15 of the filter)"),
    ] {
        assert_eq!(error(text).to_string(), said, "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested =
        |open: &str, close: &str, levels| format!("{}true{}", open.repeat(levels), close.repeat(levels));
    for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")")] {
        let levels = MAX_FILTER_DEPTH / open.trim().split(' ').count();
        assert!(Filter::parse(&nested(open, close, levels)).is_ok(), "{open}");
        assert_eq!(error(&nested(open, close, levels + 1)).problem, FilterProblem::TooDeep, "{open}");
        assert_eq!(error(&nested(open, close, 2_000)).problem, FilterProblem::TooDeep, "{open}");
    }
    let functions = |levels| format!("{}userId{} eq ''", "trim(".repeat(levels), ")".repeat(levels));
    // A function and its parentheses are one level.
    assert!(Filter::parse(&functions(MAX_FILTER_DEPTH)).is_ok());
    assert_eq!(error(&functions(MAX_FILTER_DEPTH + 1)).problem, FilterProblem::TooDeep);
    assert_eq!(error(&" ".repeat(MAX_FILTER_BYTES + 1)).problem, FilterProblem::TooLong);
    // Chains are wide, not deep.
    let chain = vec!["userId eq 'u'"; 900].join(" or ");
    assert!(Filter::parse(&chain).unwrap().matches(&person(Some("u"), &[])));
}

/// An expression that has its text and its value by two simple functions of its own.
#[derive(Debug, Clone)]
enum Naive {
    Null,
    Bool(bool),
    Int(i8),
    Text(String),
    User,
    Lower(Box<Naive>),
    Concat(Box<Naive>, Box<Naive>),
    Sub(Box<Naive>, i8, Option<i8>),
    Length(Box<Naive>),
    Index(Box<Naive>, Box<Naive>),
    Groups,
    Contains(Box<Naive>, Box<Naive>),
    Compare(&'static str, Box<Naive>, Box<Naive>),
    In(Box<Naive>, Vec<Naive>),
    InGroups(Box<Naive>),
    Not(Box<Naive>),
    And(Box<Naive>, Box<Naive>),
    Or(Box<Naive>, Box<Naive>),
}

/// A value of the naive evaluation.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Flat {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

impl Naive {
    fn text(&self) -> String {
        match self {
            Naive::Null => "null".into(),
            Naive::Bool(value) => value.to_string(),
            Naive::Int(number) => number.to_string(),
            Naive::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Naive::User => "userId".into(),
            Naive::Lower(a) => format!("tolower({})", a.text()),
            Naive::Concat(a, b) => format!("concat({},{})", a.text(), b.text()),
            Naive::Sub(a, start, None) => format!("substring({},{start})", a.text()),
            Naive::Sub(a, start, Some(length)) => format!("substring({}, {start}, {length})", a.text()),
            Naive::Length(a) => format!("length({})", a.text()),
            Naive::Index(a, b) => format!("indexof({},{})", a.text(), b.text()),
            Naive::Groups => "length(groups)".into(),
            Naive::Contains(a, b) => format!("contains({},{})", a.text(), b.text()),
            Naive::Compare(word, a, b) => format!("({} {word} {})", a.text(), b.text()),
            Naive::In(a, list) => {
                let list: Vec<_> = list.iter().map(Naive::text).collect();
                format!("({} in ({}))", a.text(), list.join(","))
            }
            Naive::InGroups(a) => format!("({} in groups)", a.text()),
            Naive::Not(a) => format!("(not {})", a.text()),
            Naive::And(a, b) => format!("({} and {})", a.text(), b.text()),
            Naive::Or(a, b) => format!("({} or {})", a.text(), b.text()),
        }
    }

    fn value(&self, person: &Person) -> Flat {
        use Flat::{Bool, Int, Null, Text};
        let of = |a: &Naive| a.value(person);
        match self {
            Naive::Null => Null,
            Naive::Bool(value) => Bool(*value),
            Naive::Int(number) => Int((*number).into()),
            Naive::Text(text) => Text(text.clone()),
            Naive::User => person.user.clone().map_or(Null, Text),
            Naive::Lower(a) => match of(a) {
                Text(a) => Text(a.to_lowercase()),
                _ => Null,
            },
            Naive::Concat(a, b) => match (of(a), of(b)) {
                (Text(a), Text(b)) => Text(a + &b),
                _ => Null,
            },
            Naive::Sub(a, start, length) => match of(a) {
                Text(a) => {
                    let letters: Vec<char> = a.chars().collect();
                    let start = usize::try_from(*start).unwrap_or(0).min(letters.len());
                    let left = letters.len() - start;
                    let length = length.map_or(left, |length| usize::try_from(length).unwrap_or(0).min(left));
                    Text(letters[start..start + length].iter().collect())
                }
                _ => Null,
            },
            Naive::Length(a) => match of(a) {
                Text(a) => Int(a.chars().count() as i64),
                _ => Null,
            },
            Naive::Index(a, b) => match (of(a), of(b)) {
                (Text(a), Text(b)) => {
                    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
                    let found = (0..=a.len()).find(|&at| a[at..].starts_with(&b));
                    Int(found.map_or(-1, |at| at as i64))
                }
                _ => Null,
            },
            Naive::Groups => Int(person.groups.len() as i64),
            Naive::Contains(a, b) => match (of(a), of(b)) {
                (Text(a), Text(b)) => Bool(a.contains(&b)),
                _ => Null,
            },
            Naive::Compare(word, a, b) => {
                let (a, b) = (of(a), of(b));
                let known = a != Null && b != Null;
                Bool(match *word {
                    "eq" => a == b,
                    "ne" => a != b,
                    "gt" => known && a > b,
                    "ge" => known && a >= b,
                    "lt" => known && a < b,
                    _ => known && a <= b,
                })
            }
            Naive::In(a, list) => Bool(list.iter().any(|b| of(b) == of(a))),
            Naive::InGroups(a) => Bool(matches!(of(a), Text(a) if person.groups.contains(&a))),
            Naive::Not(a) => match of(a) {
                Bool(a) => Bool(!a),
                _ => Null,
            },
            Naive::And(a, b) => match (of(a), of(b)) {
                (Bool(false), _) | (_, Bool(false)) => Bool(false),
                (Bool(true), Bool(true)) => Bool(true),
                _ => Null,
            },
            Naive::Or(a, b) => match (of(a), of(b)) {
                (Bool(true), _) | (_, Bool(true)) => Bool(true),
                (Bool(false), Bool(false)) => Bool(false),
                _ => Null,
            },
        }
    }
}

fn texts() -> impl Strategy<Value = Naive> {
    let leaf = prop_oneof![Just(Naive::User), Just(Naive::Null), "[aAbü']{0,3}".prop_map(Naive::Text)];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| Naive::Lower(a.into())),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Naive::Concat(a.into(), b.into())),
            (inner, -2..4_i8, prop::option::of(-1..4_i8)).prop_map(|(a, start, n)| Naive::Sub(
                a.into(),
                start,
                n
            )),
        ]
    })
}

fn integers() -> impl Strategy<Value = Naive> {
    prop_oneof![
        (-2..4_i8).prop_map(Naive::Int),
        Just(Naive::Groups),
        texts().prop_map(|a| Naive::Length(a.into())),
        (texts(), texts()).prop_map(|(a, b)| Naive::Index(a.into(), b.into())),
    ]
}

fn booleans() -> impl Strategy<Value = Naive> {
    let words = || prop::sample::select(vec!["eq", "ne", "gt", "ge", "lt", "le"]);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Naive::Bool),
        (texts(), texts()).prop_map(|(a, b)| Naive::Contains(a.into(), b.into())),
        (words(), texts(), texts()).prop_map(|(word, a, b)| Naive::Compare(word, a.into(), b.into())),
        (words(), integers(), integers()).prop_map(|(word, a, b)| Naive::Compare(word, a.into(), b.into())),
        (texts(), prop::collection::vec(texts(), 1..3)).prop_map(|(a, list)| Naive::In(a.into(), list)),
        texts().prop_map(|a| Naive::InGroups(a.into())),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| Naive::Not(a.into())),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Naive::And(a.into(), b.into())),
            (inner.clone(), inner).prop_map(|(a, b)| Naive::Or(a.into(), b.into())),
        ]
    })
}

proptest! {
    #[test]
    fn as_the_naive_evaluation_says(
        naive in booleans(),
        user in prop::option::of("[aAbü']{0,3}"),
        groups in prop::collection::btree_set("[aAbü']{0,2}", 0..3),
    ) {
        let person = Person { user, id: ConnectionId::from_bytes([1; 20]), groups };
        let text = naive.text();
        let filter = Filter::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(filter.matches(&person), naive.value(&person) == Flat::Bool(true), "{}", text);
    }

    #[test]
    fn no_text_panics(text in any::<String>(), words in prop::collection::vec(prop::sample::select(vec![
        "userId", "groups", "connectionId", "eq", "gt", "in", "and", "or", "not", "(", ")", ",", "'a'", "'", "''", "1", "-",
        "null", "true", "length", "substring", "concat", "ü", "\u{0}",
    ]), 0..12)) {
        let someone = person(Some("a"), &["a"]);
        for text in [text, words.join(" "), words.concat()] {
            if let Ok(filter) = Filter::parse(&text) {
                let _ = filter.matches(&someone);
            }
        }
    }
}
