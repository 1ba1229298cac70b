//! [`Errand`]: what is asked about one user, until the user's entry is as it should be. Tested with the directory.

use std::collections::HashMap;

use tieline_core::directory::asked::{Answer, Request};

use super::super::Trouble;
use super::super::protocol::{MapCall, Reply, read_text};
use super::roll::{Stay, View};
use super::row::{self, Row};

/// What is known of an entry that is to be changed.
enum Known {
    /// Nothing: there may be none.
    Nothing,
    /// There is none, as was just read.
    Absent,
    /// Its value, as members keep it.
    Value(Vec<u8>),
}

/// What is asked about one user, in its order.
pub(super) struct Errand<'a> {
    key: String,
    /// Where each stands in what was asked.
    requests: Vec<(usize, &'a Request)>,
    known: Known,
    answers: Vec<Answer>,
    /// What is to stand there; nothing where there is to be no entry.
    text: Option<String>,
}

impl<'a> Errand<'a> {
    /// One for each user that something is asked about.
    pub(super) fn of(requests: &'a [Request]) -> Vec<Errand<'a>> {
        let mut errands: Vec<Errand<'_>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (at, request) in requests.iter().enumerate() {
            let key = row::key(request.key());
            let place = *places.entry(key.clone()).or_insert_with(|| {
                let (answers, text) = (Vec::new(), None);
                errands.push(Errand { key, requests: Vec::new(), known: Known::Nothing, answers, text });
                errands.len() - 1
            });
            errands[place].requests.push((at, request));
        }
        errands
    }

    /// Works out what is to stand there, and what is answered if it does, from what is known.
    pub(super) fn serve(&mut self, me: Stay, view: &View, is_fresh: bool) {
        let text = match &self.known {
            Known::Value(value) => read_text(value),
            Known::Nothing | Known::Absent => None,
        };
        let mut row = Row::read(text);
        row.weed(me, view);
        let requests = self.requests.iter();
        self.answers = requests.map(|(_, request)| row.serve(request, me, view, is_fresh)).collect();
        self.text = row.text();
    }

    /// What is to be called next; nothing when all is as it should be.
    pub(super) fn call(&self) -> Option<MapCall<'_>> {
        let key = self.key.as_str();
        match (&self.known, &self.text) {
            (Known::Nothing, None) => Some(MapCall::Get(key)),
            (Known::Absent, None) => None,
            (Known::Nothing | Known::Absent, Some(text)) => Some(MapCall::PutIfAbsent(key, text)),
            (Known::Value(value), Some(text)) if read_text(value) == Some(text) => None,
            (Known::Value(value), Some(text)) => Some(MapCall::ReplaceIfSame(key, value, text)),
            (Known::Value(value), None) => Some(MapCall::RemoveIfSame(key, value)),
        }
    }

    /// What a call has answered. Returns whether the entry is as it should be.
    pub(super) fn hear(&mut self, reply: Reply) -> Result<bool, Trouble> {
        // An entry that was not there is put there, or what is there is read; so the reply to the one tells the other.
        let was_put = matches!(self.known, Known::Nothing | Known::Absent) && self.text.is_some();
        match reply {
            Reply::Value(None) if was_put => return Ok(true),
            Reply::Value(None) => self.known = Known::Absent,
            Reply::Value(Some(value)) => self.known = Known::Value(value),
            Reply::Is(true) => return Ok(true),
            // Somebody else was faster.
            Reply::Is(false) => self.known = Known::Nothing,
            Reply::Done => return Err(Trouble::Garbage),
        }
        Ok(false)
    }

    /// Answers what was asked, each in its place, when the entry is as it should be.
    pub(super) fn settle(self, answers: &mut [Answer]) {
        let given = self.requests.iter().zip(self.answers);
        given.for_each(|((at, _), answer)| answers[*at] = answer);
    }
}
