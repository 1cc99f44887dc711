//! Files in a bucket of an S3-compatible store: path-style, signed with SigV4, by the room's own way out.
//!
//! Written here and not taken from a crate: what is used of S3 is eight requests, and the crates that only sign bring a second URL
//! parser, a second time library and an XML library. Larger files go up in parts, so that none is whole in memory.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, ETAG, HeaderName, HeaderValue, RANGE};
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::directory::blocking;
use super::{BlobError, BlobName, Blobs, Download, IsOver, Listed, Swept};
use crate::BoxFuture;
use crate::clock::{SharedClock, Timestamp};
use crate::exchange::HttpRequest;
use crate::seal::Secret;

/// Bytes of a part. Every part but the last must have 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Most bytes of an answer that is no file: a page of a list.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Entries of a page of a list: the most that S3 gives.
const PAGE: &str = "1000";
/// Pages of one sweep: 100 million files.
const PAGES_MAX: usize = 100_000;
/// How long a request may take, a part's bytes included.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// What stands as it is in a query.
const NOT_IN_QUERIES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Which bucket, and who asks.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The store's address, without a slash at the end.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the names of objects begin with; empty, or without a slash at either end.
    pub prefix: String,
    /// The access key's id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

/// A bucket.
pub struct S3Blobs {
    settings: S3Settings,
    spool: PathBuf,
    download: Arc<dyn Download>,
    clock: SharedClock,
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl S3Blobs {
    /// A bucket; files are written in `spool` before they go up. Asks nothing yet.
    ///
    /// # Errors
    /// When the spool cannot be made.
    pub fn open(settings: S3Settings, spool: &Path, download: Arc<dyn Download>, clock: SharedClock) -> io::Result<Self> {
        std::fs::create_dir_all(spool)?;
        Ok(Self { settings, spool: spool.to_owned(), download, clock })
    }

    fn key(&self, name: BlobName) -> String {
        let (prefix, path) = (&self.settings.prefix, name.path());
        if prefix.is_empty() { path } else { format!("{prefix}/{path}") }
    }

    /// One request. `key`: of an object; empty for the bucket. At most `max` bytes of the answer are read.
    async fn call(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        range: Option<String>,
        body: Bytes,
        max: usize,
    ) -> Result<Answered, BlobError> {
        let request = self.signed(method, key, query, range, body);
        let away = |what: &dyn std::fmt::Display| BlobError::Unavailable(what.to_string());
        let mut answer = self.download.open(request, CALL_TIMEOUT).await.map_err(|error| away(&error))?;
        let mut read = BytesMut::new();
        while let Some(piece) = answer.body.next().await {
            read.extend_from_slice(&piece.map_err(|error| away(&error))?);
            if read.len() > max {
                return Err(BlobError::Damaged("an answer is longer than what was asked for"));
            }
        }
        Ok(Answered { status: answer.status, headers: answer.headers, body: read.freeze() })
    }

    fn signed(&self, method: Method, key: &str, query: &[(&str, &str)], range: Option<String>, body: Bytes) -> HttpRequest {
        let settings = &self.settings;
        let (scheme, rest) = settings.endpoint.split_once("://").unwrap_or(("https", &settings.endpoint));
        let (authority, base) = rest.split_once('/').map_or((rest, String::new()), |(authority, path)| (authority, format!("/{path}")));
        let default = if scheme == "http" { ":80" } else { ":443" };
        let host = authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase();
        let path = match key {
            "" => format!("{base}/{}", settings.bucket),
            key => format!("{base}/{}/{key}", settings.bucket),
        };
        let mut pairs: Vec<(String, String)> = query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
        pairs.sort();
        let query = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        // 2026-11-20T10:00:00.123456Z
        let time = self.clock.now().to_string();
        let stamp = format!("{}Z", time[..19].replace(['-', ':'], ""));
        let payload = HEXLOWER.encode(&Sha256::digest(&body));
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n\n\
             host;x-amz-content-sha256;x-amz-date\n{payload}"
        );
        let scope = format!("{}/{}/s3/aws4_request", &stamp[..8], settings.region);
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", HEXLOWER.encode(&Sha256::digest(canonical.as_bytes())));
        let first = format!("AWS4{}", settings.secret_key.expose());
        let key = [&stamp[..8], &settings.region, "s3", "aws4_request"].iter().fold(first.into_bytes(), |key, part| mac(&key, part));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={}",
            settings.access_key,
            HEXLOWER.encode(&mac(&key, &to_sign))
        );
        let value = |text: &str| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let mut headers = vec![(CONTENT_SHA256, value(&payload)), (DATE, value(&stamp)), (AUTHORIZATION, value(&authorization))];
        headers.extend(range.map(|range| (RANGE, value(&range))));
        let question = if query.is_empty() { "" } else { "?" };
        HttpRequest { method, url: format!("{scheme}://{authority}{path}{question}{query}"), headers, body }
    }

    async fn put_whole(&self, key: &str, file: &Path) -> Result<(), BlobError> {
        let bytes = part_of(file, 0).await?;
        good(self.call(Method::PUT, key, &[], None, bytes, ANSWER_BYTES_MAX).await?).map(drop)
    }

    async fn put_parts(&self, key: &str, file: &Path, bytes: u64) -> Result<(), BlobError> {
        let begun = good(self.call(Method::POST, key, &[("uploads", "")], None, Bytes::new(), ANSWER_BYTES_MAX).await?)?;
        let upload = text_of(&begun.body, "UploadId").ok_or(BlobError::Damaged("an upload without an id"))?;
        let put = self.put_each(key, file, bytes, &upload).await;
        if put.is_err() {
            // What is left of it is kept and paid for until it is given up.
            let _ = self.call(Method::DELETE, key, &[("uploadId", &upload)], None, Bytes::new(), ANSWER_BYTES_MAX).await;
        }
        put
    }

    async fn put_each(&self, key: &str, file: &Path, bytes: u64, upload: &str) -> Result<(), BlobError> {
        let mut list = String::from("<CompleteMultipartUpload>");
        for number in 1..=bytes.div_ceil(PART_BYTES as u64) {
            let part = part_of(file, (number - 1) * PART_BYTES as u64).await?;
            let number = number.to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", upload)];
            let put = good(self.call(Method::PUT, key, &query, None, part, ANSWER_BYTES_MAX).await?)?;
            let etag = put.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).ok_or(BlobError::Damaged("a part without an ETag"))?;
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;")));
        }
        list.push_str("</CompleteMultipartUpload>");
        let done = self.call(Method::POST, key, &[("uploadId", upload)], None, Bytes::from(list), ANSWER_BYTES_MAX).await?;
        // This one fails with 200 too: the head goes out before the work is done.
        if done.body.windows(7).any(|window| window == b"<Error>") {
            return Err(BlobError::Unavailable("the parts were not put together".to_owned()));
        }
        good(done).map(drop)
    }

    async fn look(&self, is_over: &IsOver) -> Result<Swept, BlobError> {
        let mut swept = Swept::default();
        let prefix = if self.settings.prefix.is_empty() { String::new() } else { format!("{}/", self.settings.prefix) };
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![("list-type", "2"), ("max-keys", PAGE), ("prefix", &prefix)];
            if let Some(next) = &next {
                query.push(("continuation-token", next));
            }
            let page = good(self.call(Method::GET, "", &query, None, Bytes::new(), ANSWER_BYTES_MAX).await?)?;
            let text = String::from_utf8_lossy(&page.body).into_owned();
            for entry in text.split("<Contents>").skip(1) {
                let Some(listed) = listed(entry.as_bytes(), &prefix) else { continue };
                if is_over(&listed) {
                    self.delete(listed.name).await?;
                    swept.deleted += 1;
                } else {
                    swept.kept_bytes += listed.bytes;
                }
            }
            next = text_of(&page.body, "NextContinuationToken");
            if next.is_none() {
                break;
            }
        }
        Ok(swept)
    }
}

impl Blobs for S3Blobs {
    fn spool(&self) -> &Path {
        &self.spool
    }

    fn put<'a>(&'a self, name: BlobName, file: &'a Path, _at: Timestamp) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            let (key, path) = (self.key(name), file.to_owned());
            let bytes = blocking(move || Ok(std::fs::metadata(path)?.len())).await?;
            if bytes <= PART_BYTES as u64 { self.put_whole(&key, file).await } else { self.put_parts(&key, file, bytes).await }
        })
    }

    fn read(&self, name: BlobName, from: u64, len: usize) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
        Box::pin(async move {
            let range = format!("bytes={from}-{}", from + (len as u64).max(1) - 1);
            let answer = self.call(Method::GET, &self.key(name), &[], Some(range), Bytes::new(), len.max(ANSWER_BYTES_MAX)).await?;
            match answer.status {
                206 if answer.body.len() <= len => Ok(Some(answer.body)),
                // It ends before that place.
                416 => Ok(Some(Bytes::new())),
                404 => Ok(None),
                _ => good(answer).and(Err(BlobError::Damaged("the store gives no parts of files"))),
            }
        })
    }

    fn delete(&self, name: BlobName) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            let answer = self.call(Method::DELETE, &self.key(name), &[], None, Bytes::new(), ANSWER_BYTES_MAX).await?;
            if answer.status == 404 { Ok(()) } else { good(answer).map(drop) }
        })
    }

    fn sweep(&self, is_over: IsOver) -> BoxFuture<'_, Result<Swept, BlobError>> {
        Box::pin(async move { self.look(&is_over).await })
    }
}

fn good(answer: Answered) -> Result<Answered, BlobError> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let code = text_of(&answer.body, "Code").filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric())).unwrap_or_default();
    Err(BlobError::Unavailable(format!("status {} {code}", answer.status)))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_QUERIES).to_string()
}

/// A part of a file, from a place on.
async fn part_of(file: &Path, from: u64) -> Result<Bytes, BlobError> {
    let path = file.to_owned();
    blocking(move || {
        use std::io::Seek as _;
        let mut file = std::fs::File::open(path)?;
        file.seek(io::SeekFrom::Start(from))?;
        let mut part = Vec::new();
        file.take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok(Bytes::from(part))
    })
    .await
}

/// The text of the first element of that name. The elements that are read here hold no others, and no text of strangers.
fn text_of(xml: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(xml).ok()?;
    let from = text.find(&format!("<{name}>"))? + name.len() + 2;
    let to = from + text[from..].find(&format!("</{name}>"))?;
    Some(text[from..to].replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

fn listed(entry: &[u8], prefix: &str) -> Option<Listed> {
    Some(Listed {
        name: BlobName::from_path(text_of(entry, "Key")?.strip_prefix(prefix)?)?,
        bytes: text_of(entry, "Size")?.parse().ok()?,
        at: text_of(entry, "LastModified")?.parse().ok()?,
    })
}
