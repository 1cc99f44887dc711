//! The routes, as data: dispatch, `Allow`, metric labels, scope checks, body limits and the generated isolation and scope
//! tests all come from this one table.

use messaging::metrics::Route as Label;
use messaging::tenant::Scope;

/// A method that the public listener knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Makes or asks for something.
    Post,
    /// Changes members.
    Patch,
    /// Takes away.
    Delete,
}

impl Verb {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    fn of(method: &http::Method) -> Option<Self> {
        match *method {
            http::Method::GET => Some(Self::Get),
            http::Method::POST => Some(Self::Post),
            http::Method::PATCH => Some(Self::Patch),
            http::Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Who may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: the handler judges by itself (webhooks), or there is nothing to guard.
    Open,
    /// A key with this scope.
    Key(Scope),
}

/// How large a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// `http.max_hook_body`.
    Hook,
    /// `http.max_api_body`.
    Api,
    /// `http.max_batch_body`.
    Batch,
    /// `media.max`: the handler reads it piece by piece.
    Media,
}

/// What serves a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table below says what each does")]
pub enum Handler {
    Hook,
    DataDeletion,
    Deauthorize,
    DeletionPage,
    ProblemPage,
    LinkedMedia,
    Send,
    SendBatch,
    ReadMessage,
    ListMessages,
    CancelMessage,
    ResendMessage,
    UploadMedia,
    ReadMedia,
    ReadWindow,
    ReadConversation,
    MarkRead,
    ShowTyping,
    ChangeConversationContact,
    FindContact,
    ChangeContact,
    Feed,
    ReadEvent,
    ListEventTypes,
    EventSchema,
    ListTenants,
    CreateTenant,
    ReadTenant,
    ChangeTenant,
    DeleteTenant,
    ListAccounts,
    CreateAccount,
    ReadAccount,
    ChangeAccount,
    DeleteAccount,
    PauseAccount,
    ResumeAccount,
    CheckAccount,
    RevokePrevious,
    ListEndpoints,
    CreateEndpoint,
    ReadEndpoint,
    ChangeEndpoint,
    DeleteEndpoint,
    PauseEndpoint,
    ResumeEndpoint,
    RetryEndpoint,
    RotateEndpointSecret,
    TestEndpoint,
    ListKeys,
    CreateKey,
    DeleteKey,
    ListDeadLetters,
    ReadDeadLetter,
    RequeueDeadLetter,
    DropDeadLetter,
}

/// A route of the public listener.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Its method.
    pub verb: Verb,
    /// Its path; `{…}` stands for one segment.
    pub template: &'static str,
    /// Who may come.
    pub access: Access,
    /// How large a body may be.
    pub body: BodyLimit,
    /// What serves it.
    pub handler: Handler,
    /// Its label in metrics.
    pub label: Label,
}

const fn open(verb: Verb, template: &'static str, body: BodyLimit, handler: Handler, label: Label) -> Route {
    Route { verb, template, access: Access::Open, body, handler, label }
}

const fn keyed(verb: Verb, template: &'static str, scope: Scope, handler: Handler, label: Label) -> Route {
    Route { verb, template, access: Access::Key(scope), body: BodyLimit::Api, handler, label }
}

use Scope::{Admin, ConfigRead, ConfigWrite, EventsRead, MessagesRead, MessagesSend};
use Verb::{Delete, Get, Patch, Post};

/// Every route of the public listener.
pub const ROUTES: &[Route] = &[
    open(Get, "/hooks/{channel}/{account}", BodyLimit::Hook, Handler::Hook, Label::Hooks),
    open(Post, "/hooks/{channel}/{account}", BodyLimit::Hook, Handler::Hook, Label::Hooks),
    open(Post, "/hooks/meta/{account}/data-deletion", BodyLimit::Api, Handler::DataDeletion, Label::Hooks),
    open(Post, "/hooks/meta/{account}/deauthorize", BodyLimit::Api, Handler::Deauthorize, Label::Hooks),
    open(Get, "/deletion/{code}", BodyLimit::Api, Handler::DeletionPage, Label::Docs),
    open(Get, "/problems/{code}", BodyLimit::Api, Handler::ProblemPage, Label::Docs),
    open(Get, "/media/{token}", BodyLimit::Api, Handler::LinkedMedia, Label::Media),
    // Messages
    keyed(Post, "/v1/messages", MessagesSend, Handler::Send, Label::Messages),
    keyed(Get, "/v1/messages", MessagesRead, Handler::ListMessages, Label::Messages),
    Route { body: BodyLimit::Batch, ..keyed(Post, "/v1/messages/batch", MessagesSend, Handler::SendBatch, Label::MessagesBatch) },
    keyed(Get, "/v1/messages/{id}", MessagesRead, Handler::ReadMessage, Label::Message),
    keyed(Delete, "/v1/messages/{id}", MessagesSend, Handler::CancelMessage, Label::Message),
    keyed(Post, "/v1/messages/{id}/resend", MessagesSend, Handler::ResendMessage, Label::Message),
    // Media
    Route { body: BodyLimit::Media, ..keyed(Post, "/v1/media", MessagesSend, Handler::UploadMedia, Label::Media) },
    keyed(Get, "/v1/media/{id}", MessagesRead, Handler::ReadMedia, Label::Media),
    // Conversations and contacts
    keyed(Get, "/v1/windows", MessagesRead, Handler::ReadWindow, Label::Windows),
    keyed(Get, "/v1/conversations/{id}", MessagesRead, Handler::ReadConversation, Label::Conversation),
    keyed(Post, "/v1/conversations/{id}/read", MessagesSend, Handler::MarkRead, Label::Conversation),
    keyed(Post, "/v1/conversations/{id}/typing", MessagesSend, Handler::ShowTyping, Label::Conversation),
    keyed(Patch, "/v1/conversations/{id}/contact", MessagesSend, Handler::ChangeConversationContact, Label::Conversation),
    keyed(Get, "/v1/contacts", MessagesRead, Handler::FindContact, Label::Config),
    keyed(Patch, "/v1/contacts/{id}", MessagesSend, Handler::ChangeContact, Label::Config),
    // Events
    keyed(Get, "/v1/events", EventsRead, Handler::Feed, Label::Events),
    keyed(Get, "/v1/events/{id}", EventsRead, Handler::ReadEvent, Label::Events),
    keyed(Get, "/v1/event-types", EventsRead, Handler::ListEventTypes, Label::Events),
    keyed(Get, "/v1/event-types/{name}/schema", EventsRead, Handler::EventSchema, Label::Events),
    // Configuration
    keyed(Get, "/v1/tenants", Admin, Handler::ListTenants, Label::Config),
    keyed(Post, "/v1/tenants", Admin, Handler::CreateTenant, Label::Config),
    keyed(Get, "/v1/tenants/{id}", Admin, Handler::ReadTenant, Label::Config),
    keyed(Patch, "/v1/tenants/{id}", Admin, Handler::ChangeTenant, Label::Config),
    keyed(Delete, "/v1/tenants/{id}", Admin, Handler::DeleteTenant, Label::Config),
    keyed(Get, "/v1/accounts", ConfigRead, Handler::ListAccounts, Label::Config),
    keyed(Post, "/v1/accounts", ConfigWrite, Handler::CreateAccount, Label::Config),
    keyed(Get, "/v1/accounts/{id}", ConfigRead, Handler::ReadAccount, Label::Config),
    keyed(Patch, "/v1/accounts/{id}", ConfigWrite, Handler::ChangeAccount, Label::Config),
    keyed(Delete, "/v1/accounts/{id}", ConfigWrite, Handler::DeleteAccount, Label::Config),
    keyed(Post, "/v1/accounts/{id}/pause", ConfigWrite, Handler::PauseAccount, Label::Config),
    keyed(Post, "/v1/accounts/{id}/resume", ConfigWrite, Handler::ResumeAccount, Label::Config),
    keyed(Post, "/v1/accounts/{id}/check", ConfigWrite, Handler::CheckAccount, Label::Config),
    keyed(Post, "/v1/accounts/{id}/revoke-previous", ConfigWrite, Handler::RevokePrevious, Label::Config),
    keyed(Get, "/v1/endpoints", ConfigRead, Handler::ListEndpoints, Label::Config),
    keyed(Post, "/v1/endpoints", ConfigWrite, Handler::CreateEndpoint, Label::Config),
    keyed(Get, "/v1/endpoints/{id}", ConfigRead, Handler::ReadEndpoint, Label::Config),
    keyed(Patch, "/v1/endpoints/{id}", ConfigWrite, Handler::ChangeEndpoint, Label::Config),
    keyed(Delete, "/v1/endpoints/{id}", ConfigWrite, Handler::DeleteEndpoint, Label::Config),
    keyed(Post, "/v1/endpoints/{id}/pause", ConfigWrite, Handler::PauseEndpoint, Label::Config),
    keyed(Post, "/v1/endpoints/{id}/resume", ConfigWrite, Handler::ResumeEndpoint, Label::Config),
    keyed(Post, "/v1/endpoints/{id}/retry", ConfigWrite, Handler::RetryEndpoint, Label::Config),
    keyed(Post, "/v1/endpoints/{id}/rotate-secret", ConfigWrite, Handler::RotateEndpointSecret, Label::Config),
    keyed(Post, "/v1/endpoints/{id}/test", ConfigWrite, Handler::TestEndpoint, Label::Config),
    keyed(Get, "/v1/keys", ConfigRead, Handler::ListKeys, Label::Config),
    keyed(Post, "/v1/keys", ConfigWrite, Handler::CreateKey, Label::Config),
    keyed(Delete, "/v1/keys/{id}", ConfigWrite, Handler::DeleteKey, Label::Config),
    // Operators
    keyed(Get, "/v1/dead-letters", Admin, Handler::ListDeadLetters, Label::Config),
    keyed(Get, "/v1/dead-letters/{tenant}/{id}", Admin, Handler::ReadDeadLetter, Label::Config),
    keyed(Delete, "/v1/dead-letters/{tenant}/{id}", Admin, Handler::DropDeadLetter, Label::Config),
    keyed(Post, "/v1/dead-letters/{tenant}/{id}/requeue", Admin, Handler::RequeueDeadLetter, Label::Config),
];

/// Most `{…}` of a template.
pub const PARAMS_MAX: usize = 2;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'p> {
    /// To this route, with the segments that stand for its `{…}`.
    Route(&'static Route, [&'p str; PARAMS_MAX]),
    /// The path is known, the method is not: these are.
    OtherMethod(Vec<Verb>),
    /// Nowhere.
    Nothing,
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.verb == other.verb && self.template == other.template
    }
}
impl Eq for Route {}

/// Finds the route of a request. Paths have one spelling: nothing is decoded, merged or trimmed.
pub fn find<'p>(method: &http::Method, path: &'p str) -> Found<'p> {
    let verb = Verb::of(method);
    for route in ROUTES.iter().filter(|route| verb == Some(route.verb)) {
        if let Some(params) = matches(route.template, path) {
            return Found::Route(route, params);
        }
    }
    let others: Vec<Verb> = ROUTES.iter().filter(|route| matches(route.template, path).is_some()).map(|route| route.verb).collect();
    if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others) }
}

fn matches<'p>(template: &str, path: &'p str) -> Option<[&'p str; PARAMS_MAX]> {
    let mut params = [""; PARAMS_MAX];
    let mut count = 0;
    let mut given = path.split('/');
    for wanted in template.split('/') {
        let segment = given.next()?;
        if !wanted.starts_with('{') {
            if wanted != segment {
                return None;
            }
            continue;
        }
        if segment.is_empty() {
            return None;
        }
        params[count] = segment;
        count += 1;
    }
    given.next().is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn the_table_keeps_its_rules() {
        for (index, route) in ROUTES.iter().enumerate() {
            assert!(route.template.starts_with('/') && !route.template.ends_with('/'), "{}", route.template);
            assert!(route.template.matches('{').count() <= PARAMS_MAX);
            assert!(!ROUTES[..index].contains(route), "{} {} stands twice", route.verb.name(), route.template);
            let guarded = matches!(route.access, Access::Key(_));
            assert_eq!(guarded, route.template.starts_with("/v1/"), "{}: default deny", route.template);
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        let template = |method: Method, path: &'static str| match find(&method, path) {
            Found::Route(route, params) => format!("{} {} {}", route.template, params[0], params[1]),
            Found::OtherMethod(verbs) => verbs.into_iter().map(Verb::name).collect::<Vec<_>>().join(","),
            Found::Nothing => "nothing".to_owned(),
        };
        let cases = [
            (Method::POST, "/hooks/whatsapp/acc_1", "/hooks/{channel}/{account} whatsapp acc_1"),
            (Method::GET, "/v1/messages/batch", "/v1/messages/{id} batch "),
            (Method::POST, "/v1/messages/batch", "/v1/messages/batch  "),
            (Method::PUT, "/v1/messages", "POST,GET"),
            (Method::HEAD, "/hooks/a/b", "GET,POST"),
            (Method::POST, "/hooks/whatsapp", "nothing"),
            (Method::POST, "/hooks/whatsapp/", "nothing"),
            (Method::POST, "/hooks//acc_1", "nothing"),
            (Method::POST, "//hooks/whatsapp/acc_1", "nothing"),
            (Method::POST, "/hooks/whatsapp/acc_1/", "nothing"),
            (Method::POST, "/HOOKS/whatsapp/acc_1", "nothing"),
            (Method::POST, "/v1/./messages", "nothing"),
            (Method::POST, "/v1/%6dessages", "nothing"),
            (Method::GET, "/", "nothing"),
            (Method::GET, "", "nothing"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(template(method.clone(), path), expected, "{method} {path}");
        }
    }
}
