//! From words to a tree whose types fit.
//!
//! Recursive descent by precedence: `or`, `and`, comparisons and `in`, `not`, then single terms. Chains of
//! `or` and `and` are lists, so that only parentheses, functions and `not` recurse, and those are counted.

use super::{
    FilterError, FilterProblem, MAX_FILTER_DEPTH,
    lexer::{Token, TokenKind, error_at, tokens},
};

/// A node of a compiled filter. Types were checked: an evaluation meets only what it expects, or null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A string.
    Text(Box<str>),
    /// `userId`
    UserId,
    /// `connectionId`
    ConnectionId,
    /// `groups`: only its length and its members can be asked for.
    Groups,
    /// `not`
    Not(Box<Expr>),
    /// Terms joined by `and`.
    All(Vec<Expr>),
    /// Terms joined by `or`.
    Any(Vec<Expr>),
    /// A comparison.
    Compare(Comparison, Box<(Expr, Expr)>),
    /// `… in (…, …)`
    InList(Box<Expr>, Vec<Expr>),
    /// `… in groups`
    InGroups(Box<Expr>),
    /// A function of its arguments, whose number and types fit.
    Call(Function, Vec<Expr>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// A function by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    ToLower,
    ToUpper,
    Trim,
    Substring,
    EndsWith,
    StartsWith,
    IndexOf,
    Contains,
    Concat,
    /// Of a string, or of the groups.
    Length,
}

/// What a node evaluates to, besides null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bool,
    Integer,
    Text,
    Groups,
    Null,
}

impl Type {
    /// As errors call it.
    const fn name(self) -> &'static str {
        match self {
            Type::Bool => "a boolean",
            Type::Integer => "an integer",
            Type::Text => "a string",
            Type::Groups => "the groups",
            Type::Null => "null",
        }
    }
}

/// A node with its type and where it begins.
struct Term {
    expr: Expr,
    of: Type,
    at: usize,
}

/// Compiles a filter.
pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: &tokens, next: 0, depth: 0 };
    let term = parser.any()?;
    if parser.peek().kind != TokenKind::End {
        return Err(parser.error(FilterProblem::Expected("an operator or the end")));
    }
    parser.boolean(term, "the filter")
}

/// The words and how far they are read.
struct Parser<'a> {
    text: &'a str,
    /// Ends with [`TokenKind::End`], which is never passed.
    tokens: &'a [Token<'a>],
    next: usize,
    /// How many parentheses, functions and `not` are open.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Token<'a> {
        &self.tokens[self.next]
    }

    fn advance(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    /// Passes the word if it comes next.
    fn take_word(&mut self, word: &str) -> bool {
        let comes = matches!(self.peek().kind, TokenKind::Word(found) if found.eq_ignore_ascii_case(word));
        if comes {
            self.advance();
        }
        comes
    }

    /// Passes what must come next.
    fn expect(&mut self, kind: &TokenKind<'_>, name: &'static str) -> Result<(), FilterError> {
        if self.peek().kind != *kind {
            return Err(self.error(FilterProblem::Expected(name)));
        }
        self.advance();
        Ok(())
    }

    fn error(&self, problem: FilterProblem) -> FilterError {
        error_at(self.text, self.peek().at, problem)
    }

    /// The node of a boolean.
    fn boolean(&self, term: Term, what: &'static str) -> Result<Expr, FilterError> {
        self.typed(term, what, Type::Bool)
    }

    /// The node of a term that must have a type.
    fn typed(&self, term: Term, what: &'static str, expected: Type) -> Result<Expr, FilterError> {
        if term.of == expected {
            return Ok(term.expr);
        }
        let (expected, found) = (expected.name(), term.of.name());
        Err(error_at(self.text, term.at, FilterProblem::Type { what, expected, found }))
    }

    /// The node of a string, or null.
    fn string(&self, term: Term, what: &'static str) -> Result<Expr, FilterError> {
        if term.of == Type::Null { Ok(term.expr) } else { self.typed(term, what, Type::Text) }
    }

    /// Goes one level deeper for as long as `read` takes.
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth == MAX_FILTER_DEPTH {
            return Err(self.error(FilterProblem::TooDeep));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Terms joined by `or`.
    fn any(&mut self) -> Result<Term, FilterError> {
        self.chain("or", "an operand of `or`", Self::all, Expr::Any)
    }

    /// Terms joined by `and`.
    fn all(&mut self) -> Result<Term, FilterError> {
        self.chain("and", "an operand of `and`", Self::comparison, Expr::All)
    }

    /// One term, or several joined by a word.
    fn chain(
        &mut self,
        word: &str,
        what: &'static str,
        read: fn(&mut Self) -> Result<Term, FilterError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Term, FilterError> {
        let first = read(self)?;
        let at = first.at;
        if !self.take_word(word) {
            return Ok(first);
        }
        let mut terms = vec![self.boolean(first, what)?];
        loop {
            let term = read(self)?;
            terms.push(self.boolean(term, what)?);
            if !self.take_word(word) {
                return Ok(Term { expr: join(terms), of: Type::Bool, at });
            }
        }
    }

    /// A comparison, `in`, or a single term. Comparisons do not chain.
    fn comparison(&mut self) -> Result<Term, FilterError> {
        let left = self.negation()?;
        if self.take_word("in") {
            return self.membership(left);
        }
        let Some(comparison) = self.comparison_word() else { return Ok(left) };
        let right = self.negation()?;
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let fits = match (left.of, right.of) {
            (Type::Groups, _) | (_, Type::Groups) => false,
            (Type::Null, _) | (_, Type::Null) => true,
            (Type::Bool, Type::Bool) => !ordered,
            (left, right) => left == right,
        };
        if !fits {
            let problem = FilterProblem::Compare { left: left.of.name(), right: right.of.name() };
            return Err(error_at(self.text, right.at, problem));
        }
        let expr = Expr::Compare(comparison, Box::new((left.expr, right.expr)));
        Ok(Term { expr, of: Type::Bool, at: left.at })
    }

    /// Passes a comparison's word.
    fn comparison_word(&mut self) -> Option<Comparison> {
        const WORDS: [(&str, Comparison); 6] = [
            ("eq", Comparison::Equal),
            ("ne", Comparison::NotEqual),
            ("gt", Comparison::Greater),
            ("ge", Comparison::GreaterEqual),
            ("lt", Comparison::Less),
            ("le", Comparison::LessEqual),
        ];
        WORDS.into_iter().find_map(|(word, comparison)| self.take_word(word).then_some(comparison))
    }

    /// What stands behind `in`: the groups, or a list.
    fn membership(&mut self, left: Term) -> Result<Term, FilterError> {
        let at = left.at;
        let place = self.peek().at;
        let listed = self.peek().kind == TokenKind::Open;
        let list = if listed { self.deeper(Self::list)? } else { vec![self.negation()?] };
        if let [Term { of: Type::Groups, .. }] = &list[..] {
            let name = self.string(left, "the left side of `in groups`")?;
            return Ok(Term { expr: Expr::InGroups(Box::new(name)), of: Type::Bool, at });
        }
        // Without parentheses only the groups are a collection.
        if !listed || list.iter().any(|term| term.of == Type::Groups) {
            let problem = FilterProblem::Expected("groups or a list in parentheses");
            return Err(error_at(self.text, place, problem));
        }
        if left.of == Type::Groups {
            let problem = FilterProblem::Compare { left: left.of.name(), right: "a list" };
            return Err(error_at(self.text, at, problem));
        }
        for term in &list {
            if term.of != left.of && term.of != Type::Null && left.of != Type::Null {
                let problem = FilterProblem::Compare { left: left.of.name(), right: term.of.name() };
                return Err(error_at(self.text, term.at, problem));
            }
        }
        let list = list.into_iter().map(|term| term.expr).collect();
        Ok(Term { expr: Expr::InList(Box::new(left.expr), list), of: Type::Bool, at })
    }

    /// Terms in parentheses, at least one.
    fn list(&mut self) -> Result<Vec<Term>, FilterError> {
        self.expect(&TokenKind::Open, "(")?;
        let mut terms = vec![self.any()?];
        while self.peek().kind == TokenKind::Comma {
            self.advance();
            terms.push(self.any()?);
        }
        self.expect(&TokenKind::Close, ", or )")?;
        Ok(terms)
    }

    /// `not`, or a single term.
    fn negation(&mut self) -> Result<Term, FilterError> {
        let at = self.peek().at;
        if !self.take_word("not") {
            return self.term();
        }
        let inner = self.deeper(Self::negation)?;
        let expr = Expr::Not(Box::new(self.boolean(inner, "the operand of `not`")?));
        Ok(Term { expr, of: Type::Bool, at })
    }

    /// A constant, an identifier, a function, or anything in parentheses.
    fn term(&mut self) -> Result<Term, FilterError> {
        let Token { at, kind } = self.peek();
        let at = *at;
        let (expr, of) = match kind {
            TokenKind::Open => {
                return self.deeper(|parser| {
                    parser.advance();
                    let term = parser.any()?;
                    parser.expect(&TokenKind::Close, ")")?;
                    Ok(Term { at, ..term })
                });
            }
            TokenKind::Text(text) => (Expr::Text(text.as_str().into()), Type::Text),
            TokenKind::Integer(number) => (Expr::Integer(*number), Type::Integer),
            TokenKind::Word(word) => match word.to_ascii_lowercase().as_str() {
                "null" => (Expr::Null, Type::Null),
                "true" => (Expr::Bool(true), Type::Bool),
                "false" => (Expr::Bool(false), Type::Bool),
                "userid" => (Expr::UserId, Type::Text),
                "connectionid" => (Expr::ConnectionId, Type::Text),
                "groups" => (Expr::Groups, Type::Groups),
                lower => {
                    let function = Function::from_name(lower).ok_or_else(|| {
                        self.error(FilterProblem::UnknownWord(
                            word.chars().take(32).collect::<String>().into(),
                        ))
                    })?;
                    self.advance();
                    return self.deeper(|parser| parser.call(function, at));
                }
            },
            TokenKind::Close | TokenKind::Comma | TokenKind::End => {
                return Err(self.error(FilterProblem::Expected("a value")));
            }
        };
        self.advance();
        Ok(Term { expr, of, at })
    }

    /// The arguments of a function.
    fn call(&mut self, function: Function, at: usize) -> Result<Term, FilterError> {
        let given = self.list()?;
        let (least, most) = function.arity();
        if given.len() < least || given.len() > most {
            return Err(error_at(self.text, at, FilterProblem::Expected(function.arguments())));
        }
        let mut arguments = Vec::with_capacity(given.len());
        for (place, term) in given.into_iter().enumerate() {
            arguments.push(match function {
                Function::Length if term.of == Type::Groups => term.expr,
                Function::Substring if place > 0 => {
                    self.typed(term, "an argument of substring", Type::Integer)?
                }
                _ => self.string(term, "an argument")?,
            });
        }
        Ok(Term { expr: Expr::Call(function, arguments), of: function.gives(), at })
    }
}

impl Function {
    /// Finds a function by its name in lower case.
    fn from_name(lower: &str) -> Option<Function> {
        Some(match lower {
            "tolower" => Function::ToLower,
            "toupper" => Function::ToUpper,
            "trim" => Function::Trim,
            "substring" => Function::Substring,
            "endswith" => Function::EndsWith,
            "startswith" => Function::StartsWith,
            "indexof" => Function::IndexOf,
            "contains" => Function::Contains,
            "concat" => Function::Concat,
            "length" => Function::Length,
            _ => return None,
        })
    }

    /// The least and the most arguments.
    const fn arity(self) -> (usize, usize) {
        match self {
            Function::ToLower | Function::ToUpper | Function::Trim | Function::Length => (1, 1),
            Function::Substring => (2, 3),
            _ => (2, 2),
        }
    }

    /// The arguments, as errors call them.
    const fn arguments(self) -> &'static str {
        match self {
            Function::ToLower | Function::ToUpper | Function::Trim => "one string as argument",
            Function::Length => "one string, or groups, as argument",
            Function::Substring => "a string and one or two integers as arguments",
            _ => "two strings as arguments",
        }
    }

    /// The type of the result.
    const fn gives(self) -> Type {
        match self {
            Function::EndsWith | Function::StartsWith | Function::Contains => Type::Bool,
            Function::IndexOf | Function::Length => Type::Integer,
            _ => Type::Text,
        }
    }
}
