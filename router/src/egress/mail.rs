//! Submission of mail to a relay.
//!
//! NOT FILLED YET: every submission ends before anything was written. (With `lettre`: features `builder`, `smtp-transport`, `pool`,
//! `tokio1-rustls`, `ring`, `webpki-roots`; the address is to be resolved and checked by the door's policy as for requests.)

use std::time::Duration;

use messaging::exchange::{MailReply, MailSubmission};

use super::{CallError, Door, ErrorKind};

/// Hands a mail to its relay.
///
/// # Errors
/// When there is no answer; `after_data` decides whether the mail may have been taken.
pub async fn submit(_door: &Door, _mail: MailSubmission, _timeout: Duration) -> Result<MailReply, CallError> {
    Err(CallError::before(ErrorKind::Connect, "submission of mail is not filled yet"))
}
