//! Posting webhooks: signed, and brought again until they are taken.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{Semaphore, watch};

use crate::http::{Client, Response};

/// Webhooks of one simulator under way at once.
const POSTS_MAX: usize = 256;
/// How long the platform waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How refused webhooks are brought again: the wait doubles from `first` to `max`, `tries` times in all.
#[derive(Debug, Clone, Copy)]
pub struct Redelivery {
    /// Wait before the second try.
    pub first: Duration,
    /// Longest wait.
    pub max: Duration,
    /// Tries in all; after them the event is given up.
    pub tries: u32,
}

impl Default for Redelivery {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(2), tries: 60 }
    }
}

impl Redelivery {
    /// One try only.
    pub const NONE: Self = Self { first: Duration::ZERO, max: Duration::ZERO, tries: 1 };
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Whether it was taken in the end.
    pub accepted: bool,
    /// Tries that it took.
    pub tries: u32,
    /// The last status; none when the last try brought no answer.
    pub last_status: Option<u16>,
    /// Whether some try may have been read without an answer: a refused event may have been taken all the same.
    pub ambiguous: bool,
    /// Answers of 2xx with a body that the platform would act on (Telegram executes a `method` in it): a test wants zero.
    pub dangerous_bodies: u32,
}

/// Of several copies of one event: not accepted unless all were; counts added up.
pub(crate) fn worst(all: Vec<Posted>) -> Posted {
    let mut sum = Posted { accepted: true, tries: 0, last_status: None, ambiguous: false, dangerous_bodies: 0 };
    for posted in all {
        sum.accepted &= posted.accepted;
        sum.tries += posted.tries;
        sum.ambiguous |= posted.ambiguous;
        sum.dangerous_bodies += posted.dangerous_bodies;
        sum.last_status = posted.last_status;
    }
    sum
}

/// How a platform proves that a webhook is its own.
pub(crate) enum Proof {
    /// Meta: HMAC-SHA256 over the body.
    Signature(Hmac<Sha256>),
    /// Telegram: a secret in a header.
    Token(String),
    /// Another platform's headers, computed over the body; any 2xx takes the event.
    Headers(Headers),
}

/// Computes the headers of a body.
pub(crate) type Headers = Box<dyn Fn(&[u8]) -> Vec<(&'static str, String)> + Send + Sync>;

impl Proof {
    /// Meta's, from the app secret.
    pub fn signature(app_secret: &str) -> Self {
        Self::Signature(Hmac::new_from_slice(app_secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// The first header.
    pub fn header(&self, body: &[u8]) -> (&'static str, String) {
        self.headers(body).into_iter().next().unwrap_or_default()
    }

    /// The headers.
    pub fn headers(&self, body: &[u8]) -> Vec<(&'static str, String)> {
        match self {
            Self::Signature(state) => vec![("x-hub-signature-256", sign(state, body))],
            Self::Token(token) => vec![("x-telegram-bot-api-secret-token", token.clone())],
            Self::Headers(compute) => compute(body),
        }
    }

    fn takes(&self, status: u16) -> bool {
        match self {
            Self::Signature(_) => status == 200,
            Self::Token(_) | Self::Headers(_) => (200..300).contains(&status),
        }
    }

    /// Telegram waits as long as it is told, at most an hour; Meta does not listen.
    fn wait(&self, answer: &Response) -> Option<Duration> {
        match self {
            Self::Signature(_) | Self::Headers(_) => None,
            Self::Token(_) => answer.retry_after().map(|wait| wait.min(Duration::from_secs(3_600))),
        }
    }

    fn would_execute(&self, answer: &Response) -> bool {
        match self {
            Self::Signature(_) | Self::Headers(_) => false,
            Self::Token(_) => answer.body.windows(8).any(|part| part == b"\"method\""),
        }
    }
}

/// Meta's signature of a body: `sha256=` and lowercase hex.
pub fn sign(state: &Hmac<Sha256>, body: &[u8]) -> String {
    let mut mac = state.clone();
    mac.update(body);
    format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// Where webhooks go, and how.
pub(crate) struct Hook {
    pub proof: Proof,
    url: watch::Sender<Option<String>>,
    client: Client,
    slots: Semaphore,
    redelivery: Redelivery,
}

impl Hook {
    pub fn new(proof: Proof, redelivery: Redelivery) -> Self {
        Self { proof, url: watch::Sender::new(None), client: Client::new(ANSWER_TIMEOUT), slots: Semaphore::new(POSTS_MAX), redelivery }
    }

    pub fn set_url(&self, url: Option<String>) {
        self.url.send_replace(url);
    }

    /// Brings one event, with headers beside those of the proof, until it is taken or given up. Waits for an address when there is none yet.
    pub async fn deliver(&self, body: Bytes, beside: &[(&'static str, String)]) -> Posted {
        let mut posted = Posted { accepted: false, tries: 0, last_status: None, ambiguous: false, dangerous_bodies: 0 };
        let mut headers = self.proof.headers(&body);
        headers.extend_from_slice(beside);
        let mut wait = self.redelivery.first;
        loop {
            let told = self.attempt(&headers, &body, &mut posted).await;
            if posted.accepted || posted.tries >= self.redelivery.tries.max(1) {
                return posted;
            }
            tokio::time::sleep(told.unwrap_or(wait)).await;
            wait = (wait * 2).min(self.redelivery.max);
        }
    }

    /// Brings something once, whatever comes of it, and gives the answer. Without the right proof: its first header's last sign is another.
    pub async fn deliver_once(&self, body: Bytes, is_right: bool) -> (Posted, Option<Response>) {
        let mut posted = Posted { accepted: false, tries: 1, last_status: None, ambiguous: false, dangerous_bodies: 0 };
        let mut headers = self.proof.headers(&body);
        if let Some((_, value)) = headers.first_mut().filter(|_| !is_right) {
            let other = if value.ends_with('0') { "1" } else { "0" };
            value.replace_range(value.len().saturating_sub(1).., other);
        }
        let url = self.url.subscribe().wait_for(Option::is_some).await.ok().and_then(|url| url.clone()).unwrap_or_default();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.client.post(&url, &headers, body).await {
            Ok(answer) => {
                posted.last_status = Some(answer.status);
                posted.accepted = self.proof.takes(answer.status);
                (posted, Some(answer))
            }
            Err(error) => {
                posted.ambiguous = !error.is_unsent();
                (posted, None)
            }
        }
    }

    /// One try; returns the wait that the answer asks for.
    async fn attempt(&self, headers: &[(&'static str, String)], body: &Bytes, posted: &mut Posted) -> Option<Duration> {
        let _slot = self.slots.acquire().await.ok()?;
        let url = self.url.subscribe().wait_for(Option::is_some).await.ok()?.clone()?;
        posted.tries += 1;
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.client.post(&url, &headers, body.clone()).await {
            Ok(answer) => {
                posted.last_status = Some(answer.status);
                posted.accepted = self.proof.takes(answer.status);
                posted.dangerous_bodies += u32::from(posted.accepted && self.proof.would_execute(&answer));
                self.proof.wait(&answer)
            }
            Err(error) => {
                posted.last_status = None;
                posted.ambiguous |= !error.is_unsent();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_match_the_known_vector() {
        let proof = Proof::signature("test-app-secret");
        let (name, value) = proof.header(br#"{"object":"page","entry":[]}"#);
        assert_eq!(name, "x-hub-signature-256");
        assert_eq!(value, "sha256=1a82db3abc2fa71a3fffecfedef579a8468a44850cd8a83a0c56974faff81689");
    }
}
