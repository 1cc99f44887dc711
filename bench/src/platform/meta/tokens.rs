//! Access tokens: which are good, and how they are exchanged. An exchanged token stays good until its own end.

use std::time::Duration;

use messaging::clock::Timestamp;
use serde_json::json;

use super::graph::{PARAMETER, TOKEN, detailed};
use super::{MetaProduct, State};
use crate::http::{Reply, Request, json_reply};
use crate::locked;
use crate::platform::Sim;

/// The app whose secret the simulator has.
pub const APP_ID: &str = "1517776481860111";
/// How long a long-lived token lasts.
pub const LIFE: Duration = Duration::from_secs(60 * 24 * 3_600);
/// A younger token of Instagram is not refreshed.
const AGE_MIN: Duration = Duration::from_secs(24 * 3_600);
/// Tokens that are remembered; the oldest is forgotten first.
const TOKENS_MAX: usize = 64;

/// A token.
pub(super) struct Token {
    text: String,
    given_at: Timestamp,
    ends_at: Timestamp,
}

/// The tokens of an account.
#[derive(Default)]
pub(super) struct Tokens {
    good: Vec<Token>,
    exchanged: u32,
}

impl Tokens {
    pub fn give(&mut self, text: String, now: Timestamp) {
        if self.good.len() >= TOKENS_MAX {
            self.good.remove(0);
        }
        self.good.push(Token { text, given_at: now, ends_at: now.plus(LIFE) });
    }

    pub fn revoke(&mut self) {
        self.good.clear();
    }

    pub fn exchanged(&self) -> u32 {
        self.exchanged
    }

    pub fn is_good(&self, text: &str, now: Timestamp) -> bool {
        self.find(text, now).is_some()
    }

    fn find(&self, text: &str, now: Timestamp) -> Option<&Token> {
        self.good.iter().find(|token| token.text == text && now < token.ends_at)
    }
}

/// A member of a query. The names and values here need no unescaping but for what our tokens never hold.
fn member<'q>(request: &'q Request, name: &str) -> &'q str {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(of, _)| *of == name).map(|(_, value)| value).next().unwrap_or_default()
}

/// `GET /refresh_access_token` (Instagram).
pub(super) fn refresh(sim: &Sim, state: &State, request: &Request) -> Reply {
    if state.product != MetaProduct::Instagram || member(request, "grant_type") != "ig_refresh_token" {
        return detailed(PARAMETER, 0, 400, "grant_type is wrong");
    }
    exchange(sim, state, member(request, "access_token"), AGE_MIN)
}

/// `GET /{version}/oauth/access_token` (Facebook).
pub(super) fn exchange_by_app(sim: &Sim, state: &State, request: &Request) -> Reply {
    let is_ours = member(request, "client_id") == APP_ID && member(request, "client_secret") == sim.options.secret;
    if state.product != MetaProduct::Messenger || member(request, "grant_type") != "fb_exchange_token" || !is_ours {
        return detailed(101, 0, 400, "client_id, client_secret or grant_type is wrong");
    }
    exchange(sim, state, member(request, "fb_exchange_token"), Duration::ZERO)
}

fn exchange(sim: &Sim, state: &State, text: &str, age_min: Duration) -> Reply {
    let now = sim.now();
    let mut tokens = locked(&state.tokens);
    let Some(found) = tokens.find(text, now) else { return detailed(TOKEN, 463, 400, "the session has expired or was never given") };
    if now.since(found.given_at) < age_min {
        return detailed(PARAMETER, 0, 400, "the token is younger than 24 hours");
    }
    tokens.exchanged += 1;
    let fresh = format!("{}.{}", sim.options.credential, tokens.exchanged);
    tokens.give(fresh.clone(), now);
    json_reply(200, &json!({"access_token": fresh, "token_type": "bearer", "expires_in": LIFE.as_secs()}))
}
