//! What a channel says of its platform's rules, as data: members of accounts, settings, windows, budgets, the cost of refusals.

use std::time::Duration;

use crate::directory::Account;
use crate::limit::BudgetScope;

/// How the fate of a send that may or may not have arrived becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The platform's statuses carry our id (`biz_opaque_callback_data`).
    ByStatus,
    /// The business's own message comes back with our id or the platform's (echoes of Messenger, TikTok).
    ByEcho,
    /// Sending it again is told apart by the platform or the receivers (Discord's nonce, Message-ID).
    ByRepeat,
    /// Never by itself: it stays unknown until the tenant decides.
    Never,
}

/// A member of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountField {
    /// Its name in the API.
    pub name: &'static str,
    /// Write-only and sealed, or shown.
    pub secret: bool,
    /// Whether an account needs it.
    pub required: bool,
    /// What it is, for help and errors.
    pub help: &'static str,
    /// Whether a value may be used, or why not.
    pub check: fn(&str) -> Result<(), &'static str>,
}

/// What a node's configuration says about a channel.
#[derive(Debug, Clone)]
pub struct ChannelSettings {
    /// The platform's address, without a slash at the end.
    pub api_base: String,
    /// The platform's API version, such as `v23.0`.
    pub api_version: String,
    /// How long a call may take.
    pub timeout: Duration,
    /// Sends a second for one account.
    pub per_account: f64,
    /// Sends a second to one recipient.
    pub per_pair: f64,
    /// Sends a second of one page, whoever sends through it (Messenger).
    pub per_page: f64,
    /// Sounds and films a second of one account (Messenger, Instagram).
    pub per_media: f64,
    /// Sends a second of one route (Discord).
    pub per_route: f64,
    /// Sends a second of one app, for all its accounts and tenants (TikTok, Discord).
    pub per_app: f64,
    /// The window, where the channel has one.
    pub window: Duration,
    /// The window when the person came by an ad.
    pub ad_window: Duration,
    /// Messages until the person writes again; 0: any number.
    pub window_cap: u32,
    /// How long before its end subscribers are told.
    pub window_warning: Duration,
    /// From one pull of an account to the next, where the platform does not bring again what was missed (WooCommerce).
    pub pull_interval: Duration,
}

impl Default for ChannelSettings {
    /// What tests and channels that need less start from.
    fn default() -> Self {
        Self {
            api_base: String::new(),
            api_version: String::new(),
            timeout: Duration::from_secs(10),
            per_account: 1.0,
            per_pair: 1.0,
            per_page: 1.0,
            per_media: 1.0,
            per_route: 1.0,
            per_app: 1.0,
            window: Duration::ZERO,
            ad_window: Duration::ZERO,
            window_cap: 0,
            window_warning: Duration::ZERO,
            pull_interval: Duration::from_secs(15 * 60),
        }
    }
}

impl ChannelSettings {
    /// The address to use for an account.
    pub fn base<'a>(&'a self, account: &'a Account) -> &'a str {
        account.row.api_base.as_deref().unwrap_or(&self.api_base).trim_end_matches('/')
    }
}

/// What it costs to refuse a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCost {
    /// The status to refuse with while the log is away.
    pub status: u16,
    /// How soon the platform wants its answer.
    pub deadline: Duration,
    /// How long the platform brings a refused event again.
    pub redelivered_for: Duration,
    /// After how long of refusals the platform punishes (unsubscribes, disables); none: never.
    pub punished_after: Option<Duration>,
    /// After how many refusals in a row it punishes; none: it does not count.
    pub punished_at: Option<u32>,
    /// What the punishment is; empty: there is none.
    pub punishment: &'static str,
}

/// How free text is bounded in time and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRule {
    /// How long it is allowed after what opens the window (`Inbound::opens_window`).
    pub length: Duration,
    /// How long when the person came by an ad.
    pub after_ad: Duration,
    /// How many messages until the person writes again; none: any number.
    pub cap: Option<u32>,
    /// Tags with which a send is allowed for longer.
    pub tags: &'static [TagRule],
    /// What is left when it is closed: `template`, `human_agent`, or nothing but to wait.
    pub otherwise: Option<&'static str>,
}

/// A tag that allows a send for longer than the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagRule {
    /// Its name in our API.
    pub name: &'static str,
    /// How long after what opens the window.
    pub length: Duration,
}

impl WindowRule {
    /// The plain rule: so long after the person's word, then templates.
    pub const fn templates(length: Duration) -> Self {
        Self { length, after_ad: length, cap: None, tags: &[], otherwise: Some("template") }
    }

    /// How long a tag allows a send.
    pub fn tag(&self, name: &str) -> Option<Duration> {
        self.tags.iter().find(|tag| tag.name == name).map(|tag| tag.length)
    }
}

/// Whose a budget is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The account's and the recipient's.
    Pair,
    /// The account's.
    Account,
    /// A part of the account: a route, a kind of content.
    Within(String),
    /// What the platform calls so, in whatever tenant and account it stands: a page, an app, a bot.
    Platform(String),
}

/// What an answer says about rates, beside its verdict: nothing goes for so long on this budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Which of the channel's budgets.
    pub scope: BudgetScope,
    /// How long.
    pub wait: Duration,
}
