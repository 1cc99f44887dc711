//! Forms, as Mailgun and SendGrid post them: urlencoded or multipart. Bounded; bytes are kept as they came.

use bytes::Bytes;
use percent_encoding::percent_decode;

/// Fields and files of one form.
const PARTS_MAX: usize = 512;
/// Longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Longest head of one part, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A field or file.
pub(super) struct Part {
    /// The field's name.
    pub name: String,
    /// A file's name.
    pub filename: Option<String>,
    /// A file's media type.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A form.
pub(super) struct Form(Vec<Part>);

impl Form {
    /// Reads a body as its `Content-Type` says; none when it is no form.
    pub fn read(content_type: &str, body: &Bytes) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        match kind.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Some(Self(urlencoded(body))),
            "multipart/form-data" => multipart(&boundary(parameters)?, body).map(Self),
            _ => None,
        }
    }

    /// The bytes of the first field of that name.
    pub fn bytes(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|part| part.name == name).map(|part| &part.bytes)
    }

    /// The text of the first field of that name; what is not UTF-8 is replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(|part| part.filename.is_some())
    }
}

fn urlencoded(body: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    for pair in body.split(|byte| *byte == b'&').take(PARTS_MAX) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let name = String::from_utf8_lossy(&decode(&pair[..at])).into_owned();
        let bytes = Bytes::from(decode(pair.get(at + 1..).unwrap_or_default()));
        parts.push(Part { name, filename: None, content_type: None, bytes });
    }
    parts
}

fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

fn boundary(parameters: &str) -> Option<String> {
    let found = parameter(parameters, "boundary")?;
    (!found.is_empty() && found.len() <= BOUNDARY_BYTES_MAX).then_some(found)
}

/// A parameter of a header's value, such as `name="a"`.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (name, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn multipart(boundary: &str, body: &Bytes) -> Option<Vec<Part>> {
    let delimiter = format!("--{boundary}").into_bytes();
    let mut at = find(body, &delimiter, 0)? + delimiter.len();
    let mut parts = Vec::new();
    let inner = [b"\r\n".as_slice(), &delimiter].concat();
    while parts.len() < PARTS_MAX {
        // `--` ends the form; else a line's end begins a part.
        if !body[at..].starts_with(b"\r\n") {
            break;
        }
        at += 2;
        let (head_end, content) = if body[at..].starts_with(b"\r\n") {
            (at, at + 2)
        } else {
            let end = find(body, b"\r\n\r\n", at)?;
            (end, end + 4)
        };
        let end = find(body, &inner, content)?;
        if head_end - at > HEAD_BYTES_MAX {
            return None;
        }
        if let Some(part) = part(&body[at..head_end], body.slice(content..end)) {
            parts.push(part);
        }
        at = end + inner.len();
    }
    Some(parts)
}

fn part(head: &[u8], bytes: Bytes) -> Option<Part> {
    let head = String::from_utf8_lossy(head);
    let mut found = Part { name: String::new(), filename: None, content_type: None, bytes };
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-disposition") {
            let (_, parameters) = value.split_once(';')?;
            found.name = parameter(parameters, "name")?;
            found.filename = parameter(parameters, "filename");
        } else if name.eq_ignore_ascii_case("content-type") {
            found.content_type = Some(value.trim().to_owned());
        }
    }
    (!found.name.is_empty()).then_some(found)
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let tail = haystack.get(from..)?;
    let first = *needle.first()?;
    let mut at = 0;
    // One byte is looked for first: a window at every place would cost a body of megabytes dearly.
    while let Some(step) = tail[at..].iter().position(|byte| *byte == first) {
        at += step;
        if tail[at..].starts_with(needle) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}
