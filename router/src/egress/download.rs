//! The door as the media room sees it.

use std::time::Duration;

use messaging::BoxFuture;
use messaging::exchange::HttpRequest;
use messaging::media::{Answer, Download, DownloadError};

use super::{BadUrl, CallError, Door, ErrorKind};

impl Download for Door {
    fn open(&self, request: HttpRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, DownloadError>> {
        Box::pin(async move {
            let client = self.client(&request.url).map_err(|error| match error {
                BadUrl::Blocked(_) => DownloadError::Blocked,
                BadUrl::TooLong
                | BadUrl::Scheme
                | BadUrl::Character
                | BadUrl::UserInfo
                | BadUrl::Fragment
                | BadUrl::Host
                | BadUrl::NumericHost
                | BadUrl::Port => DownloadError::Address,
            })?;
            let streamed = client.open(request, deadline).await.map_err(|error| meaning(&error))?;
            let (status, headers) = (streamed.status, streamed.headers.clone());
            let body = futures_util::stream::unfold(streamed, |mut streamed| async move {
                let piece = streamed.next().await?;
                Some((piece.map_err(|error| meaning(&error)), streamed))
            });
            Ok(Answer { status, headers, body: Box::pin(body) })
        })
    }
}

fn meaning(error: &CallError) -> DownloadError {
    match error.kind {
        ErrorKind::BadRequest => DownloadError::Address,
        ErrorKind::Blocked => DownloadError::Blocked,
        ErrorKind::Resolve | ErrorKind::Connect | ErrorKind::Tls => DownloadError::Connect,
        ErrorKind::Timeout => DownloadError::Timeout,
        ErrorKind::Reset | ErrorKind::BadResponse => DownloadError::Broken,
    }
}
