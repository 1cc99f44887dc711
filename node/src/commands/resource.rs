//! What the configuration objects have in common: lists page by page, one by id, actions on one.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::{Context, Failure};
use crate::args::ListArgs;
use crate::client::{ANSWER_TIMEOUT, Client};

/// Rows per page.
const PAGE: usize = 500;
/// Most pages of one list: a server that never ends its list cannot keep us for ever.
const PAGES_MAX: usize = 1_000;

/// All but the unreserved characters of RFC 3986: ids such as `acc_…` stand in paths as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as a part of a path or query.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// `{collection}/{id}`.
pub fn path(collection: &str, id: &str) -> String {
    format!("{collection}/{}", escaped(id))
}

/// All rows of a list, or the first `limit`.
pub async fn rows(client: &Client, collection: &str, limit: Option<usize>) -> Result<Vec<Value>, Failure> {
    let wanted = limit.unwrap_or(usize::MAX);
    let mut rows: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    for _ in 0..PAGES_MAX {
        let page = (wanted - rows.len()).clamp(1, PAGE);
        let mut answer: Map<String, Value> = client.get(&format!("{collection}?limit={page}{cursor}")).await?.json()?;
        if let Some(Value::Array(data)) = answer.remove("data") {
            rows.extend(data);
        }
        let next = answer.get("next_cursor").and_then(Value::as_str);
        match next {
            Some(next) if rows.len() < wanted => cursor = format!("&cursor={}", escaped(next)),
            Some(_) | None => break,
        }
    }
    rows.truncate(wanted);
    Ok(rows)
}

/// Prints a list.
pub async fn list(collection: &str, columns: &[&str], args: &ListArgs, context: &mut Context) -> Result<(), Failure> {
    let rows = rows(&context.client()?, collection, args.limit).await?;
    if context.screen.json {
        return Ok(context.screen.pretty(&Value::Array(rows))?);
    }
    if rows.is_empty() {
        context.screen.note("none yet");
        return Ok(());
    }
    Ok(context.screen.table(columns, &rows)?)
}

/// Prints one object.
pub async fn show(collection: &str, id: &str, context: &mut Context) -> Result<(), Failure> {
    let value: Value = context.client()?.get(&path(collection, id)).await?.json()?;
    print(&value, context)
}

/// Creates one object and prints the answer; `once` names a member that the server shows this one time.
pub async fn create(collection: &str, body: Map<String, Value>, once: Option<&str>, context: &mut Context) -> Result<(), Failure> {
    let value: Value = context.client()?.post(collection, Some(&Value::Object(body))).await?.json()?;
    print(&value, context)?;
    remark_once(&value, once, context);
    Ok(())
}

/// Changes one object by merge patch and prints the answer.
pub async fn change(collection: &str, id: &str, body: Map<String, Value>, context: &mut Context) -> Result<(), Failure> {
    if body.is_empty() {
        return Err(Failure::Usage("nothing to change was named".to_owned()));
    }
    let body = Value::Object(body);
    let answer = context.client()?.call(Method::PATCH, &path(collection, id), &[], Some(&body), ANSWER_TIMEOUT).await?;
    print(&answer.json()?, context)
}

/// Deletes one object.
pub async fn delete(collection: &str, id: &str, context: &mut Context) -> Result<(), Failure> {
    context.client()?.call(Method::DELETE, &path(collection, id), &[], None, ANSWER_TIMEOUT).await?;
    if context.screen.json {
        return Ok(());
    }
    Ok(context.screen.line(&format!("deleted {id}"))?)
}

/// `POST {collection}/{id}/{action}`, and what came of it.
pub async fn act(collection: &str, id: &str, action: &str, once: Option<&str>, context: &mut Context) -> Result<(), Failure> {
    let value: Value = context.client()?.post(&format!("{}/{action}", path(collection, id)), None).await?.json()?;
    if value.is_null() {
        return if context.screen.json { Ok(()) } else { Ok(context.screen.line(&format!("{action}: done"))?) };
    }
    print(&value, context)?;
    remark_once(&value, once, context);
    Ok(())
}

fn print(value: &Value, context: &mut Context) -> Result<(), Failure> {
    if context.screen.json { Ok(context.screen.pretty(value)?) } else { Ok(context.screen.members(value)?) }
}

fn remark_once(value: &Value, once: Option<&str>, context: &mut Context) {
    if let Some(name) = once.filter(|name| value.get(*name).is_some()) {
        context.screen.note(&format!("keep the {name}: it is not shown again"));
    }
}
