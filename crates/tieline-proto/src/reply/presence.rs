//! Presence: pages of a snapshot, and who has come and gone.

use crate::json_text;
use crate::presence::{Details, Event, Page, Person, Totals};

use super::{push_count, push_member};

/// Appends a page of who is in a group, or without one in the hub (`tieline.v1`).
pub fn presence_page(out: &mut Vec<u8>, group: Option<&str>, ack_id: Option<u64>, page: &Page) {
    head(out, group);
    if let Some(ack_id) = ack_id {
        push_count(out, ",\"ackId\":", ack_id);
    }
    out.push(b',');
    body(out, page);
    if let Some(next) = &page.next {
        push_member(out, ",\"next\":", next);
    }
    out.push(b'}');
}

/// Appends who has come and gone (`tieline.v1`).
pub fn presence_events(out: &mut Vec<u8>, group: Option<&str>, events: &[Event]) {
    head(out, group);
    out.extend_from_slice(b",\"events\":[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        presence_event(out, event, None);
    }
    out.extend_from_slice(b"]}");
}

/// Appends one of these as an object of its own; with the group in it where it stands alone.
pub fn presence_event(out: &mut Vec<u8>, event: &Event, group: Option<&str>) {
    push_member(out, "{\"event\":", event.turn.name());
    if let Some(group) = group {
        push_member(out, ",\"group\":", group);
    }
    push_member(out, ",\"userId\":", &event.user);
    push_member(out, ",\"node\":", event.node.as_str());
    details(out, event.details.as_ref());
    out.push(b'}');
}

/// Appends a page as the REST API gives it, with the address of the next one.
pub fn presence_body(out: &mut Vec<u8>, page: &Page, next_link: Option<&str>) {
    out.push(b'{');
    body(out, page);
    if let Some(link) = next_link {
        push_member(out, ",\"nextLink\":", link);
    }
    out.push(b'}');
}

fn head(out: &mut Vec<u8>, group: Option<&str>) {
    out.extend_from_slice(b"{\"type\":\"presence\"");
    if let Some(group) = group {
        push_member(out, ",\"group\":", group);
    }
}

fn body(out: &mut Vec<u8>, page: &Page) {
    let Totals { users, connections, anonymous } = page.totals;
    push_count(out, "\"total\":{\"users\":", users);
    push_count(out, ",\"connections\":", connections);
    push_count(out, ",\"anonymous\":", anonymous);
    out.extend_from_slice(b"},\"complete\":");
    json_text::push_bool(out, page.is_complete);
    out.extend_from_slice(b",\"users\":[");
    for (index, person) in page.users.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_person(out, person);
    }
    out.push(b']');
}

fn write_person(out: &mut Vec<u8>, person: &Person) {
    push_member(out, "{\"userId\":", &person.user);
    push_count(out, ",\"connections\":", person.connections);
    out.extend_from_slice(b",\"places\":[");
    for (index, place) in person.places.iter().enumerate() {
        let head = if index > 0 { ",{\"node\":" } else { "{\"node\":" };
        push_member(out, head, place.node.as_str());
        push_count(out, ",\"connections\":", place.connections);
        details(out, place.details.as_ref());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn details(out: &mut Vec<u8>, details: Option<&Details>) {
    if let Some(details) = details {
        out.push(b',');
        out.extend_from_slice(details.members().as_bytes());
    }
}
