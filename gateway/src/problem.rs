//! Problem documents (RFC 9457). One table of codes; each has a page at `/problems/{code}`.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use messaging::channels::Fault;
use serde_json::{Map, Value, json};

use crate::reply::{self, Reply};

macro_rules! codes {
    ($($name:ident = $text:literal, $status:literal, $retryable:literal, $title:literal, $explanation:literal;)*) => {
        /// Every kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// The short name in kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
            /// Whether the same request may succeed later.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
            /// One short line, the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
            /// What it means and what to do, for the page.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)* }
            }
        }
    };
}

codes! {
    Malformed = "malformed", 400, false, "The request is malformed",
        "The request is not valid HTTP, not JSON, nested too deeply, or names a member twice. Correct it; the same bytes will be refused again.";
    Unauthenticated = "unauthenticated", 401, false, "No valid API key",
        "Send Authorization: Bearer tl_sk_… with a key that exists and has not expired.";
    Forbidden = "forbidden", 403, false, "The key may not do this",
        "The key lacks the scope that the detail names. Use another key, or have one made with that scope.";
    NotFound = "not-found", 404, false, "There is no such thing",
        "Nothing has this path or id, or it belongs to another tenant.";
    MethodNotAllowed = "method-not-allowed", 405, false, "The path does not take this method",
        "The Allow header lists the methods that the path takes.";
    Timeout = "timeout", 408, true, "The request did not come in time",
        "The body did not arrive within the time that this gateway allows. Send it again.";
    IdempotencyInProgress = "idempotency-in-progress", 409, true, "The first request with this key is still running",
        "Another request with the same Idempotency-Key has not been answered yet. Repeat the request after a moment.";
    AlreadySent = "already-sent", 409, false, "The message is beyond recall",
        "The message was handed to the platform, or has ended; it cannot be cancelled or sent again any more.";
    Gone = "gone", 410, false, "It was there and is no more",
        "What this id named was deleted.";
    PreconditionFailed = "precondition-failed", 412, false, "It was changed in between",
        "The If-Match header names another version than the present one. Read it again and apply the change to what you find.";
    PayloadTooLarge = "payload-too-large", 413, false, "The body is too large",
        "The body is larger than this route takes. Split it.";
    UriTooLong = "uri-too-long", 414, false, "The request target is too long",
        "The path and query together may have 8 KiB.";
    UnsupportedMediaType = "unsupported-media-type", 415, false, "The media type is not taken here",
        "Bodies are JSON (batches may be NDJSON), without a content encoding.";
    ValidationFailed = "validation-failed", 422, false, "The request breaks rules",
        "The member errors lists every fault with a JSON pointer, not just the first.";
    IdempotencyMismatch = "idempotency-mismatch", 422, false, "The same key came with another body",
        "The Idempotency-Key was used for a different request before. Use a new key for a new request.";
    WindowClosed = "window-closed", 422, false, "Free text is not allowed now",
        "The person has not written recently enough for free-form messages. Send a template, or add a fallback template to the message.";
    Restricted = "restricted", 422, false, "The contact's data is restricted",
        "The contact's data is stored and not otherwise used until the restriction is lifted.";
    AccountDisabled = "account-disabled", 422, false, "The account does not send",
        "The channel account is paused, blocked, or its credential is broken. The account's state says which.";
    RecipientInvalid = "recipient-invalid", 422, false, "The recipient cannot be written to",
        "The address does not exist, or the person blocked the account.";
    QuotaExceeded = "quota-exceeded", 429, true, "A budget or a quota is used up",
        "The member violated-policies names which. A rate: wait as long as Retry-After says. What a tenant may have, with its limit and \
         its use in the member quota: remove something, or have an administrator raise the limit. Sends that wait: let some go first.";
    HeadersTooLarge = "headers-too-large", 431, false, "The request's header is too large",
        "A request may have 100 header fields of 32 KiB together.";
    Internal = "internal", 500, true, "Something went wrong here",
        "A fault of the gateway. The request id leads to its log.";
    LogUnavailable = "log-unavailable", 503, true, "The log does not take records now",
        "Nothing was accepted. Repeat the request as Retry-After says, with the same Idempotency-Key.";
    StoreUnavailable = "store-unavailable", 503, true, "The store does not answer now",
        "What the request needs cannot be read or changed at the moment. Repeat it as Retry-After says.";
    Overloaded = "overloaded", 503, true, "The gateway is overloaded",
        "Too many requests or connections at once. Repeat the request as Retry-After says.";
    MediaUnavailable = "media-unavailable", 503, true, "The medium cannot be had now",
        "The member reason names what happened: the platform or the media store does not answer, or there is no room. Repeat the request as Retry-After says.";
    Draining = "draining", 503, true, "The gateway is stopping",
        "This process takes no new work. Repeat the request; another process will answer.";
}

impl Code {
    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// Faults that one problem names.
pub const FAULTS_MAX: usize = 20;
/// Longest jittered wait that a refusal asks for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 30;

/// A wait between 1 and 30 s by chance, so that those who were refused together do not come back together.
pub fn jittered_wait() -> Duration {
    let mut random = [0; 2];
    messaging::seal::fill_random(&mut random);
    Duration::from_secs(1 + u64::from(u16::from_le_bytes(random)) % RETRY_AFTER_MAX_S)
}

/// A refusal of the API.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    /// Faults beyond those that are named.
    more_errors: usize,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a kind, with what happened this time.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let needs_wait = matches!(code.status(), 429 | 503);
        let retry_after = needs_wait.then(jittered_wait);
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            more_errors: 0,
            retry_after,
            members: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// Nothing has this id, or it is another tenant's: the two must look alike.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "nothing here has this path or id")
    }

    /// Whether it says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.0.code == Code::NotFound
    }

    /// The request breaks rules: these. The first are named one by one, of the others it is said how many there are.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} faults", many.len()),
        };
        let mut problem = Self::new(Code::ValidationFailed, detail);
        problem.0.errors = faults;
        problem.name_at_most(FAULTS_MAX);
        problem
    }

    /// Names at most so many faults; says how many it names.
    pub fn name_at_most(&mut self, max: usize) -> usize {
        let more = self.0.errors.len().saturating_sub(max);
        if more > 0 {
            self.0.errors.truncate(max);
            self.0.errors.shrink_to_fit();
            self.0.more_errors += more;
        }
        self.0.errors.len()
    }

    /// The request breaks one rule.
    pub fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![Fault::new(pointer, detail)])
    }

    /// Names the wait.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Its kind.
    #[cfg(test)]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The document.
    pub fn body(&self, public_url: &str, request_id: &str) -> Value {
        let inner = &self.0;
        let mut body = inner.members.clone();
        body.insert("type".into(), format!("{public_url}/problems/{}", inner.code.name()).into());
        body.insert("title".into(), inner.code.title().into());
        body.insert("status".into(), inner.code.status().into());
        body.insert("detail".into(), inner.detail.as_str().into());
        body.insert("code".into(), inner.code.name().into());
        body.insert("retryable".into(), inner.code.is_retryable().into());
        body.insert("request_id".into(), request_id.into());
        if let Some(wait) = inner.retry_after {
            body.insert("retry_after_s".into(), whole_seconds(wait).into());
        }
        if !inner.errors.is_empty() {
            let errors: Vec<Value> = inner.errors.iter().map(|fault| json!({"pointer": fault.pointer, "detail": fault.detail})).collect();
            body.insert("errors".into(), errors.into());
        }
        if inner.more_errors > 0 {
            body.insert("more_errors".into(), inner.more_errors.into());
        }
        Value::Object(body)
    }

    /// The answer.
    pub fn reply(&self, public_url: &str, request_id: &str) -> Reply {
        let status = StatusCode::from_u16(self.0.code.status()).expect("the table holds valid statuses");
        let mut reply = reply::json(status, &self.body(public_url, request_id));
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.0.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in &self.0.headers {
            headers.insert(name, value.clone());
        }
        reply
    }
}

/// Seconds, rounded up, at least one: what `Retry-After` can say.
pub fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1000) as u64).max(1)
}

/// The page of a code.
pub fn page(code: Code) -> Reply {
    let retry = if code.is_retryable() { "The same request may succeed later." } else { "The same request will be refused again." };
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title><h1>{title}</h1>\
         <p><code>{name}</code>, status {status}</p><p>{explanation}</p><p>{retry}</p></html>\n",
        name = code.name(),
        title = code.title(),
        status = code.status(),
        explanation = code.explanation(),
    );
    reply::typed(StatusCode::OK, "text/html; charset=utf-8", html.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_renders_as_a_problem() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "why");
            let body = problem.body("https://gw.example", "req-12345678");
            assert_eq!(body["type"], format!("https://gw.example/problems/{}", code.name()));
            assert_eq!(body["status"], code.status());
            assert_eq!(body["code"], code.name());
            assert_eq!(body["retryable"], code.is_retryable());
            assert_eq!(body["detail"], "why");
            assert_eq!(body["request_id"], "req-12345678");
            assert!(body["title"].is_string());
            let reply = problem.reply("https://gw.example", "req-12345678");
            assert_eq!(reply.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(reply.headers().contains_key(header::RETRY_AFTER), matches!(code.status(), 429 | 503), "{code:?}");
            assert_eq!(body.get("retry_after_s").is_some(), matches!(code.status(), 429 | 503), "{code:?}");
            assert_eq!(Code::from_name(code.name()), Some(*code));
            assert_eq!(page(*code).status(), StatusCode::OK);
        }
    }

    #[test]
    fn all_faults_are_listed_and_waits_vary() {
        let problem = Problem::invalid(vec![Fault::new("/a", "x"), Fault::new("/b", "y")]);
        let body = problem.body("", "r");
        assert_eq!(body["errors"], json!([{"pointer": "/a", "detail": "x"}, {"pointer": "/b", "detail": "y"}]));
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| jittered_wait()).collect();
        assert!(waits.len() > 5 && waits.iter().all(|wait| (1..=30).contains(&wait.as_secs())));
    }
}
