//! Reconciliation: the pure part. Asks for the orders that were made, changed or binned since a time, and makes pieces of the answer,
//! as if the shop had told them. They are authentic because the answer is our own: asked for with the shop's keys, over TLS.
//!
//! What was told already makes no second event: pieces of a pull and of webhooks are known by the same ids (see `parse`), so pulls
//! may overlap, and should. Only a deletion that a webhook told may be told once more. What a worker must do around it:
//!
//! * one pull of an account at a time, in all processes; at most two calls of a shop under way;
//! * begin with [`Pull::since`] the last end less an overlap (WP-Cron tells minutes late: an hour is right), ask [`request`], give
//!   the answer to [`read`], append the pieces like those of a webhook (durably, before anything is forgotten), go on with
//!   [`Pulled::next`] until there is none; a pull's end is the time at which it began, and is kept when all of it is durable;
//! * read answers up to [`ANSWER_BYTES_MAX`]; longer or cut ones are [`Failure::Unreadable`]: ask [`Pull::smaller`];
//! * pull when a shop was silent for long, after refusals of ours ([`RefusalCost::punished_at`]), and every few minutes where there
//!   are keys; the tenant is told by an event when a pull found what no webhook told: that webhook is likely disabled.
//!
//! [`RefusalCost::punished_at`]: crate::channels::RefusalCost

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::outcome::{code, detail, is_about_keys};
use super::parse::gmt;
use super::send;
use super::topic::{Change, Resource};
use super::wire::Told;
use crate::channels::{Piece, Unsendable};
use crate::clock::Timestamp;
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};

/// Orders of one answer.
pub const PAGE: u32 = 100;
/// Longest answer that is worth reading, in bytes: a hundred orders with a hundred lines each.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pages of one time: more orders than that are not changed within a second.
const PAGES_MAX: u32 = 1_000;
/// The shop itself tells no change within so long after an order's making.
const MAKING: Duration = Duration::from_secs(10);
/// Orders that are not made yet.
const DRAFTS: [&str; 2] = ["auto-draft", "checkout-draft"];

/// Which orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Those that stand.
    Standing,
    /// Those in the bin.
    Binned,
}

/// Where a pull stands. Plain data: it may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// From when on orders may have been missed: one made after it is told as made.
    missed_since: Timestamp,
    stage: Stage,
    /// Asked for are orders that changed later than this.
    after: Timestamp,
    /// Pages of that time are read from here: more than one only while all of a page changed within one second.
    page: u32,
    per_page: u32,
}

impl Pull {
    /// Everything that happened to orders after this time.
    pub fn since(time: Timestamp) -> Self {
        Self { missed_since: time, stage: Stage::Standing, after: time, page: 1, per_page: PAGE }
    }

    /// The same with half as many orders an answer; none: it is one already.
    pub fn smaller(self) -> Option<Self> {
        // Pages are counted anew: what is read twice makes no second event.
        (self.per_page > 1).then_some(Self { per_page: self.per_page / 2, page: 1, ..self })
    }

    /// What to ask after a page of so many orders.
    fn next(self, seen: &Seen) -> Option<Self> {
        let is_full = seen.orders >= self.per_page as usize;
        if !is_full || self.page >= PAGES_MAX {
            return match self.stage {
                Stage::Standing => Some(Self { stage: Stage::Binned, after: self.missed_since, page: 1, ..self }),
                Stage::Binned => None,
            };
        }
        // By time and not by page: an order that changes meanwhile moves to the end and would pull another over the edge of a page.
        // "After" leaves out its own second, which may hold more than fitted.
        let after = seen.last.minus(Duration::from_secs(1));
        if seen.in_order && after > self.after {
            return Some(Self { after, page: 1, ..self });
        }
        Some(Self { page: self.page + 1, ..self })
    }
}

/// What a page showed.
struct Seen {
    orders: usize,
    /// When the newest changed.
    last: Timestamp,
    /// Whether each changed after the one before, as was asked: else time tells nothing of what is still to come.
    in_order: bool,
}

/// What an answer held.
#[derive(Debug)]
pub struct Pulled {
    /// The events, in the order in which the orders changed.
    pub pieces: Vec<Piece>,
    /// What to ask next; none: that was all.
    pub next: Option<Pull>,
}

/// Why an answer held nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The shop or its hosting is away or busy: the same again later.
    Later {
        /// How long to wait, when it says so.
        after: Option<Duration>,
        /// The status and the API's code.
        detail: String,
    },
    /// The keys are wrong or may not read orders.
    Keys {
        /// The status and the API's code.
        detail: String,
    },
    /// Not orders, or cut off: [`Pull::smaller`].
    Unreadable {
        /// The status and the API's code.
        detail: String,
    },
}

/// The request for the next orders.
///
/// # Errors
/// The account has no keys, or the shop's address is not https.
pub fn request(account: &Account, pull: &Pull) -> Result<HttpRequest, Unsendable> {
    let status = match pull.stage {
        Stage::Standing => "any",
        Stage::Binned => "trash",
    };
    let (page, per_page) = (pull.page, pull.per_page);
    // Whole seconds, with the zone's name: with `dates_are_gmt` the shop compares with its own UTC times.
    let whole = Timestamp::from_secs(pull.after.as_secs()).to_string();
    let after = whole.split('.').next().unwrap_or_default();
    let query =
        format!("modified_after={after}&dates_are_gmt=true&orderby=modified&order=asc&status={status}&per_page={per_page}&page={page}");
    send::get(account, &format!("orders?{query}"))
}

/// What the answer to [`request`] says.
///
/// # Errors
/// It says nothing of orders.
pub fn read(account: &Account, pull: &Pull, response: &HttpResponse) -> Result<Pulled, Failure> {
    let code = code(response);
    let detail = detail(response, code.as_deref());
    match response.status {
        200 => {}
        408 | 429 | 500..=599 => return Err(Failure::Later { after: response.retry_after, detail }),
        status if is_about_keys(status, code.as_deref()) => return Err(Failure::Keys { detail }),
        _ => return Err(Failure::Unreadable { detail }),
    }
    let orders: Vec<&RawValue> = serde_json::from_slice(&response.body).map_err(|_| Failure::Unreadable { detail })?;
    let mut pieces = Vec::with_capacity(orders.len());
    let mut seen = Seen { orders: orders.len(), last: Timestamp::ZERO, in_order: true };
    for raw in &orders {
        let order: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let modified = gmt(&order, "date_modified_gmt");
        seen.in_order &= modified >= seen.last;
        seen.last = seen.last.max(modified);
        for change in changes(pull, &order) {
            pieces.push(piece(account, change, raw));
        }
    }
    Ok(Pulled { pieces, next: pull.next(&seen) })
}

/// What the shop would have told of an order since.
fn changes(pull: &Pull, order: &Value) -> Vec<Change> {
    if pull.stage == Stage::Binned {
        return vec![Change::Deleted];
    }
    if order.get("status").and_then(Value::as_str).is_some_and(|status| DRAFTS.contains(&status)) {
        return Vec::new();
    }
    let (created, modified) = (gmt(order, "date_created_gmt"), gmt(order, "date_modified_gmt"));
    let is_young = modified <= created.plus(MAKING);
    let mut changes = Vec::new();
    if created >= pull.missed_since || is_young {
        changes.push(Change::Created);
    }
    if !is_young {
        changes.push(Change::Updated);
    }
    changes
}

fn piece(account: &Account, change: Change, data: &RawValue) -> Piece {
    let topic = format!("{}.{}", Resource::Order.name(), change.name());
    Told { topic, delivery: String::new(), source: account.public("source").to_owned(), pulled: true, data }.piece()
}
