//! Placeholder.
use super::*;
/// Placeholder.
pub struct Whatsapp;
#[allow(unused_variables, clippy::unimplemented)]
impl Channel for Whatsapp {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Whatsapp
    }
    fn fields(&self) -> &'static [AccountField] {
        unimplemented!()
    }
    fn verifier(&self, secrets: &BTreeMap<String, SecretPair>) -> Verifier {
        unimplemented!()
    }
    fn receive(&self, request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
        unimplemented!()
    }
    fn parse(&self, piece: &[u8]) -> Result<Inbound, Malformed> {
        unimplemented!()
    }
    fn window(&self, settings: &ChannelSettings) -> Option<Duration> {
        unimplemented!()
    }
    fn budgets(&self, settings: &ChannelSettings, to: &Handle) -> Vec<Budget> {
        unimplemented!()
    }
    fn refusal_cost(&self) -> RefusalCost {
        unimplemented!()
    }
    fn recipient(&self, to: &Map<String, Value>) -> Result<Handle, Fault> {
        unimplemented!()
    }
    fn short_recipient(&self, to: &str) -> Result<Handle, Fault> {
        unimplemented!()
    }
    fn recipient_json(&self, handle: &Handle) -> Value {
        unimplemented!()
    }
    fn check(&self, content: &Content, to: &Handle) -> Vec<Fault> {
        unimplemented!()
    }
    fn request(&self, send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
        unimplemented!()
    }
    fn outcome(&self, send: &Outgoing<'_>, response: &HttpResponse) -> Verdict {
        unimplemented!()
    }
    fn probe(&self, account: &Account, settings: &ChannelSettings) -> HttpRequest {
        unimplemented!()
    }
    fn settlement(&self) -> Settlement {
        unimplemented!()
    }
}
