//! Any of the platforms, by its channel: for whoever simulates them all in one way (`dev`, and tests over every channel).

use std::io;

use data_encoding::BASE64;
use messaging::channels::ChannelKind;
use serde_json::{Value, json};

use super::email::Protection;
use super::tiktok::{CLIENT_KEY, REFRESH_TOKEN};
use super::woocommerce::{CONSUMER_SECRET, SOURCE};
use super::{DiscordSim, EmailSim, MetaProduct, MetaSim, Posted, SimOptions, TelegramSim, TiktokSim, WhatsappSim, WoocommerceSim};

/// Who submits mails.
const MAIL_USER: &str = "shop";
/// The bot's id, the first part of its token.
const BOT: &str = "7000000001";

/// A simulated platform.
pub struct Simulator {
    options: SimOptions,
    sim: AnySim,
}

enum AnySim {
    Whatsapp(WhatsappSim),
    Telegram(TelegramSim),
    Meta(MetaProduct, MetaSim),
    Tiktok(TiktokSim),
    Discord(DiscordSim),
    Email(EmailSim),
    Woocommerce(WoocommerceSim),
}

/// The simulated customer, in the two ways in which they are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// `from` of `POST /sim/message`.
    pub from: String,
    /// The member of a `to` object that reaches them.
    pub member: &'static str,
    /// Its value.
    pub to: String,
}

/// The same call of whichever it is.
macro_rules! each {
    ($own:expr, $sim:ident => $call:expr) => {
        match $own {
            AnySim::Whatsapp($sim) => $call,
            AnySim::Telegram($sim) => $call,
            AnySim::Meta(_, $sim) => $call,
            AnySim::Tiktok($sim) => $call,
            AnySim::Discord($sim) => $call,
            AnySim::Email($sim) => $call,
            AnySim::Woocommerce($sim) => $call,
        }
    };
}

impl Simulator {
    /// Starts the platform of a channel. Of the options, `credential` and `secret` may be any plain texts. Errors: an address cannot
    /// be bound.
    pub async fn start(kind: ChannelKind, mut options: SimOptions) -> io::Result<Self> {
        match kind {
            ChannelKind::Telegram => options.credential = format!("{BOT}:{}", options.credential),
            ChannelKind::Email => options.account = MAIL_USER.to_owned(),
            ChannelKind::Whatsapp
            | ChannelKind::Messenger
            | ChannelKind::Instagram
            | ChannelKind::Tiktok
            | ChannelKind::Discord
            | ChannelKind::Woocommerce => {}
        }
        let meta = async |product| io::Result::Ok(AnySim::Meta(product, MetaSim::start(product, options.clone()).await?));
        let sim = match kind {
            ChannelKind::Whatsapp => AnySim::Whatsapp(WhatsappSim::start(options.clone()).await?),
            ChannelKind::Telegram => AnySim::Telegram(TelegramSim::start(options.clone()).await?),
            ChannelKind::Messenger => meta(MetaProduct::Messenger).await?,
            ChannelKind::Instagram => meta(MetaProduct::Instagram).await?,
            ChannelKind::Tiktok => AnySim::Tiktok(TiktokSim::start(options.clone()).await?),
            ChannelKind::Discord => AnySim::Discord(DiscordSim::start(options.clone()).await?),
            ChannelKind::Email => AnySim::Email(EmailSim::start(options.clone(), Protection::Plain).await?),
            ChannelKind::Woocommerce => AnySim::Woocommerce(WoocommerceSim::start(options.clone()).await?),
        };
        Ok(Self { options, sim })
    }

    /// Its address.
    pub fn url(&self) -> String {
        each!(&self.sim, sim => sim.url())
    }

    /// Where webhooks go from now on.
    pub fn set_hook(&self, url: &str) {
        each!(&self.sim, sim => sim.set_hook(url));
    }

    /// Each send meets a random fault with this probability (0 to 1).
    pub fn set_chaos(&self, probability: f64) {
        each!(&self.sim, sim => sim.set_chaos(probability));
    }

    /// The members of its account as `POST /v1/accounts` takes them, but for `channel` and `name`.
    pub fn account(&self) -> Value {
        let SimOptions { credential, secret, account, .. } = &self.options;
        let mut members = match &self.sim {
            AnySim::Whatsapp(_) => {
                json!({"phone_number_id": account, "access_token": credential, "app_secret": secret, "verify_token": secret})
            }
            AnySim::Telegram(_) => json!({"bot_token": credential, "secret_token": secret}),
            AnySim::Meta(MetaProduct::Messenger, _) => {
                json!({"page_id": account, "access_token": credential, "app_secret": secret, "verify_token": secret})
            }
            AnySim::Meta(MetaProduct::Instagram, _) => {
                json!({"instagram_id": account, "access_token": credential, "app_secret": secret, "verify_token": secret})
            }
            AnySim::Tiktok(_) => json!({"business_id": account, "client_key": CLIENT_KEY, "client_secret": secret,
                "access_token": credential, "refresh_token": REFRESH_TOKEN}),
            AnySim::Discord(sim) => json!({"application_id": account, "public_key": sim.public_key(), "bot_token": credential}),
            AnySim::Email(sim) => sim.account(),
            AnySim::Woocommerce(_) => {
                json!({"source": SOURCE, "webhook_secret": secret, "consumer_key": credential, "consumer_secret": CONSUMER_SECRET})
            }
        };
        if !matches!(self.sim, AnySim::Email(_)) {
            members["api_base"] = self.url().into();
        }
        members
    }

    /// The simulated customer. A shop's is known by the first order.
    pub fn customer(&self) -> Customer {
        let customer = |from: &str, member, to: &str| Customer { from: from.to_owned(), member, to: to.to_owned() };
        match &self.sim {
            AnySim::Whatsapp(_) => customer("+15550100", "phone", "+15550100"),
            AnySim::Telegram(_) => customer("4711", "chat_id", "4711"),
            AnySim::Meta(MetaProduct::Messenger, _) => customer("5678901234567890", "psid", "5678901234567890"),
            AnySim::Meta(MetaProduct::Instagram, _) => customer("6789012345678901", "igsid", "6789012345678901"),
            AnySim::Tiktok(_) => customer("4712", "conversation_id", &BASE64.encode(b"4712")),
            AnySim::Discord(sim) => {
                const USER: &str = "1200000000000000030";
                customer(USER, "channel_id", &sim.direct_channel(USER))
            }
            AnySim::Email(_) => customer("ada@example.com", "email", "ada@example.com"),
            AnySim::Woocommerce(_) => customer("1", "order_id", &super::woocommerce::FIRST_ORDER.to_string()),
        }
    }

    /// The customer speaks; returns when the webhook was taken or given up.
    pub async fn customer_says(&self, text: &str) -> Posted {
        let Customer { from, to, .. } = self.customer();
        match &self.sim {
            AnySim::Whatsapp(sim) => sim.customer_writes(&from, text).await,
            AnySim::Telegram(sim) => sim.customer_writes(from.parse().expect("a chat is a number"), text).await,
            AnySim::Meta(_, sim) => sim.customer_writes(&from, text).await,
            AnySim::Tiktok(sim) => sim.customer_writes(&to, text).await,
            AnySim::Discord(sim) => sim.customer_says(&from, text).await,
            AnySim::Email(sim) => sim.customer_writes(&from, "Hello", text).await,
            AnySim::Woocommerce(sim) => sim.customer_orders(text).await.1,
        }
    }

    /// Stops serving and posting.
    pub async fn stop(self) {
        each!(self.sim, sim => sim.stop().await);
    }
}
