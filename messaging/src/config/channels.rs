//! `[channels.*]`: one table per channel.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Reader;
use super::values::{self, Wrong};
use crate::channels::{ChannelKind, ChannelSettings};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Those that are on.
pub(super) fn channels(from: &mut Reader<'_>) -> BTreeMap<ChannelKind, ChannelSettings> {
    let mut on = BTreeMap::new();
    for kind in ChannelKind::ALL.iter().copied() {
        let mut table = Table { name: kind.name(), from: &mut *from };
        let settings = settings(kind, &mut table);
        if settings.window > Duration::ZERO && settings.window_warning >= settings.window {
            table.refuse_warning();
        }
        if table.flag("enabled") {
            on.insert(kind, settings);
        }
    }
    on
}

fn settings(kind: ChannelKind, table: &mut Table<'_, '_>) -> ChannelSettings {
    // A mail account names its relay itself, a shop is its own platform.
    let api_base = match kind {
        ChannelKind::Email | ChannelKind::Woocommerce => String::new(),
        ChannelKind::Whatsapp
        | ChannelKind::Telegram
        | ChannelKind::Messenger
        | ChannelKind::Instagram
        | ChannelKind::Tiktok
        | ChannelKind::Discord => table.base(),
    };
    let mut settings = ChannelSettings { api_base, timeout: table.span("timeout", MILLISECOND), ..ChannelSettings::default() };
    match kind {
        ChannelKind::Whatsapp => {
            settings.api_version = table.version();
            settings.per_account = table.rate("per_number");
            settings.per_pair = table.rate("per_pair");
            table.window(&mut settings);
        }
        ChannelKind::Telegram => {
            settings.per_account = table.rate("per_account");
            settings.per_pair = table.rate("per_pair");
        }
        ChannelKind::Messenger | ChannelKind::Instagram => {
            settings.api_version = table.version();
            settings.per_account = table.rate("per_account");
            settings.per_media = table.rate("per_media");
            if kind == ChannelKind::Messenger {
                settings.per_page = table.rate("per_page");
            }
            table.window(&mut settings);
            settings.ad_window = table.span("ad_window", SECOND);
        }
        ChannelKind::Tiktok => {
            settings.per_account = table.rate("per_account");
            settings.per_pair = table.rate("per_pair");
            settings.per_app = table.rate("per_app");
            table.window(&mut settings);
            settings.window_cap = table.count("window_cap");
        }
        ChannelKind::Discord => {
            settings.api_version = table.version();
            settings.per_route = table.rate("per_route");
            settings.per_app = table.rate("per_app");
        }
        ChannelKind::Email => settings.per_account = table.rate("per_account"),
        ChannelKind::Woocommerce => {
            settings.per_account = table.rate("per_account");
            settings.pull_interval = table.span("pull_interval", MINUTE);
        }
    }
    settings
}

/// One channel's table.
struct Table<'r, 'f> {
    name: &'static str,
    from: &'r mut Reader<'f>,
}

impl Table<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("channels.{}.{name}", self.name)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.from.flag(&self.key(name))
    }

    fn base(&mut self) -> String {
        self.from.checked(&self.key("api_base"), values::base_url)
    }

    fn version(&mut self) -> String {
        self.from.checked(&self.key("api_version"), |text| {
            let digits = text.strip_prefix('v').unwrap_or_default();
            let is_version =
                digits.starts_with(|c: char| c.is_ascii_digit()) && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            if is_version {
                Ok(text.to_owned())
            } else {
                Err(Wrong::new("is no version", "write it as the platform does, such as \"v23.0\""))
            }
        })
    }

    fn span(&mut self, name: &str, least: Duration) -> Duration {
        self.from.duration(&self.key(name), least)
    }

    fn rate(&mut self, name: &str) -> f64 {
        self.from.rate(&self.key(name))
    }

    fn count(&mut self, name: &str) -> u32 {
        self.from.count(&self.key(name), 0..=1_000_000)
    }

    fn window(&mut self, settings: &mut ChannelSettings) {
        settings.window = self.span("window", SECOND);
        settings.ad_window = settings.window;
        settings.window_warning = self.span("window_warning", Duration::ZERO);
    }

    fn refuse_warning(&mut self) {
        let (window, warning) = (self.key("window"), self.key("window_warning"));
        let message = format!("`{warning}` is not shorter than the window");
        self.from.refuse(&[&window, &warning], message, format!("make it shorter than {window}"));
    }
}
