//! A webhook request as the fuzzer writes it: header lines, an empty line, the body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Header lines that are read; what is beyond is left out.
const HEADERS_MAX: usize = 32;

/// A request.
#[derive(Clone)]
pub struct Input {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Input {
    /// Lines that are no headers are left out: HTTP would not bring them. Without an empty line all is body.
    pub fn read(bytes: &[u8]) -> Self {
        let mut headers = HeaderMap::new();
        let mut rest = bytes;
        for _ in 0..=HEADERS_MAX {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            if line.is_empty() {
                return Self { headers, body: Bytes::copy_from_slice(behind) };
            }
            rest = behind;
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let value = line[colon + 1..].trim_ascii();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        Self { headers: HeaderMap::new(), body: Bytes::copy_from_slice(bytes) }
    }

    /// The bytes that `read` reads.
    pub fn write(headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in headers {
            out.extend(format!("{name}: {value}\n").into_bytes());
        }
        out.push(b'\n');
        out.extend(body);
        out
    }

    /// Puts a header in place of all of its name.
    pub fn put(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, value.parse().expect("a proof is a header"));
    }
}
