//! The `/v1` API. One handler per route; what they share is the [`Call`]: who asks, what for, and with what.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use messaging::clock::Timestamp;
use messaging::directory::Directory;
use messaging::ids::TenantId;
use messaging::keeper::{Change, ChangeError};
use messaging::log::AppendError;
use messaging::seal::DataKey;
use messaging::store::StoreError;
use messaging::tenant::{Caller, Scope, Tenant};

use crate::problem::{Code, Problem};
use crate::reply::Reply;
use crate::routes::{Handler, PARAMS_MAX};
use crate::server::worker::Worker;
use crate::shared::Shared;

mod accounts;
mod batch;
mod commands;
mod compose;
mod contacts;
mod conversations;
mod cursor;
mod dead_letters;
mod endpoints;
mod etag;
mod events;
mod feed;
pub(crate) mod json;
mod judge;
mod keys;
mod messages;
pub(crate) mod query;
mod quotas;
pub(crate) mod recent;
mod send;
pub(crate) mod span;
mod tenants;
pub mod token;

pub(crate) use send::Backlog;
pub(crate) use tenants::Newcomer;

/// For which tenant an administrator acts; without it, its own.
const TENANT_HEADER: &str = "trunkline-tenant";

/// A request of the API, after its key was checked.
pub(crate) struct Call<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) caller: Caller,
    /// Whose key it is: its quota of requests is used, whoever the administrator acts for.
    payer: TenantId,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) request_id: &'a str,
    /// The route's template.
    pub(crate) route: &'static str,
    pub(crate) params: [&'a str; PARAMS_MAX],
    pub(crate) query: &'a str,
    pub(crate) body: Bytes,
    pub(crate) now: Timestamp,
    auth_took: Duration,
    limit_took: Duration,
}

impl<'a> Call<'a> {
    /// Checks the key, its scope and its budget.
    pub(crate) fn authenticate(
        worker: &'a Rc<Worker>,
        headers: &'a HeaderMap,
        request_id: &'a str,
        started: Instant,
        scope: Scope,
    ) -> Result<Self, Problem> {
        let shared = &worker.shared;
        let now = shared.now();
        let directory = shared.parts.keeper.shared().load();
        let mut caller = bearer(headers)
            .and_then(|key| directory.authenticate(key, shared.parts.keyring.ids(), now))
            .ok_or_else(|| Problem::new(Code::Unauthenticated, "send Authorization: Bearer with a valid API key"))?;
        if !caller.scopes.contains(scope) {
            return Err(Problem::new(Code::Forbidden, format!("this needs the scope {}", scope.name())));
        }
        let payer = caller.tenant.id();
        if let Some(value) = headers.get(TENANT_HEADER) {
            caller.tenant = acting(&directory, &caller, value)?;
        }
        let auth_took = started.elapsed();
        let mut call = Self {
            worker,
            caller,
            payer,
            headers,
            request_id,
            route: "",
            params: [""; PARAMS_MAX],
            query: "",
            body: Bytes::new(),
            now,
            auth_took,
            limit_took: Duration::ZERO,
        };
        call.admit(&directory)?;
        call.limit_took = started.elapsed() - auth_took;
        Ok(call)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// On whose behalf.
    pub(crate) fn tenant(&self) -> Tenant {
        self.caller.tenant
    }

    /// The present directory. Do not hold it across a wait.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.shared().parts.keeper.shared().load_full()
    }

    /// The tenant's key.
    pub(crate) fn tenant_key(&self) -> Result<DataKey, Problem> {
        self.directory().tenant_key(self.tenant()).cloned().ok_or_else(Problem::not_found)
    }

    /// An id from the path. What is no id cannot exist.
    pub(crate) fn id<T: std::str::FromStr>(&self) -> Result<T, Problem> {
        self.params[0].parse().map_err(|_| Problem::not_found())
    }

    /// Whether the caller may act for every tenant.
    pub(crate) fn is_admin(&self) -> bool {
        self.caller.scopes.contains(Scope::Admin)
    }

    /// Changes the directory.
    pub(crate) async fn change(&self, edit: impl FnMut(&Directory) -> Result<Vec<Change>, Problem>) -> Result<Arc<Directory>, Problem> {
        self.shared().parts.keeper.change(edit).await.map_err(|error| match error {
            ChangeError::Refused(problem) => problem,
            ChangeError::Store(error) => away(&error),
        })
    }

    /// `Server-Timing` of a send.
    pub(crate) fn timing(&self, durable: Duration) -> HeaderValue {
        let millis = |took: Duration| took.as_secs_f64() * 1000.0;
        let text =
            format!("auth;dur={:.3}, limit;dur={:.3}, durable;dur={:.3}", millis(self.auth_took), millis(self.limit_took), millis(durable));
        HeaderValue::try_from(text).expect("digits and letters are visible ASCII")
    }
}

/// The key that was presented: one header, one scheme.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token::is_sound(key)).then_some(key)
}

fn acting(directory: &Directory, caller: &Caller, value: &HeaderValue) -> Result<Tenant, Problem> {
    if !caller.scopes.contains(Scope::Admin) {
        return Err(Problem::new(Code::Forbidden, format!("{TENANT_HEADER} needs the scope admin")));
    }
    let id = value.to_str().ok().and_then(|text| text.parse::<TenantId>().ok());
    id.and_then(|id| directory.act_for(caller, id)).ok_or_else(Problem::not_found)
}

/// The store did not do it.
pub(crate) fn away(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) | StoreError::Full | StoreError::Unheld | StoreError::Closed => {
            tracing::warn!(%error, "an API request needs the store, which does not answer");
            Problem::new(Code::StoreUnavailable, "the store does not answer now")
        }
        StoreError::Conflict => Problem::new(Code::StoreUnavailable, "others change the configuration at the same time"),
        StoreError::Damaged(_) => {
            tracing::error!(%error, "an API request met damage in the store");
            Problem::new(Code::Internal, "what is stored cannot be read")
        }
    }
}

/// A row that does not open.
pub(crate) fn damaged(what: &'static str) -> Problem {
    tracing::error!(what, "a stored row does not open");
    Problem::new(Code::Internal, "what is stored cannot be read")
}

/// The log did not take it.
pub(crate) fn not_appended(error: AppendError) -> Problem {
    match error {
        AppendError::Full => Problem::new(Code::LogUnavailable, "the log is full"),
        AppendError::Away => Problem::new(Code::LogUnavailable, "the log does not confirm records now"),
        AppendError::Closed => Problem::new(Code::LogUnavailable, "the log does not take records"),
        AppendError::TooLarge { max } => Problem::new(Code::PayloadTooLarge, format!("the request does not fit a record of {max} bytes")),
        AppendError::Partition => {
            tracing::error!("a record was made for a partition that does not exist");
            Problem::new(Code::Internal, "the request could not be placed on the log")
        }
    }
}

/// Serves a request. The match has no wildcard: a route without a handler does not build.
pub(crate) async fn serve(handler: Handler, call: &Call<'_>) -> Result<Reply, Problem> {
    match handler {
        Handler::Hook
        | Handler::DataDeletion
        | Handler::Deauthorize
        | Handler::DeletionPage
        | Handler::ProblemPage
        | Handler::LinkedMedia
        | Handler::UploadMedia => Err(Problem::not_found()),
        Handler::ReadMedia => crate::media::read(call).await,
        Handler::Send => send::send(call).await,
        Handler::SendBatch => batch::send(call).await,
        Handler::ReadMessage => messages::read(call).await,
        Handler::ListMessages => messages::list(call).await,
        Handler::CancelMessage => commands::cancel(call).await,
        Handler::ResendMessage => commands::resend(call).await,
        Handler::ReadWindow => conversations::window(call).await,
        Handler::ReadConversation => conversations::read(call).await,
        Handler::MarkRead => commands::receipt(call, commands::ReceiptKind::Read).await,
        Handler::ShowTyping => commands::receipt(call, commands::ReceiptKind::Typing).await,
        Handler::ChangeConversationContact => contacts::change_of_conversation(call).await,
        Handler::FindContact => contacts::find(call).await,
        Handler::ChangeContact => contacts::change(call).await,
        Handler::Feed => feed::feed(call).await,
        Handler::ReadEvent => events::read(call).await,
        Handler::ListEventTypes => events::types(),
        Handler::EventSchema => events::schema(call),
        Handler::ListTenants => tenants::list(call),
        Handler::CreateTenant => tenants::create(call).await,
        Handler::ReadTenant => tenants::read(call),
        Handler::ChangeTenant => tenants::change(call).await,
        Handler::DeleteTenant => tenants::delete(call).await,
        Handler::ListAccounts => accounts::list(call),
        Handler::CreateAccount => accounts::create(call).await,
        Handler::ReadAccount => accounts::read(call),
        Handler::ChangeAccount => accounts::change(call).await,
        Handler::DeleteAccount => accounts::delete(call).await,
        Handler::PauseAccount => accounts::set_state(call, messaging::directory::AccountState::Paused).await,
        Handler::ResumeAccount => accounts::set_state(call, messaging::directory::AccountState::Active).await,
        Handler::CheckAccount => accounts::check(call).await,
        Handler::RevokePrevious => accounts::revoke_previous(call).await,
        Handler::ListEndpoints => endpoints::list(call),
        Handler::CreateEndpoint => endpoints::create(call).await,
        Handler::ReadEndpoint => endpoints::read(call),
        Handler::ChangeEndpoint => endpoints::change(call).await,
        Handler::DeleteEndpoint => endpoints::delete(call).await,
        Handler::PauseEndpoint => endpoints::set_state(call, messaging::directory::EndpointState::Paused).await,
        Handler::RetryEndpoint => endpoints::retry(call).await,
        Handler::ResumeEndpoint => endpoints::set_state(call, messaging::directory::EndpointState::Active).await,
        Handler::RotateEndpointSecret => endpoints::rotate_secret(call).await,
        Handler::TestEndpoint => endpoints::test(call).await,
        Handler::ListKeys => keys::list(call),
        Handler::CreateKey => keys::create(call).await,
        Handler::DeleteKey => keys::delete(call).await,
        Handler::ListDeadLetters => dead_letters::list(call).await,
        Handler::ReadDeadLetter => dead_letters::read(call).await,
        Handler::RequeueDeadLetter => dead_letters::requeue(call).await,
        Handler::DropDeadLetter => dead_letters::drop(call).await,
    }
}
