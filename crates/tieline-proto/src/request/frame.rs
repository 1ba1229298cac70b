//! [`Frame`]: a frame cut into its members, each still raw JSON.
//!
//! One flat record for all types of frame. It knows names and nothing of their meaning.

use crate::json_text::{self, StringText};

use super::{
    fault::{Fault, Problem},
    scan::{NotJson, Scanner},
};

/// Declares the members that some frame has, with their names on the wire.
macro_rules! fields {
    ($($field:ident $name:literal,)*) => {
        /// A member that some frame has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Field { $($field,)* }

        impl Field {
            /// How many there are.
            const COUNT: usize = [$($name,)*].len();

            /// The name on the wire.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Field::$field => $name,)* }
            }

            /// Finds a member by its name, which is told by case.
            fn from_name(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$field),)* _ => None }
            }
        }
    };
}

fields! {
    Type "type",
    Group "group",
    Data "data",
    DataType "dataType",
    AckId "ackId",
    NoEcho "noEcho",
    User "user",
    Users "users",
    To "to",
    MessageId "messageId",
    Since "since",
    Event "event",
    SequenceId "sequenceId",
    Stream "stream",
    StreamId "streamId",
    StreamSequenceId "streamSequenceId",
    Error "error",
    InvocationId "invocationId",
    Target "target",
    State "state",
    Inbox "inbox",
    Device "device",
    Offset "offset",
    After "after",
    Limit "limit",
    Subscribe "subscribe",
    Token "token",
    Filter "filter",
}

/// The members of one frame.
pub(crate) struct Frame<'a> {
    /// The JSON behind each member; `null` is kept, because only `data` may mean it.
    values: [Option<&'a str>; Field::COUNT],
    /// The first member that came twice. Reading goes on, so that the ackId is still found.
    twice: Option<Field>,
}

impl<'a> Frame<'a> {
    /// Cuts the text.
    pub(crate) fn cut(text: &'a str) -> Result<Frame<'a>, Fault> {
        let mut frame = Frame { values: [None; Field::COUNT], twice: None };
        let problem = match frame.fill(text) {
            Ok(true) => return Ok(frame),
            Ok(false) => Problem::NotObject,
            Err(NotJson(at)) => Problem::NotJson { at: at + 1 },
        };
        Err(Fault { field: None, problem })
    }

    /// Takes the members of the object that the text should be; false when it is JSON of another kind.
    fn fill(&mut self, text: &'a str) -> Result<bool, NotJson> {
        let mut scanner = Scanner::new(text);
        if !scanner.take(b'{') {
            scanner.value()?;
            return scanner.end().map(|()| false);
        }
        if !scanner.take(b'}') {
            loop {
                let field = field_of(scanner.string()?);
                scanner.expect(b':')?;
                let value = scanner.value()?;
                if let Some(field) = field
                    && self.values[field as usize].replace(value).is_some()
                {
                    self.twice.get_or_insert(field);
                }
                if !scanner.take(b',') {
                    scanner.expect(b'}')?;
                    break;
                }
            }
        }
        scanner.end().map(|()| true)
    }

    /// The member, or none where it is absent.
    pub(crate) fn raw(&self, field: Field) -> Option<&'a str> {
        self.values[field as usize]
    }

    /// The member, or none where it is absent or `null`.
    pub(crate) fn get(&self, field: Field) -> Option<&'a str> {
        self.raw(field).filter(|json| *json != "null")
    }

    /// The first member that came twice.
    pub(crate) fn twice(&self) -> Option<Field> {
        self.twice
    }
}

/// The member of a name in quotes; none for those that no frame has.
fn field_of(name: &str) -> Option<Field> {
    match json_text::read_string(name) {
        StringText::Whole(name) => Field::from_name(&name),
        _ => None,
    }
}
