//! The subjects, and what is asserted of each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;
use messaging::channels::discord::socket::{self, Event};
use messaging::channels::{Channel, ChannelKind, Piece, Received, Refusal, Verifier, channel};
use messaging::clock::Timestamp;
use messaging::directory::SecretPair;
use messaging::exchange::WebhookRequest;
use messaging::seal::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Input;
use crate::proof::{Keys, NOW, Proof, SnsVectors};
use crate::spelled::spelled;

/// A channel and its proof, by name. A new channel is a line here, and its samples as `corpus/<name>`.
pub const SUBJECTS: &[(&str, ChannelKind, Proof)] = &[
    ("whatsapp", ChannelKind::Whatsapp, Proof::Hub),
    ("telegram", ChannelKind::Telegram, Proof::Token),
    ("messenger", ChannelKind::Messenger, Proof::Hub),
    ("instagram", ChannelKind::Instagram, Proof::Hub),
    ("tiktok", ChannelKind::Tiktok, Proof::TimedMac),
    ("discord", ChannelKind::Discord, Proof::Ed25519),
    ("email-bridge", ChannelKind::Email, Proof::Bridge),
    ("email-mailgun", ChannelKind::Email, Proof::Form),
    ("email-postmark", ChannelKind::Email, Proof::Basic),
    ("email-ses", ChannelKind::Email, Proof::Sns),
    ("email-sendgrid", ChannelKind::Email, Proof::Ecdsa),
    ("woocommerce", ChannelKind::Woocommerce, Proof::ShopMac),
];

/// What is fuzzed.
pub struct Subject {
    channel: &'static dyn Channel,
    proof: Proof,
    keys: Keys,
    own: Verifier,
    /// Of an account with other secrets.
    other: Verifier,
    sns: SnsVectors,
}

/// The subject of that name.
pub fn subject(name: &str) -> Option<Subject> {
    let (_, kind, proof) = SUBJECTS.iter().find(|(own, ..)| *own == name)?;
    let keys = Keys::of(1);
    let (own, other) = (verifier(*kind, *proof, &keys), verifier(*kind, *proof, &Keys::of(2)));
    Some(Subject { channel: channel(*kind), proof: *proof, keys, own, other, sns: SnsVectors::read() })
}

fn verifier(kind: ChannelKind, proof: Proof, keys: &Keys) -> Verifier {
    let (mut public, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in proof.members(keys) {
        let field = channel(kind).fields().iter().find(|field| field.name == name);
        if field.unwrap_or_else(|| panic!("{} has no member {name}", kind.name())).secret {
            secrets.insert(name.to_owned(), SecretPair::new(Secret::new(value), Timestamp::ZERO));
        } else {
            public.insert(name.to_owned(), value);
        }
    }
    channel(kind).verifier(&public, &secrets)
}

impl Subject {
    /// Asserts everything of one input.
    pub fn judge(&self, input: &[u8]) {
        let input = Input::read(input);
        // A stranger's bytes may reach a parser only after a bug elsewhere; even then it must not panic.
        let _ = self.channel.parse(&input.body);
        self.shake_hands(&input);
        match self.proof {
            Proof::Form => self.judge_form(&input),
            Proof::Sns => self.judge_sns(&input),
            Proof::Ed25519 => {
                self.judge_frame(&input);
                self.judge_signed(&input);
            }
            Proof::Hub | Proof::Token | Proof::TimedMac | Proof::ShopMac | Proof::Bridge | Proof::Basic | Proof::Ecdsa => {
                self.judge_signed(&input)
            }
        }
    }

    fn receive(&self, input: &Input, verifier: &Verifier, fetched: Option<&Bytes>) -> Result<Received, Refusal> {
        let Input { headers, body } = input;
        self.channel.receive(&WebhookRequest { is_post: true, query: "", headers, body, now: NOW, fetched }, verifier)
    }

    /// A handshake by the body's text: nobody guesses the token, so nobody is let in.
    fn shake_hands(&self, input: &Input) {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let Ok(query) = std::str::from_utf8(&input.body) else { return };
        let request = WebhookRequest { is_post: false, query, headers: &headers, body: &body, now: NOW, fetched: None };
        assert!(self.channel.receive(&request, &self.own).is_err(), "a handshake without the token");
    }

    fn judge_signed(&self, input: &Input) {
        self.refuses("what nobody signed", input, &self.own);
        let mut signed = input.clone();
        self.proof.sign(&mut signed, &self.keys);
        self.refuses("what another account's secret signed", &signed, &self.other);
        for (what, damaged) in self.proof.damaged(&signed) {
            self.refuses(what, &damaged, &self.own);
        }
        let received = self.receive(&signed, &self.own, None).expect("what is signed is taken");
        self.holds(&signed, received);
    }

    /// Mailgun's proof stands in the form and covers two fields of it: the seeds bring a right one.
    fn judge_form(&self, input: &Input) {
        self.refuses("what another account's secret signed", input, &self.other);
        if let Ok(received) = self.receive(input, &self.own, None) {
            self.holds(input, received);
        }
    }

    fn judge_sns(&self, input: &Input) {
        let request = WebhookRequest { is_post: true, query: "", headers: &input.headers, body: &input.body, now: NOW, fetched: None };
        if let Some(call) = self.channel.needs(&request, &self.own) {
            let host = call.url.split('/').nth(2).unwrap_or_default();
            let is_own = host.starts_with("sns.") && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"));
            assert!(call.url.starts_with("https://") && is_own, "{} is called", call.url);
        }
        self.refuses("a notice without its certificate", input, &self.own);
        if let Ok(received) = self.receive(input, &self.own, Some(&self.sns.certificate)) {
            assert!(self.sns.has_signed(&input.body), "words that Amazon never signed");
            self.holds(input, received);
        }
        // The certificate is a stranger's too: as DER in the form that it comes in.
        let certificate = pem(&input.body);
        for body in &self.sns.bodies {
            let notice = Input { headers: HeaderMap::new(), body: Bytes::from(body.clone()) };
            let _ = self.receive(&notice, &self.own, Some(&certificate));
            let _ = self.receive(&notice, &self.own, Some(&input.body));
        }
        let published = [b"{\"source\":\"ses\",\"id\":\"n1\"}\n", input.body.as_ref()].concat();
        if let Ok(inbound) = self.channel.parse(&published) {
            assert!(!inbound.contact.handles.is_empty(), "nobody's event");
        }
    }

    /// Discord's Gateway: a frame is authentic by its connection, whatever it says.
    fn judge_frame(&self, input: &Input) {
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(&input.body) else { return };
        let event = Event { name: &frame.t, number: frame.s, session: "fuzz", bot: "1200000000000000001", said: frame.d };
        if let Some(piece) = socket::piece(&event) {
            self.piece_holds(&piece, &spelled(frame.d.get().as_bytes()));
        }
    }

    fn refuses(&self, what: &str, input: &Input, verifier: &Verifier) {
        match self.receive(input, verifier, None) {
            Err(_) => {}
            // The activation ping of a shop is signed by nobody, and does nothing.
            Ok(Received::Answered { pieces, .. }) if pieces.is_empty() && self.proof == Proof::ShopMac => {}
            Ok(received) => panic!("{what} is taken: {received:?}"),
        }
    }

    /// What must hold for anything authentic.
    fn holds(&self, input: &Input, received: Received) {
        let pieces = match received {
            Received::Pieces(pieces) => {
                assert!(!pieces.is_empty(), "nothing vanishes");
                pieces
            }
            Received::Answered { pieces, .. } => pieces,
            Received::Confirm(call) => return assert!(call.url.starts_with("https://sns."), "{} is called", call.url),
            Received::Handshake(_) => panic!("a post is no handshake"),
        };
        let mut named = spelled(&input.body);
        named.extend(input.headers.values().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()));
        for piece in &pieces {
            self.piece_holds(piece, &named);
        }
    }

    fn piece_holds(&self, piece: &Piece, named: &[String]) {
        match piece.account() {
            Some(account) => {
                assert!(self.channel.identity().is_some(), "{account} is told apart where one hook is one account's");
                assert!(named.iter().any(|text| text == account), "{account} is an account that nobody named");
            }
            None => {}
        }
        if piece.is_unparsable() {
            assert_eq!(piece.handle().scheme(), "account", "nobody is named by what is not understood");
            let _ = self.channel.parse(piece.body());
            return;
        }
        self.is_named(piece.handle().scheme(), piece.handle().value(), named);
        let inbound = match self.channel.parse(piece.body()) {
            Ok(inbound) => inbound,
            Err(error) => return assert!(!error.0.is_empty(), "quarantine says why"),
        };
        assert_eq!(inbound.contact.handles.first(), Some(piece.handle()), "the parser keys as the splitter does");
        for handle in &inbound.contact.handles {
            self.is_named(handle.scheme(), handle.value(), named);
        }
    }

    fn is_named(&self, scheme: &str, value: &str, named: &[String]) {
        // Addresses stand in mails in encodings of their own; a shop's notice is about nobody.
        let is_free = self.channel.kind() == ChannelKind::Email || matches!(scheme, "account" | "notice");
        assert!(is_free || named.iter().any(|text| text.contains(value)), "{scheme} {value} is somebody whom nobody named");
    }
}

/// What of a Gateway's frame makes an event.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(default)]
    s: u64,
    #[serde(borrow)]
    d: &'a RawValue,
}

fn pem(der: &[u8]) -> Bytes {
    let text = data_encoding::BASE64.encode(der);
    Bytes::from(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
}
