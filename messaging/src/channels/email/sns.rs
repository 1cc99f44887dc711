//! Amazon SNS: what a notification says, what is signed of it, and which hosts may be called for it.

use data_encoding::BASE64;
use serde_json::Value;

use super::certificate::{Certificate, Digest, pem};
use super::date;
use crate::clock::Timestamp;
use crate::exchange::{HttpRequest, WebhookRequest};

/// How old a notification may be. A topic's own policy brings one again for at most an hour; the rest is slack.
const AGE_MAX: std::time::Duration = std::time::Duration::from_secs(2 * 3600);
/// How far ahead of our clock.
const AHEAD_MAX: std::time::Duration = std::time::Duration::from_secs(15 * 60);
/// Longest address that is called, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// What SNS posts.
pub(super) struct Notice(Value);

/// The kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Notification`.
    Notification,
    /// `SubscriptionConfirmation`.
    Confirm,
    /// `UnsubscribeConfirmation`.
    Unsubscribed,
}

impl Notice {
    /// Reads a body, when it is one and of a topic of ours.
    pub fn read(body: &[u8], topics: &[String]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let notice = Self(value);
        let topic = notice.text("TopicArn");
        (!topic.is_empty() && topics.iter().any(|own| own == topic) && notice.kind().is_some()).then_some(notice)
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// Which kind. Said by what is signed, not by the header.
    pub fn kind(&self) -> Option<Kind> {
        match self.text("Type") {
            "Notification" => Some(Kind::Notification),
            "SubscriptionConfirmation" => Some(Kind::Confirm),
            "UnsubscribeConfirmation" => Some(Kind::Unsubscribed),
            _ => None,
        }
    }

    /// The id of the notification.
    pub fn id(&self) -> &str {
        self.text("MessageId")
    }

    /// What was published.
    pub fn message(&self) -> &str {
        self.text("Message")
    }

    /// The call for the certificate; none when its address is not SNS's own.
    pub fn certificate_request(&self) -> Option<HttpRequest> {
        let url = self.text("SigningCertURL");
        let (_, path) = own_host(url)?;
        let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
        (plain && path.ends_with(".pem")).then(|| get(url))
    }

    /// The call that confirms the subscription; none when its address is not SNS's own in the topic's region.
    pub fn confirm_request(&self) -> Option<HttpRequest> {
        let url = self.text("SubscribeURL");
        let (region, path) = own_host(url)?;
        let of_topic = self.text("TopicArn").split(':').nth(3)?;
        let confirms = path.starts_with("/?") && path.split(['?', '&']).any(|pair| pair == "Action=ConfirmSubscription");
        (region == of_topic && confirms).then(|| get(url))
    }

    /// Whether the certificate's key signed this, recently enough.
    pub fn is_authentic(&self, certificate: &[u8], now: Timestamp) -> bool {
        let Some(at) = date(self.text("Timestamp")) else { return false };
        if now.since(at) > AGE_MAX || at.since(now) > AHEAD_MAX {
            return false;
        }
        let digest = match self.text("SignatureVersion") {
            "1" => Digest::Sha1,
            "2" => Digest::Sha256,
            _ => return false,
        };
        let Ok(signature) = BASE64.decode(self.text("Signature").as_bytes()) else { return false };
        let Some(der) = pem(certificate) else { return false };
        let Some(certificate) = Certificate::read(&der) else { return false };
        certificate.signed(digest, self.canonical().as_bytes(), &signature, now)
    }

    /// What is signed: names and values, a line each.
    fn canonical(&self) -> String {
        let names: &[&str] = match self.kind() {
            Some(Kind::Notification) => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            Some(Kind::Confirm | Kind::Unsubscribed) | None => {
                &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            }
        };
        let mut out = String::new();
        for name in names {
            // A subject that is not there is left out; an empty one is not.
            if let Some(value) = self.0.get(name).and_then(Value::as_str) {
                out.push_str(name);
                out.push('\n');
                out.push_str(value);
                out.push('\n');
            }
        }
        out
    }
}

/// What the channel wants fetched before it can judge a request.
pub(super) fn needs(request: &WebhookRequest<'_>, topics: &[String]) -> Option<HttpRequest> {
    Notice::read(request.body, topics)?.certificate_request()
}

fn get(url: &str) -> HttpRequest {
    HttpRequest { method: http::Method::GET, url: url.to_owned(), headers: Vec::new(), body: bytes::Bytes::new() }
}

/// Region and path of `https://sns.<region>.amazonaws.com/…` (or `.com.cn`): nothing else is called, whatever a notice says.
fn own_host(url: &str) -> Option<(&str, &str)> {
    if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let rest = url.strip_prefix("https://")?;
    let slash = rest.find('/')?;
    let (host, path) = rest.split_at(slash);
    let inner = host.strip_prefix("sns.")?;
    let region = inner.strip_suffix(".amazonaws.com").or_else(|| inner.strip_suffix(".amazonaws.com.cn"))?;
    let fits = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let clean = !path.contains(['\\', '#']);
    (fits && clean).then_some((region, path))
}

#[cfg(test)]
mod tests {
    use super::own_host;

    #[test]
    fn only_the_hosts_of_sns() {
        for (url, region) in [
            ("https://sns.eu-west-1.amazonaws.com/a.pem", Some("eu-west-1")),
            ("https://sns.cn-north-1.amazonaws.com.cn/a.pem", Some("cn-north-1")),
            ("http://sns.eu-west-1.amazonaws.com/a.pem", None),
            ("https://sns.eu-west-1.amazonaws.com.evil.example/a.pem", None),
            ("https://sns.evil.example/.amazonaws.com/a.pem", None),
            ("https://sns.eu-west-1.amazonaws.com:8443/a.pem", None),
            ("https://user@sns.eu-west-1.amazonaws.com/a.pem", None),
            ("https://sns.eu-west-1.amazonaws.com@evil.example/a.pem", None),
            ("https://sns.a.b.amazonaws.com/a.pem", None),
            ("https://sns..amazonaws.com/a.pem", None),
            ("https://s3.eu-west-1.amazonaws.com/a.pem", None),
            ("https://sns.eu-west-1.amazonaws.com\\evil.example/a.pem", None),
            ("https://sns.eu-west-1.amazonaws.com", None),
            ("https://sns.eu-west-1.amazonaws.com/a b", None),
        ] {
            assert_eq!(own_host(url).map(|(region, _)| region), region, "{url}");
        }
    }
}
