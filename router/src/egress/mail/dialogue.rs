//! One mail over a connection: commands in order, and where it stood when it ended.

use std::error::Error as _;
use std::sync::Mutex;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::response::Response;
use messaging::exchange::{MailReply, MailStep, MailSubmission};
use messaging::seal::Secret;

use super::TEXT_CHARS_MAX;
use crate::egress::ErrorKind;

/// How long a connection may take to become usable again.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a submission stands: read when its time is over.
pub(super) struct Progress(Mutex<(MailStep, bool)>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new((MailStep::Greeting, false)))
    }
}

impl Progress {
    /// The next command goes out.
    pub fn reach(&self, step: MailStep) {
        let mut place = self.0.lock().expect("no holder of the progress panics");
        *place = (step, step == MailStep::Content);
    }
    /// The last command that went out.
    pub fn step(&self) -> MailStep {
        self.0.lock().expect("no holder of the progress panics").0
    }
    /// Whether the mail's end may have left.
    pub fn is_past_content(&self) -> bool {
        self.0.lock().expect("no holder of the progress panics").1
    }
}

/// The connection ended without an answer. The words name no address.
#[derive(Debug)]
pub(super) struct Broken {
    pub kind: ErrorKind,
    pub detail: &'static str,
}

/// What `lettre` calls an error is an answer of the relay's, or none.
pub(super) fn answered(error: Error, step: MailStep, after_data: bool) -> Result<MailReply, Broken> {
    if let Some(code) = error.status() {
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        return Ok(MailReply { code: code.into(), step, text: text.chars().take(TEXT_CHARS_MAX).collect(), after_data });
    }
    if error.is_timeout() {
        return Err(Broken { kind: ErrorKind::Timeout, detail: "the relay did not answer in time" });
    }
    if error.is_client() {
        return Err(Broken { kind: ErrorKind::BadRequest, detail: "the relay offers no way to authenticate that is known" });
    }
    if error.is_response() {
        return Err(Broken { kind: ErrorKind::BadResponse, detail: "the relay broke off, or its answer cannot be read" });
    }
    Err(Broken { kind: ErrorKind::Reset, detail: "the connection to the relay broke" })
}

pub(super) async fn authenticate(connection: &mut AsyncSmtpConnection, user: &str, password: &Secret) -> Result<Response, Error> {
    let credentials = Credentials::new(user.to_owned(), password.expose().to_owned());
    connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await
}

/// Hands over one mail. A refusal of any recipient ends it: then nobody got it, and the whole can be tried again.
pub(super) async fn mail(connection: &mut AsyncSmtpConnection, mail: &MailSubmission, progress: &Progress) -> Result<MailReply, Broken> {
    let unusable = |_| Broken { kind: ErrorKind::BadRequest, detail: "an address cannot be used" };
    progress.reach(MailStep::Sender);
    let from: Address = mail.from.parse().map_err(unusable)?;
    if let Err(error) = connection.command(Mail::new(Some(from), Vec::new())).await {
        return answered(error, MailStep::Sender, false);
    }
    for (at, to) in mail.to.iter().enumerate() {
        let step = if at == 0 { MailStep::Recipient } else { MailStep::Copy };
        progress.reach(step);
        let to: Address = to.parse().map_err(unusable)?;
        if let Err(error) = connection.command(Rcpt::new(to, Vec::new())).await {
            return answered(error, step, false);
        }
    }
    progress.reach(MailStep::Data);
    if let Err(error) = connection.command(Data).await {
        return answered(error, MailStep::Data, false);
    }
    progress.reach(MailStep::Content);
    match connection.message(&mail.message).await {
        Ok(response) => {
            let text: String = response.message().collect::<Vec<_>>().join(" ");
            let text = text.chars().take(TEXT_CHARS_MAX).collect();
            Ok(MailReply { code: response.code().into(), step: MailStep::Content, text, after_data: true })
        }
        Err(error) => answered(error, MailStep::Content, true),
    }
}

/// Whether the connection can take another mail after a refusal.
pub(super) async fn reset(connection: &mut AsyncSmtpConnection) -> bool {
    let reset = tokio::time::timeout(RESET_TIMEOUT, connection.command(Rset)).await;
    matches!(reset, Ok(Ok(_)))
}
