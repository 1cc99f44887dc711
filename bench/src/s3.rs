//! A small S3-compatible store, strict where the real ones are: every request's SigV4 signature is computed anew, digests of bodies
//! must be right, clocks may be off by a quarter of an hour, parts but the last have 5 MiB at least, and lists come in small pages.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{CONTENT_RANGE, ETAG, HeaderName};
use messaging::clock::{SharedClock, Timestamp};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use crate::http::{Reply, Request, Server, reply};
use crate::locked;

/// How far clocks may be off.
const SKEW: Duration = Duration::from_secs(15 * 60);
/// Fewest bytes of a part that is not the last.
const PART_BYTES_MIN: usize = 5 << 20;
/// Entries of a page of a list, whatever is asked for: paging is to be seen.
const PAGE: usize = 5;
/// Objects that it keeps; beyond, none is taken.
const OBJECTS_MAX: usize = 10_000;

/// Who may ask, and for what.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The one bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The access key's id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// Its time.
    pub clock: SharedClock,
}

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, (Bytes, Timestamp)>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    next_upload: u64,
    requests: Vec<String>,
    is_down: bool,
}

/// A running store.
pub struct S3Sim {
    kept: Arc<Mutex<Kept>>,
    server: Server,
}

impl S3Sim {
    /// Starts it on a free port. Errors: the address cannot be bound.
    pub async fn start(options: S3Options) -> io::Result<Self> {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let (shared, options) = (kept.clone(), Arc::new(options));
        let handler = move |request| {
            let (kept, options) = (shared.clone(), options.clone());
            async move { serve(&kept, &options, request).await }
        };
        let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), handler).await?;
        Ok(Self { kept, server })
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The objects' names and bytes.
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        locked(&self.kept).objects.iter().map(|(name, (bytes, _))| (name.clone(), bytes.clone())).collect()
    }

    /// Uploads in parts that were begun and neither completed nor given up.
    pub fn open_uploads(&self) -> usize {
        locked(&self.kept).uploads.len()
    }

    /// Every request so far: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.kept).requests.clone()
    }

    /// From now on it answers 503, or works again.
    pub fn set_down(&self, is_down: bool) {
        locked(&self.kept).is_down = is_down;
    }
}

fn refused(status: u16, code: &str) -> Reply {
    reply(status, "application/xml", format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>simulated</Message></Error>"))
}

fn xml(body: String) -> Reply {
    reply(200, "application/xml", format!("<?xml version=\"1.0\"?>{body}"))
}

async fn serve(kept: &Mutex<Kept>, options: &S3Options, mut request: Request) -> Reply {
    let Ok(body) = request.body().await else { return refused(400, "IncompleteBody") };
    {
        let mut kept = locked(kept);
        kept.requests.push(format!("{} {}?{}", request.method, request.path, request.query));
        if kept.is_down {
            return refused(503, "SlowDown");
        }
    }
    if let Err(code) = check_signature(options, &request, &body) {
        return refused(403, code);
    }
    let Some(key) = request.path.strip_prefix(&format!("/{}", options.bucket)) else { return refused(404, "NoSuchBucket") };
    let key = key.strip_prefix('/').unwrap_or_default().to_owned();
    let query = pairs(&request.query);
    act(&mut locked(kept), options, &request, &key, &query, body)
}

fn act(kept: &mut Kept, options: &S3Options, request: &Request, key: &str, query: &HashMap<String, String>, body: Bytes) -> Reply {
    let upload = query.get("uploadId");
    match (request.method.as_str(), key.is_empty()) {
        ("GET", true) => list(kept, query),
        ("GET", false) => read(kept, key, request.header("range")),
        ("PUT", false) if upload.is_some() => put_part(kept, query, body),
        ("PUT", false) => put(kept, options, key, body),
        ("POST", false) if query.contains_key("uploads") => {
            kept.next_upload += 1;
            let id = format!("up/{}+{}==", kept.next_upload, key.len());
            kept.uploads.insert(id.clone(), BTreeMap::new());
            xml(format!("<InitiateMultipartUploadResult><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        ("POST", false) if upload.is_some() => complete(kept, options, key, query, &body),
        ("DELETE", false) => match upload {
            Some(upload) if kept.uploads.remove(upload).is_none() => refused(404, "NoSuchUpload"),
            Some(_) => reply(204, "application/xml", ""),
            None => {
                kept.objects.remove(key);
                reply(204, "application/xml", "")
            }
        },
        _ => refused(405, "MethodNotAllowed"),
    }
}

fn put(kept: &mut Kept, options: &S3Options, key: &str, bytes: Bytes) -> Reply {
    if kept.objects.len() >= OBJECTS_MAX {
        return refused(507, "QuotaExceeded");
    }
    kept.objects.insert(key.to_owned(), (bytes.clone(), options.clock.now()));
    reply(200, "application/xml", "").with_header(ETAG, &etag(&bytes))
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(bytes)[..16]))
}

fn put_part(kept: &mut Kept, query: &HashMap<String, String>, bytes: Bytes) -> Reply {
    let number = query.get("partNumber").and_then(|number| number.parse().ok()).filter(|number| (1..=10_000).contains(number));
    let (Some(number), Some(upload)) = (number, kept.uploads.get_mut(&query["uploadId"])) else { return refused(404, "NoSuchUpload") };
    upload.insert(number, bytes.clone());
    reply(200, "application/xml", "").with_header(ETAG, &etag(&bytes))
}

fn complete(kept: &mut Kept, options: &S3Options, key: &str, query: &HashMap<String, String>, body: &[u8]) -> Reply {
    let Some(parts) = kept.uploads.get(&query["uploadId"]).cloned() else { return refused(404, "NoSuchUpload") };
    let text = String::from_utf8_lossy(body).replace("&quot;", "\"");
    let expected: String =
        parts.iter().map(|(number, bytes)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag(bytes))).collect();
    if text != format!("<CompleteMultipartUpload>{expected}</CompleteMultipartUpload>") {
        return refused(400, "InvalidPart");
    }
    if parts.values().rev().skip(1).any(|part| part.len() < PART_BYTES_MIN) {
        return refused(400, "EntityTooSmall");
    }
    kept.uploads.remove(&query["uploadId"]);
    let whole: Vec<u8> = parts.values().flat_map(|part| part.iter().copied()).collect();
    put(kept, options, key, Bytes::from(whole));
    xml(format!("<CompleteMultipartUploadResult><Key>{key}</Key></CompleteMultipartUploadResult>"))
}

fn read(kept: &Kept, key: &str, range: Option<&str>) -> Reply {
    let Some((bytes, _)) = kept.objects.get(key) else { return refused(404, "NoSuchKey") };
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return reply(200, "application/octet-stream", bytes.clone());
    };
    let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else { return refused(400, "InvalidArgument") };
    if from >= bytes.len() {
        return refused(416, "InvalidRange");
    }
    let to = to.min(bytes.len() - 1);
    let part = bytes.slice(from..=to);
    reply(206, "application/octet-stream", part).with_header(CONTENT_RANGE, &format!("bytes {from}-{to}/{}", bytes.len()))
}

fn list(kept: &Kept, query: &HashMap<String, String>) -> Reply {
    if query.get("list-type").map(String::as_str) != Some("2") {
        return refused(400, "InvalidArgument");
    }
    let prefix = query.get("prefix").map_or("", String::as_str);
    let after = query.get("continuation-token").map(|token| token.trim_start_matches("t=").to_owned()).unwrap_or_default();
    let mut found = kept.objects.iter().filter(|(key, _)| key.starts_with(prefix) && **key > after);
    let page: Vec<_> = found.by_ref().take(PAGE).collect();
    let mut body = String::from("<ListBucketResult>");
    for (key, (bytes, at)) in &page {
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>&quot;x&quot;</ETag><Size>{}</Size></Contents>",
            bytes.len()
        ));
    }
    if let (Some((last, _)), Some(_)) = (page.last(), found.next()) {
        body.push_str(&format!("<IsTruncated>true</IsTruncated><NextContinuationToken>t={last}</NextContinuationToken>"));
    }
    xml(body + "</ListBucketResult>")
}

fn pairs(query: &str) -> HashMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// AWS Signature Version 4, in the `Authorization` header, over the headers that it names.
fn check_signature(options: &S3Options, request: &Request, body: &[u8]) -> Result<(), &'static str> {
    let authorization = request.header("authorization").ok_or("AccessDenied")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("AccessDenied")?;
    let part = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let (credential, names, signature) =
        (part("Credential").ok_or("AccessDenied")?, part("SignedHeaders").ok_or("AccessDenied")?, part("Signature").ok_or("AccessDenied")?);
    let date = request.header("x-amz-date").filter(|date| date.len() == 16).ok_or("AccessDenied")?;
    let spelled = format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..8], &date[9..11], &date[11..13], &date[13..15]);
    let at: Timestamp = spelled.parse().map_err(|_| "AccessDenied")?;
    let now = options.clock.now();
    if now.since(at).max(at.since(now)) > SKEW {
        return Err("RequestTimeTooSkewed");
    }
    let scope = format!("{}/{}/s3/aws4_request", &date[..8], options.region);
    if credential != format!("{}/{scope}", options.access_key) {
        return Err("InvalidAccessKeyId");
    }
    let digest = HEXLOWER.encode(&Sha256::digest(body));
    if request.header("x-amz-content-sha256") != Some(&digest) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let mut headers = String::new();
    for name in names.split(';') {
        let header = HeaderName::try_from(name).map_err(|_| "AccessDenied")?;
        headers.push_str(&format!("{name}:{}\n", request.header(header.as_str()).ok_or("AccessDenied")?.trim()));
    }
    for needed in ["host", "x-amz-content-sha256", "x-amz-date"] {
        if !names.split(';').any(|name| name == needed) {
            return Err("AccessDenied");
        }
    }
    let mut query: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let canonical = format!("{}\n{}\n{}\n{headers}\n{names}\n{digest}", request.method, request.path, query.join("&"));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", HEXLOWER.encode(&Sha256::digest(canonical.as_bytes())));
    let key = mac(format!("AWS4{}", options.secret_key).as_bytes(), &date[..8]);
    let key = mac(&mac(&mac(&key, &options.region), "s3"), "aws4_request");
    if HEXLOWER.encode(&mac(&key, &to_sign)) == signature { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

#[cfg(test)]
mod tests;
