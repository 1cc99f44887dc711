//! Meta's callbacks about the app: a person wants their data deleted, or removed the app. Verified (`signed_request`), on the log
//! before the answer, and told as `platform.event`; the same request again is the same event and the same code.

use std::rc::Rc;

use http::StatusCode;
use hyper::body::Incoming;
use messaging::channels::meta::signed_request::{self, Callback, FORM_BYTES_MAX};
use messaging::channels::{PieceKind, Refusal};
use messaging::ids::AccountId;
use messaging::metrics::{self, IngressOutcome};

use crate::body::{self, BodyError};
use crate::edge::bare;
use crate::hooks::record_of;
use crate::reply::{self, Reply};
use crate::server::worker::Worker;

/// Bytes of a keyed hash that make a confirmation code: 20 hexadecimal digits.
const CODE_BYTES: usize = 10;

/// Answers a callback.
pub(crate) async fn handle(worker: &Rc<Worker>, callback: Callback, account: &str, incoming: Incoming) -> Reply {
    let shared = &worker.shared;
    let form = match body::collect(incoming, FORM_BYTES_MAX, shared.options.http.body_timeout, &shared.bounds).await {
        Ok(form) => form,
        Err(BodyError::TooLarge) => return bare(413),
        Err(BodyError::Timeout) => return bare(408),
        Err(BodyError::Broken) => return bare(400),
        Err(BodyError::Busy) => return bare(503),
    };
    let (record, kind, code, refusal) = {
        let directory = shared.parts.keeper.shared().load();
        let found = account.parse::<AccountId>().ok().and_then(|id| directory.account(id));
        let on = found.filter(|account| shared.parts.channels.contains_key(&account.channel));
        // An account that does not exist looks like one whose secret did not sign.
        let Some(account) = on else { return bare(403) };
        let signed = match signed_request::verify(&form, &account.verifier) {
            Ok(signed) => signed,
            Err(Refusal::Unauthentic | Refusal::Method) => return bare(403),
            Err(Refusal::Malformed) => return bare(400),
        };
        let (ids, owner) = (shared.parts.keyring.ids(), account.owner);
        let whose = if signed.user.is_empty() { signed.profile.as_deref().unwrap_or_default() } else { &signed.user };
        let hash = ids.event(owner.tenant.id(), owner.account, callback.name(), whose.as_bytes(), "").0;
        let code = data_encoding::HEXLOWER.encode(&hash[..CODE_BYTES]);
        let Some(piece) = signed_request::piece(account.channel, callback, &signed, &code) else { return bare(403) };
        let record = record_of(&shared.parts, account, &piece, shared.now());
        (record, account.channel, code, messaging::channels::channel(account.channel).refusal_cost().status)
    };
    let result = worker.appends.append(vec![record]).await;
    let outcome = if result.is_ok() { IngressOutcome::Accepted } else { IngressOutcome::Refused };
    metrics::INGRESS_EVENTS.at([kind.index(), PieceKind::Account.index(), outcome.index()]).increment(1);
    match (result, callback) {
        (Err(_), _) => bare(refusal),
        (Ok(()), Callback::Deauthorize) => reply::empty(StatusCode::OK),
        (Ok(()), Callback::DataDeletion) => {
            let url = format!("{}/deletion/{code}", shared.options.public_url);
            let answer = signed_request::deletion_answer(&url, &code);
            reply::typed(StatusCode::OK, "application/json", answer.body)
        }
    }
}

/// What the person who asked sees under their code. It looks nothing up, so it tells a stranger nothing.
pub(crate) fn page(code: &str) -> Option<Reply> {
    let is_code = code.len() == 2 * CODE_BYTES && code.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text =
        format!("Request {code}: received, and handed to the company that you gave access to. It deletes your data and answers you.\n");
    is_code.then(|| reply::typed(StatusCode::OK, "text/plain; charset=utf-8", text.into()))
}
