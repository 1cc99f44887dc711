//! Requests built and signed before the clock starts.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use messaging::clock::{Clock, SystemClock};
use sha2::Sha256;

use crate::find;
use crate::http::loopback;
use crate::mark::{Mark, Way, write_hex};

/// Requests that one run may have.
pub const REQUESTS_MAX: usize = 4_000_000;
/// Conversations that one run may have: their number has seven digits.
const CONVERSATIONS_MAX: usize = 9_999_999;
/// Threads that sign.
const SIGNERS: usize = 2;
/// Stands where a mark is patched in.
const MARK_HOLE: &str = "tlm#########################";
/// Stands where a conversation's number is patched into a phone number.
const PHONE_HOLE: &str = "1555~~~~~~~";
/// Digits of that number.
const PHONE_DIGITS: usize = 7;
/// Stands where a message id's digits are patched in.
const ID_HOLE: &str = "^^^^^^^^^^^^^^^^^^^^^^^^";
/// Stands where the platform's time is patched in: ten digits, until the year 2286.
const TIME_HOLE: &str = "@@@@@@@@@@";
/// Stands where a signature is patched in.
const SIGNATURE_HOLE: &str = "$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$$";

/// Customers' messages at the gateway's door.
#[derive(Debug, Clone)]
pub struct IngressLoad {
    /// The hook's URL.
    pub url: String,
    /// The app secret.
    pub app_secret: String,
    /// The phone number id.
    pub phone_number_id: String,
    /// The run's number, part of every mark.
    pub run: u32,
    /// Requests in all, at most `REQUESTS_MAX`.
    pub requests: usize,
    /// Conversations that they are spread over in turn.
    pub conversations: usize,
    /// Bytes of a body, reached by padding the text; bodies are not shorter than about 600.
    pub body_bytes: usize,
}

/// Merchants' sends at the API.
#[derive(Debug, Clone)]
pub struct SendLoad {
    /// The URL of `/v1/messages`.
    pub url: String,
    /// The API key.
    pub key: String,
    /// The account's id.
    pub account: String,
    /// The run's number, part of every mark.
    pub run: u32,
    /// Requests in all, at most `REQUESTS_MAX`.
    pub requests: usize,
    /// Conversations that they are spread over in turn; the same numbers as in an ingress load.
    pub conversations: usize,
}

/// A whole request with holes.
#[derive(Debug, Clone)]
struct Template {
    bytes: Vec<u8>,
    body: usize,
    mark: usize,
    phones: Vec<usize>,
    id: Option<usize>,
    time: Option<usize>,
    signature: Option<usize>,
}

/// A load, ready to go.
#[derive(Debug, Clone)]
pub struct Prepared {
    addr: SocketAddr,
    template: Template,
    signatures: std::sync::Arc<Vec<[u8; 32]>>,
    way: Way,
    run: u32,
    requests: usize,
    conversations: usize,
    /// The platform's time before the first message, in seconds: nobody writes twice in one second, and the last message is of now.
    begun_at: u64,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}

fn check_sizes(requests: usize, conversations: usize) -> io::Result<()> {
    if requests == 0 || requests > REQUESTS_MAX {
        return Err(invalid(format!("a run has 1 to {REQUESTS_MAX} requests, not {requests}")));
    }
    if conversations == 0 || conversations > CONVERSATIONS_MAX {
        return Err(invalid(format!("a run has 1 to {CONVERSATIONS_MAX} conversations, not {conversations}")));
    }
    Ok(())
}

/// The customer's number of a load's conversation, digits only: for opening windows before a send load.
pub fn phone(conversation: u32) -> String {
    format!("1555{conversation:07}")
}

impl Prepared {
    /// Builds and signs customers' messages. Errors: sizes out of bounds, or a URL that is not on this machine.
    pub fn ingress(load: &IngressLoad) -> io::Result<Self> {
        check_sizes(load.requests, load.conversations)?;
        let start = format!(
            "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"102290129340398\",\"changes\":[{{\"value\":{{\
             \"messaging_product\":\"whatsapp\",\"metadata\":{{\"display_phone_number\":\"15550783881\",\"phone_number_id\":\"{}\"}},\
             \"contacts\":[{{\"profile\":{{\"name\":\"Load Customer\"}},\"wa_id\":\"{PHONE_HOLE}\"}}],\
             \"messages\":[{{\"from\":\"{PHONE_HOLE}\",\"id\":\"wamid.HBgL{ID_HOLE}\",\"timestamp\":\"{TIME_HOLE}\",\"type\":\"text\",\
             \"text\":{{\"body\":\"{MARK_HOLE} ",
            load.phone_number_id
        );
        let end = "\"}}]},\"field\":\"messages\"}]}]}";
        let padding = load.body_bytes.saturating_sub(start.len() + end.len());
        let filler: String = "the quick brown fox jumps over the lazy dog ".chars().cycle().take(padding).collect();
        let body = format!("{start}{filler}{end}");
        let extra = format!("x-hub-signature-256: sha256={SIGNATURE_HOLE}\r\n");
        let (addr, template) = Template::new(&load.url, &extra, &body)?;
        let mut prepared = Self {
            addr,
            template,
            signatures: std::sync::Arc::default(),
            way: Way::In,
            run: load.run,
            requests: load.requests,
            conversations: load.conversations,
            begun_at: SystemClock::default().now().as_secs() - load.requests.div_ceil(load.conversations) as u64,
        };
        prepared.signatures = std::sync::Arc::new(prepared.sign_all(&load.app_secret));
        Ok(prepared)
    }

    /// Builds merchants' sends. Errors: sizes out of bounds, a key that is no header value, or a URL that is not on this machine.
    pub fn sends(load: &SendLoad) -> io::Result<Self> {
        check_sizes(load.requests, load.conversations)?;
        if !load.key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("the api key has characters that no header may have"));
        }
        let body = format!(
            "{{\"account\":\"{}\",\"to\":{{\"phone\":\"+{PHONE_HOLE}\"}},\"type\":\"text\",\"text\":{{\"body\":\"{MARK_HOLE}\"}}}}",
            load.account
        );
        let (addr, template) = Template::new(&load.url, &format!("authorization: Bearer {}\r\n", load.key), &body)?;
        Ok(Self {
            addr,
            template,
            signatures: std::sync::Arc::default(),
            way: Way::Out,
            run: load.run,
            requests: load.requests,
            conversations: load.conversations,
            begun_at: 0,
        })
    }

    /// The same requests to another place on this machine: the bare server gets the very bytes that the gateway gets.
    pub fn aimed_at(&self, url: &str) -> io::Result<Self> {
        let (addr, _) = loopback(url).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { addr, ..self.clone() })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests in all.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Conversations that they are spread over.
    pub fn conversations(&self) -> usize {
        self.conversations
    }

    /// Bytes of a body.
    pub fn body_bytes(&self) -> usize {
        self.template.bytes.len() - self.template.body
    }

    /// The mark of a request.
    pub fn mark(&self, index: usize) -> Mark {
        let conversation = (index % self.conversations) as u32;
        let sequence = (index / self.conversations) as u32 + 1;
        Mark { way: self.way, run: self.run, conversation, sequence }
    }

    /// The requests of a range that one of so many connections sends: always the same conversations.
    pub(super) fn indices(&self, range: Range<usize>, number: usize, connections: usize) -> impl Iterator<Item = usize> + use<> {
        let conversations = self.conversations;
        let rounds = range.start / conversations..range.end.div_ceil(conversations);
        let round = move |round: usize| (number..conversations).step_by(connections).map(move |own| round * conversations + own);
        rounds.flat_map(round).filter(move |index| range.contains(index))
    }

    /// Which of so many connections sends a request.
    pub(super) fn connection_of(&self, index: usize, connections: usize) -> usize {
        index % self.conversations % connections
    }

    /// A buffer to fill.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.template.bytes.clone()
    }

    /// Makes a buffer hold the request of this index.
    pub(super) fn fill(&self, index: usize, buffer: &mut [u8]) {
        self.fill_body(index, buffer);
        if let (Some(place), Some(signature)) = (self.template.signature, self.signatures.get(index)) {
            data_encoding::HEXLOWER.encode_mut(signature, &mut buffer[place..place + 64]);
        }
    }

    fn fill_body(&self, index: usize, buffer: &mut [u8]) {
        let mark = self.mark(index);
        mark.write(&mut buffer[self.template.mark..]);
        for &phone in &self.template.phones {
            let number = phone + PHONE_HOLE.len() - PHONE_DIGITS;
            write_decimal(&mut buffer[number..number + PHONE_DIGITS], u64::from(mark.conversation));
        }
        if let Some(time) = self.template.time {
            write_decimal(&mut buffer[time..time + TIME_HOLE.len()], self.begun_at + u64::from(mark.sequence));
        }
        if let Some(id) = self.template.id {
            write_hex(&mut buffer[id..], mark.run);
            write_hex(&mut buffer[id + 8..], mark.conversation);
            write_hex(&mut buffer[id + 16..], mark.sequence);
        }
    }

    fn sign_all(&self, app_secret: &str) -> Vec<[u8; 32]> {
        let key: Hmac<Sha256> = Hmac::new_from_slice(app_secret.as_bytes()).expect("HMAC takes keys of any length");
        let mut signatures = vec![[0u8; 32]; self.requests];
        let share = self.requests.div_ceil(SIGNERS);
        std::thread::scope(|scope| {
            for (part, out) in signatures.chunks_mut(share).enumerate() {
                let key = &key;
                scope.spawn(move || {
                    let mut buffer = self.buffer();
                    for (place, signature) in out.iter_mut().enumerate() {
                        self.fill_body(part * share + place, &mut buffer);
                        let mut mac = key.clone();
                        mac.update(&buffer[self.template.body..]);
                        *signature = mac.finalize().into_bytes().into();
                    }
                });
            }
        });
        signatures
    }
}

impl Template {
    fn new(url: &str, extra: &str, body: &str) -> io::Result<(SocketAddr, Self)> {
        let (addr, uri) = loopback(url).map_err(|error| invalid(error.to_string()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\n{extra}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = format!("{head}{body}").into_bytes();
        let mark = place_of(&bytes, MARK_HOLE, 0).ok_or_else(|| invalid("the body has no place for a mark"))?;
        let mut phones = Vec::new();
        while let Some(phone) = place_of(&bytes, PHONE_HOLE, phones.last().map_or(0, |last| last + 1)) {
            phones.push(phone);
        }
        let first = |hole| place_of(&bytes, hole, 0);
        let (id, time, signature) = (first(ID_HOLE), first(TIME_HOLE), first(SIGNATURE_HOLE));
        Ok((addr, Self { body: head.len(), mark, phones, id, time, signature, bytes }))
    }
}

/// Fills the place with a number's last digits.
fn write_decimal(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn place_of(bytes: &[u8], hole: &str, from: usize) -> Option<usize> {
    find(&bytes[from..], hole.as_bytes()).map(|place| place + from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> IngressLoad {
        IngressLoad {
            url: "http://127.0.0.1:8080/hooks/whatsapp/acc_x".to_owned(),
            app_secret: "secret".to_owned(),
            phone_number_id: "42".to_owned(),
            run: 0xabc,
            requests: 25,
            conversations: 10,
            body_bytes: 1_024,
        }
    }

    #[test]
    fn webhooks_are_patched_and_signed() {
        let prepared = Prepared::ingress(&load()).unwrap();
        let mut buffer = prepared.buffer();
        for index in [0, 13, 24] {
            prepared.fill(index, &mut buffer);
            let text = String::from_utf8(buffer.clone()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), 1_024);
            assert!(head.contains("content-length: 1024"));
            let proof = crate::platform::hook::Proof::signature("secret");
            assert!(head.contains(&format!("x-hub-signature-256: {}", proof.header(body.as_bytes()).1)), "{head}");
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            let inner = &value["entry"][0]["changes"][0]["value"];
            let mark = prepared.mark(index);
            assert_eq!((mark.conversation as usize, mark.sequence as usize), (index % 10, index / 10 + 1));
            assert_eq!(Mark::find(inner["messages"][0]["text"]["body"].as_str().unwrap().as_bytes()), Some(mark));
            assert_eq!(inner["messages"][0]["from"], phone(mark.conversation));
            assert_eq!(inner["contacts"][0]["wa_id"], phone(mark.conversation));
            let time = (prepared.begun_at + u64::from(mark.sequence)).to_string();
            assert_eq!(inner["messages"][0]["timestamp"], time, "a second after the one before");
            assert_eq!(inner["messages"][0]["id"], format!("wamid.HBgL{:08x}{:08x}{:08x}", mark.run, mark.conversation, mark.sequence));
        }
    }

    #[test]
    fn every_request_belongs_to_one_connection() {
        let prepared = Prepared::ingress(&load()).unwrap();
        let mut all: Vec<usize> = Vec::new();
        for number in 0..4 {
            let own: Vec<usize> = prepared.indices(3..24, number, 4).collect();
            assert!(own.iter().all(|&index| prepared.connection_of(index, 4) == number) && own.is_sorted());
            all.extend(own);
        }
        all.sort();
        assert_eq!(all, (3..24).collect::<Vec<_>>());
    }

    #[test]
    fn sends_are_patched() {
        let load = SendLoad {
            url: "http://localhost:8080/v1/messages".to_owned(),
            key: "tl_sk_dev_1".to_owned(),
            account: "acc_x".to_owned(),
            run: 1,
            requests: 10,
            conversations: 3,
        };
        let prepared = Prepared::sends(&load).unwrap();
        let mut buffer = prepared.buffer();
        prepared.fill(7, &mut buffer);
        let text = String::from_utf8(buffer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("authorization: Bearer tl_sk_dev_1"));
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["to"]["phone"], "+15550000001");
        assert_eq!(value["text"]["body"], Mark::outbound(1, 1, 3).to_string());
        assert!(Prepared::sends(&SendLoad { key: "a\r\nb".to_owned(), ..load }).is_err());
    }

    #[test]
    fn sizes_and_places_are_bounded() {
        let cases = [
            IngressLoad { requests: 0, ..load() },
            IngressLoad { requests: REQUESTS_MAX + 1, ..load() },
            IngressLoad { conversations: 0, ..load() },
            IngressLoad { url: "http://192.0.2.1/".to_owned(), ..load() },
        ];
        for case in cases {
            assert!(Prepared::ingress(&case).is_err(), "{case:?}");
        }
    }
}
