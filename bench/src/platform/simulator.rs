//! Any of the platforms, by its channel: for whoever simulates them all in one way (`dev`, and tests over every channel).

use std::io;

use data_encoding::BASE64;
use messaging::channels::ChannelKind;
use serde_json::{Value, json};

use super::email::Protection;
use super::tiktok::{CLIENT_KEY, REFRESH_TOKEN};
use super::woocommerce::{CONSUMER_SECRET, SOURCE};
use super::{
    Call, DiscordSim, EmailSim, MetaProduct, MetaSim, Offered, Posted, SimOptions, TelegramSim, TiktokSim, WhatsappSim, WoocommerceSim,
};

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
        self.customer_at(0)
    }

    /// One of many customers, by number. The same numbers give the same ids at every simulator of the channel, but for Discord's
    /// direct channels and a shop's orders, which the platform gives: a shop's n-th customer is whoever makes its n-th order.
    pub fn customer_at(&self, number: u32) -> Customer {
        let customer = |from: String, member, to: String| Customer { from, member, to };
        let same = |text: String, member| customer(text.clone(), member, text);
        let number = u64::from(number);
        match &self.sim {
            AnySim::Whatsapp(_) => same(format!("+{}", 15_550_100 + number), "phone"),
            AnySim::Telegram(_) => same((4711 + number).to_string(), "chat_id"),
            AnySim::Meta(MetaProduct::Messenger, _) => same((5_678_901_234_567_890 + number).to_string(), "psid"),
            AnySim::Meta(MetaProduct::Instagram, _) => same((6_789_012_345_678_901 + number).to_string(), "igsid"),
            AnySim::Tiktok(_) => {
                let conversation = (4712 + number).to_string();
                customer(conversation.clone(), "conversation_id", BASE64.encode(conversation.as_bytes()))
            }
            AnySim::Discord(sim) => {
                let user = (1_200_000_000_000_000_030 + number).to_string();
                let channel = sim.direct_channel(&user);
                customer(user, "channel_id", channel)
            }
            AnySim::Email(_) if number == 0 => same("ada@example.com".to_owned(), "email"),
            AnySim::Email(_) => same(format!("ada{number}@example.com"), "email"),
            AnySim::Woocommerce(_) => {
                customer((1 + number).to_string(), "order_id", (super::woocommerce::FIRST_ORDER + number).to_string())
            }
        }
    }

    /// The customer speaks; returns when the webhook was taken or given up.
    pub async fn customer_says(&self, text: &str) -> Posted {
        self.says(&self.customer(), text).await
    }

    /// A customer speaks. At a shop it makes the next order, whoever it is.
    pub async fn says(&self, customer: &Customer, text: &str) -> Posted {
        let Customer { from, to, .. } = customer;
        match &self.sim {
            AnySim::Whatsapp(sim) => sim.customer_writes(from, text).await,
            AnySim::Telegram(sim) => sim.customer_writes(from.parse().expect("a chat is a number"), text).await,
            AnySim::Meta(_, sim) => sim.customer_writes(from, text).await,
            AnySim::Tiktok(sim) => sim.customer_writes(to, text).await,
            AnySim::Discord(sim) => sim.customer_says(from, text).await,
            AnySim::Email(sim) => sim.customer_writes(from, "Hello", text).await,
            AnySim::Woocommerce(sim) => sim.customer_orders(text).await.1,
        }
    }

    /// The calls that came, in order.
    pub fn calls(&self) -> Vec<Call> {
        each!(&self.sim, sim => sim.calls())
    }

    /// The events that it posted, in the order of their last answer.
    pub fn offered(&self) -> Vec<Offered> {
        each!(&self.sim, sim => sim.offered())
    }

    /// Stops serving and posting.
    pub async fn stop(self) {
        each!(self.sim, sim => sim.stop().await);
    }
}
