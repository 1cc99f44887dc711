//! For tests: an account as the gateway holds it, calls as it makes them, and a hook that keeps what it takes. So a simulator and
//! its channel are tried against each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{Channel, ChannelKind, Piece, Received, channel};
use messaging::clock::Timestamp;
use messaging::directory::{Account, AccountRow, AccountState, Directory, DirectoryRow, SecretPair, TenantRow, account_aad, tenant_aad};
use messaging::exchange::{HttpRequest, HttpResponse, WebhookRequest};
use messaging::ids::{AccountId, TenantId};
use messaging::seal::{DataKey, Keyring, Sealed, Secret};

use crate::http::{Client, Request, Server, reply};
use crate::locked;

/// An account with these members, secret or not as the channel says, at a simulator's address.
pub(crate) fn account(kind: ChannelKind, api_base: &str, members: &[(&str, &str)]) -> Arc<Account> {
    let (tenant, id) = (TenantId([1; 16]), AccountId([2; 16]));
    let (mut public, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in members {
        if channel(kind).fields().iter().any(|field| field.name == *name && field.secret) {
            secrets.insert((*name).to_owned(), SecretPair::new(Secret::new(*value), Timestamp::ZERO));
        } else {
            public.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    let (keyring, key) = (Keyring::from_root(&[7; 32]), DataKey::generate());
    let sealed = Sealed::from_stored(key.seal_value(&account_aad(tenant, id), &secrets).into_bytes());
    let own_key = keyring.kek().seal_value(&tenant_aad(tenant), key.expose());
    let rows = vec![
        DirectoryRow::Tenant(TenantRow { id: tenant, name: "test".into(), key: own_key, created_at: Timestamp::ZERO }),
        DirectoryRow::Account(AccountRow {
            id,
            tenant,
            channel: kind,
            name: "test".into(),
            api_base: Some(api_base.to_owned()),
            public,
            secrets: sealed,
            state: AccountState::Active,
            state_reason: None,
            created_at: Timestamp::ZERO,
            revision: 1,
        }),
    ];
    let (directory, broken) = Directory::build(1, rows, &keyring);
    assert!(broken.is_empty());
    directory.account(id).unwrap().clone()
}

/// Makes a call and gives its answer as channels read it.
pub(crate) async fn call(request: HttpRequest) -> HttpResponse {
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let client = Client::new(Duration::from_secs(5));
    let answer = client.send(request.method, &request.url, &headers, request.body).await.unwrap();
    HttpResponse { status: answer.status, body: answer.body, headers: answer.headers, retry_after: None }
}

/// Requests that a hook took: headers and body.
pub(crate) type Kept = Arc<Mutex<Vec<(http::HeaderMap, Bytes)>>>;

/// A hook that refuses the first `refusals` requests and keeps the rest.
pub(crate) async fn hook(refusals: usize) -> (Server, Kept) {
    let kept = Kept::default();
    let left = Arc::new(Mutex::new(refusals));
    let server = {
        let kept = kept.clone();
        Server::start("127.0.0.1:0".parse().unwrap(), move |mut request: Request| {
            let (kept, left) = (kept.clone(), left.clone());
            async move {
                let body = request.body().await.unwrap();
                let less = locked(&left).checked_sub(1);
                if let Some(less) = less {
                    *locked(&left) = less;
                    return reply(503, "text/plain", "");
                }
                locked(&kept).push((request.headers.clone(), body));
                reply(200, "text/plain", "")
            }
        })
    };
    (server.await.unwrap(), kept)
}

/// Waits until a hook has kept so many.
pub(crate) async fn wait_for(kept: &Kept, count: usize) {
    for _ in 0..1_000 {
        if locked(kept).len() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {count} webhooks came", locked(kept).len());
}

/// The pieces of all that a hook kept, by the channel itself.
pub(crate) fn pieces(channel: &dyn Channel, account: &Account, now: Timestamp, kept: &Kept) -> Vec<Piece> {
    let mut all = Vec::new();
    for (headers, body) in locked(kept).iter() {
        let request = WebhookRequest { is_post: true, query: "", headers, body, now, fetched: None };
        match channel.receive(&request, &account.verifier) {
            Ok(Received::Pieces(pieces)) => all.extend(pieces),
            other => panic!("{other:?}"),
        }
    }
    all
}
