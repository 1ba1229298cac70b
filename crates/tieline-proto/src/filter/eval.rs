//! Evaluation of a compiled filter for one connection.
//!
//! Strings are borrowed from filter and connection wherever a function does not make new ones. Recursion is
//! bounded by the parser.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    Subject,
    parser::{Comparison, Expr, Function},
};

/// What a node evaluates to.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Cow<'a, str>),
}

/// Whether a boolean node is true; null is not.
pub(super) fn is_true(root: &Expr, subject: &impl Subject) -> bool {
    truth(root, subject) == Some(true)
}

/// A boolean node; none is null.
fn truth<S: Subject>(expr: &Expr, subject: &S) -> Option<bool> {
    match value(expr, subject) {
        Value::Bool(value) => Some(value),
        _ => None,
    }
}

/// A string node; none is null.
fn text<'a, S: Subject>(expr: &'a Expr, subject: &'a S) -> Option<Cow<'a, str>> {
    match value(expr, subject) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// An integer node; none is null.
fn integer<S: Subject>(expr: &Expr, subject: &S) -> Option<i64> {
    match value(expr, subject) {
        Value::Integer(number) => Some(number),
        _ => None,
    }
}

fn value<'a, S: Subject>(expr: &'a Expr, subject: &'a S) -> Value<'a> {
    match expr {
        Expr::Null => Value::Null,
        Expr::Bool(value) => Value::Bool(*value),
        Expr::Integer(number) => Value::Integer(*number),
        Expr::Text(text) => Value::Text(Cow::Borrowed(text)),
        Expr::UserId => subject.user_id().map_or(Value::Null, |user| Value::Text(Cow::Borrowed(user))),
        Expr::ConnectionId => Value::Text(Cow::Owned(subject.connection_id().to_string())),
        // The parser lets the groups stand only where they are asked for below.
        Expr::Groups => Value::Null,
        Expr::Not(inner) => truth(inner, subject).map_or(Value::Null, |value| Value::Bool(!value)),
        Expr::All(terms) => chain(terms, subject, false),
        Expr::Any(terms) => chain(terms, subject, true),
        Expr::Compare(comparison, sides) => {
            Value::Bool(compare(*comparison, &value(&sides.0, subject), &value(&sides.1, subject)))
        }
        Expr::InList(left, list) => {
            let left = value(left, subject);
            Value::Bool(list.iter().any(|term| value(term, subject) == left))
        }
        Expr::InGroups(name) => Value::Bool(text(name, subject).is_some_and(|name| subject.in_group(&name))),
        Expr::Call(function, arguments) => call(*function, arguments, subject).unwrap_or(Value::Null),
    }
}

/// `or` (decided by true) and `and` (decided by false): the deciding value wins over null, null over the
/// other.
fn chain<'a, S: Subject>(terms: &[Expr], subject: &S, decides: bool) -> Value<'a> {
    let mut unknown = false;
    for term in terms {
        match truth(term, subject) {
            Some(value) if value == decides => return Value::Bool(decides),
            Some(_) => {}
            None => unknown = true,
        }
    }
    if unknown { Value::Null } else { Value::Bool(!decides) }
}

/// Compares two values of one type, either of which may be null.
fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> bool {
    let order = match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        _ => None,
    };
    match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterEqual => order.is_some_and(Ordering::is_ge),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessEqual => order.is_some_and(Ordering::is_le),
    }
}

/// A function of its arguments; none is null, which any null argument gives.
fn call<'a, S: Subject>(function: Function, arguments: &'a [Expr], subject: &'a S) -> Option<Value<'a>> {
    if function == Function::Length && arguments[0] == Expr::Groups {
        return Some(Value::Integer(whole(subject.group_count())));
    }
    let first = text(&arguments[0], subject)?;
    let second = || text(&arguments[1], subject);
    Some(match function {
        Function::ToLower => Value::Text(first.to_lowercase().into()),
        Function::ToUpper => Value::Text(first.to_uppercase().into()),
        Function::Trim => Value::Text(match first {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        }),
        Function::Substring => {
            let start = integer(&arguments[1], subject)?;
            let length = match arguments.get(2) {
                Some(length) => integer(length, subject)?,
                None => i64::MAX,
            };
            Value::Text(substring(&first, start, length).into())
        }
        Function::EndsWith => Value::Bool(first.ends_with(&*second()?)),
        Function::StartsWith => Value::Bool(first.starts_with(&*second()?)),
        Function::Contains => Value::Bool(first.contains(&*second()?)),
        Function::IndexOf => {
            let found = first.find(&*second()?);
            Value::Integer(found.map_or(-1, |at| whole(first[..at].chars().count())))
        }
        Function::Concat => Value::Text(Cow::Owned(first.into_owned() + &second()?)),
        Function::Length => Value::Integer(whole(first.chars().count())),
    })
}

/// `length` characters from `start` on, as many as there are.
fn substring(text: &str, start: i64, length: i64) -> String {
    let clamp = |number: i64| usize::try_from(number.max(0)).unwrap_or(usize::MAX);
    text.chars().skip(clamp(start)).take(clamp(length)).collect()
}

/// A count as an integer of the language.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
