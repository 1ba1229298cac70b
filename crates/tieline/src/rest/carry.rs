//! Carrying calls out: names become what the node is asked, and its answers become status codes.

use std::sync::Arc;

use axum::response::Response;
use hyper::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::ask::sending::{Sending, Wants};
use tieline_core::ask::{Answer, Ask, MAX_PAGE, Page, Right, Who};
use tieline_core::delivery::Target;
use tieline_core::token::{Grant, TokenError};
use tieline_core::{Node, unix_ms};
use tieline_proto::reply::Receipt;
use tieline_proto::rest::{BodyError, ConnectionItem, ConnectionsPage, GroupsBody, SendBody, TokenAnswer};
use tieline_proto::role::Roles;
use tieline_proto::{CloseCode, ConnectionId, ErrorCode, GroupName, HubName, Payload, Permission, UserId};

use super::body::Content;
use super::call::HubCall;
use super::parameters::{Parameters, invalid};
use super::{empty, history, json, presence, repetition};
use crate::http::{Found, Head, Refusal};

/// How long a generated token lives when nothing else is asked for, in minutes.
const TOKEN_MINUTES: u64 = 60;

/// How long it may live: a year.
const MOST_TOKEN_MINUTES: u64 = 366 * 24 * 60;

/// What is encoded of a parameter's value in a link.
pub(super) const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.');

/// Carries a call of a hub out. `body` is empty where the call has none.
pub(super) async fn out(
    node: &Node,
    head: &Head<'_>,
    hub: HubName,
    call: HubCall,
    parameters: &Parameters<'_>,
    body: &Content,
) -> Result<Response, Refusal> {
    match call {
        HubCall::Send(to) => send(node, head, &hub, to, parameters, body).await,
        HubCall::SendToMany => send_to_many(node, head, &hub, body).await,
        HubCall::Close(who) => close(node, &hub, who, parameters).await,
        HubCall::Exists(who) => found(node.answer_everywhere(&hub, Ask::Exists(who)).await?),
        HubCall::Join(who, group) => {
            // A user without a connection is not an error, a connection that is not there is one.
            let must_exist = matches!(who, Who::Connection(_));
            if let (Who::User(user), Some(logs)) = (&who, node.logs()) {
                logs.join_user(&hub, user, std::slice::from_ref(&group)).await?;
            }
            let answer = node.answer_everywhere(&hub, Ask::Join { who, groups: vec![group] }).await?;
            if must_exist { found(answer) } else { Ok(empty(StatusCode::OK)) }
        }
        HubCall::Leave(who, group) => {
            if let (Who::User(user), Some(logs)) = (&who, node.logs()) {
                logs.leave_user(&hub, user, Some(&group)).await?;
            }
            done(node, &hub, Ask::Leave { who, groups: vec![group] }).await
        }
        HubCall::LeaveAll(who) => {
            if let (Who::User(user), Some(logs)) = (&who, node.logs()) {
                logs.leave_user(&hub, user, None).await?;
            }
            done(node, &hub, Ask::LeaveAll(who)).await
        }
        HubCall::JoinByFilter => {
            let (who, groups) = groups_by_filter(body)?;
            node.answer_everywhere(&hub, Ask::Join { who, groups }).await?;
            Ok(empty(StatusCode::OK))
        }
        HubCall::LeaveByFilter => {
            let (who, groups) = groups_by_filter(body)?;
            node.answer_everywhere(&hub, Ask::Leave { who, groups }).await?;
            Ok(empty(StatusCode::OK))
        }
        HubCall::Members(group) => members(node, head, &hub, group, parameters).await,
        HubCall::History(target) => history::page(node, head, &hub, &target, parameters).await,
        HubCall::Presence(group) => presence::page(node, head, &hub, group.as_ref(), parameters),
        HubCall::Forget(target) => history::forget(node, &hub, &target, parameters).await,
        HubCall::Grant(permission, connection) => {
            let right = right(permission, connection, parameters)?;
            found(node.answer_everywhere(&hub, Ask::Grant(right)).await?)
        }
        HubCall::Revoke(permission, connection) => {
            done(node, &hub, Ask::Revoke(right(permission, connection, parameters)?)).await
        }
        HubCall::Holds(permission, connection) => {
            let right = right(permission, connection, parameters)?;
            found(node.answer_everywhere(&hub, Ask::Holds(right)).await?)
        }
        HubCall::GenerateToken => generate_token(node, head, hub, parameters),
    }
}

/// 200, or 404 when there is none.
fn found(answer: Answer) -> Result<Response, Refusal> {
    if answer.is_any() { Ok(empty(StatusCode::OK)) } else { Err(ErrorCode::NotFound.into()) }
}

/// 204, also when there was nothing to be done.
async fn done(node: &Node, hub: &HubName, ask: Ask) -> Result<Response, Refusal> {
    node.answer_everywhere(hub, ask).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn send(
    node: &Node,
    head: &Head<'_>,
    hub: &HubName,
    to: Target,
    parameters: &Parameters<'_>,
    body: &Content,
) -> Result<Response, Refusal> {
    parameters.check_ttl()?;
    let payload = Payload::from_body(body.data_type()?, &body.bytes)
        .map_err(|error| Refusal::new(ErrorCode::InvalidData, error.to_string()))?;
    // One connection is chosen already.
    let chosen = matches!(to, Target::Connection(_));
    let (except, filter) =
        if chosen { (Vec::new(), None) } else { (parameters.excluded()?, parameters.filter()?) };
    let key = repetition::key(head, hub, None)?;
    node.send(hub, Sending { to: vec![to], except, filter, payload, key }, Wants::Nothing).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

async fn send_to_many(
    node: &Node,
    head: &Head<'_>,
    hub: &HubName,
    body: &Content,
) -> Result<Response, Refusal> {
    body.expect_json()?;
    let SendBody { to, all, filter, data, message_id } = SendBody::parse(&body.bytes).map_err(refusal)?;
    let key = repetition::key(head, hub, message_id.as_deref())?;
    let mut recipients = Vec::new();
    if all {
        recipients.push(Target::Everyone);
    } else {
        // Their rules were checked as the body was read.
        recipients.extend(to.users.iter().filter_map(|user| UserId::new(user).ok()).map(Target::User));
        recipients.extend(to.groups.iter().filter_map(|group| GroupName::new(group).ok()).map(Target::Group));
        recipients.extend(to.connections.into_iter().map(Target::Connection));
    }
    let sending = Sending {
        to: recipients,
        except: to.excluded,
        filter: filter.map(Arc::new),
        payload: data.to_payload(),
        key,
    };
    let outcome = node.send(hub, sending, Wants::Outcome).await?;
    let delivered = outcome.map(|outcome| outcome.delivered);
    let unknown = outcome.map(|outcome| outcome.unknown);
    let unreachable = outcome.map(|outcome| outcome.unreachable);
    let queued = outcome.map_or(0, |outcome| outcome.queued);
    Ok(json(&Receipt { delivered, queued, unknown, unreachable }))
}

async fn close(
    node: &Node,
    hub: &HubName,
    who: Who,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    let reason = parameters.one("reason")?;
    let reason = reason.as_deref().unwrap_or(CloseCode::Removed.text()).to_owned();
    let excluded = parameters.excluded()?;
    done(node, hub, Ask::Close { who, excluded, reason }).await
}

fn groups_by_filter(body: &Content) -> Result<(Who, Vec<GroupName>), Refusal> {
    body.expect_json()?;
    let GroupsBody { groups, filter } = GroupsBody::parse(&body.bytes).map_err(refusal)?;
    Ok((filter.map_or(Who::Everyone, |filter| Who::Matching(Arc::new(filter))), groups))
}

fn right(
    permission: Permission,
    connection: ConnectionId,
    parameters: &Parameters<'_>,
) -> Result<Right, Refusal> {
    let target = parameters.one("targetName")?;
    if !Roles::nothing().grant(permission, target.as_deref()) {
        return Err(invalid("targetName", "can be no target of this permission"));
    }
    Ok(Right { connection, permission, target: target.map(|target| target.into_owned()) })
}

async fn members(
    node: &Node,
    head: &Head<'_>,
    hub: &HubName,
    group: GroupName,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    let size = parameters.number("maxpagesize", 1..=u64::from(MAX_PAGE))?;
    let top = parameters.number("top", 1..=u64::from(u32::MAX))?;
    let after: Option<ConnectionId> = match parameters.one("continuationToken")? {
        Some(token) => Some(token.parse().map_err(|_| invalid("continuationToken", "is none of this API"))?),
        None => None,
    };
    let limit = size.unwrap_or(MAX_PAGE.into()).min(top.unwrap_or(u64::MAX));
    let limit = u32::try_from(limit).unwrap_or(MAX_PAGE);
    let Answer::Page(page) = node.answer_everywhere(hub, Ask::Members { group, after, limit }).await? else {
        return Err(ErrorCode::InternalServerError.into());
    };
    let next_link = next_link(head, &page, size, top, parameters)?;
    let item = |member: tieline_core::ask::Member| ConnectionItem {
        connection_id: member.connection,
        user_id: member.user.map(|user| user.as_str().to_owned()),
    };
    Ok(json(&ConnectionsPage { value: page.members.into_iter().map(item).collect(), next_link }))
}

/// The address of the next page, if there is one. Libraries request it exactly as it stands, so what is left of `top` is in it.
fn next_link(
    head: &Head<'_>,
    page: &Page,
    size: Option<u64>,
    top: Option<u64>,
    parameters: &Parameters<'_>,
) -> Result<Option<String>, Refusal> {
    let Some(last) = page.members.last().filter(|_| page.more) else { return Ok(None) };
    let left = top.map(|top| top.saturating_sub(page.members.len() as u64));
    if left == Some(0) {
        return Ok(None);
    }
    let mut link = format!("{}{}?continuationToken={}", endpoint(head), head.path(), last.connection);
    for (name, number) in [("maxpagesize", size), ("top", left)] {
        if let Some(number) = number {
            link.push_str(&format!("&{name}={number}"));
        }
    }
    if let Some(version) = parameters.one("api-version")? {
        link.push_str(&format!("&api-version={}", utf8_percent_encode(&version, IN_QUERY)));
    }
    Ok(Some(link))
}

/// The server's address as the caller knows it. Where TLS ends before this server, a proxy tells.
pub(super) fn endpoint(head: &Head<'_>) -> String {
    let Found::Once(Some(host)) = head.header("host") else { return String::new() };
    let is_tls = head.header("x-forwarded-proto") == Found::Once(Some("https"));
    format!("{}://{host}", if is_tls { "https" } else { "http" })
}

fn generate_token(
    node: &Node,
    head: &Head<'_>,
    hub: HubName,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    if node.keys().is_empty() {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "this server has no access key to sign a token with",
        ));
    }
    if parameters.one("clientType")?.is_some_and(|kind| !kind.eq_ignore_ascii_case("default")) {
        return Err(invalid("clientType", "must be `Default`"));
    }
    let user = parameters.one("userId")?;
    let groups = parameters.all("group")?;
    let groups: Result<Vec<_>, _> = groups.iter().map(|group| GroupName::new(group)).collect();
    let roles: Vec<String> = parameters.all("role")?.into_iter().map(|role| role.into_owned()).collect();
    // In a token they may be the application's own; asked for here, they are meant for this server.
    if let Some(unknown) = roles.iter().find(|role| !Roles::nothing().add(role)) {
        return Err(Refusal::new(
            ErrorCode::InvalidRole,
            format!("`role`: {:?} is not one the server knows", excerpt(unknown)),
        ));
    }
    let minutes = parameters.number("minutesToExpire", 1..=MOST_TOKEN_MINUTES)?.unwrap_or(TOKEN_MINUTES);
    let presence = parameters.one("presence")?;
    let presence = presence.map(|text| serde_json::from_str(&text)).transpose();
    let grant = Grant {
        endpoint: endpoint(head),
        hub,
        user: user.map(|user| UserId::new(&user)).transpose().map_err(|_| ErrorCode::InvalidUser)?,
        roles,
        groups: groups.map_err(|_| ErrorCode::InvalidGroup)?,
        presence: presence.map_err(|_| invalid("presence", "is no JSON"))?,
        lifetime: minutes * 60,
    };
    let token = node.keys().sign_client(&grant, unix_ms() / 1000).map_err(|error| match error {
        TokenError::PresenceTooLarge => invalid("presence", "has more than 1024 bytes"),
        error => error.into(),
    })?;
    Ok(json(&TokenAnswer { token }))
}

/// The beginning of a text, for an error.
fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

/// What is wrong with a body.
fn refusal(error: BodyError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}
