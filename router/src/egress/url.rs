//! Which URLs may be called, and what they name. Pure. One spelling per host: whatever another parser could read as another
//! host is refused rather than guessed at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::guard::{Blocked, Policy};

/// The longest URL in bytes.
pub const URL_BYTES_MAX: usize = 8 * 1024;
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A destination: everything that two requests must share to share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whether it is called with TLS.
    pub tls: bool,
    /// Whom.
    pub host: Host,
    /// On which port.
    pub port: u16,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name in lower case without a dot at the end: to be resolved.
    Name(String),
    /// A literal.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    /// As it stands in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl Target {
    /// The value of the `Host` header: the port is named when it is not the scheme's own.
    pub fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (true | false, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Why a URL is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// More than [`URL_BYTES_MAX`].
    #[error("the URL is longer than 8192 bytes")]
    TooLong,
    /// Not `http://` or `https://`.
    #[error("the URL must begin with https:// or http://")]
    Scheme,
    /// Spaces, control characters, backslashes or anything beyond ASCII.
    #[error("the URL holds characters that must be percent-encoded, or punycode in a host name")]
    Character,
    /// `user:password@`.
    #[error("the URL must not hold a user name or password")]
    UserInfo,
    /// `#…`
    #[error("the URL must not hold a fragment")]
    Fragment,
    /// No host, or not a host name or address.
    #[error("the URL's host is not a host name or address")]
    Host,
    /// An IPv4 address in another spelling than four decimal numbers.
    #[error("the URL's host is a number: write an IPv4 address as four decimal numbers")]
    NumericHost,
    /// Not a number from 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// It could be called, but it may not.
    #[error("{0}")]
    Blocked(#[from] Blocked),
}

impl Policy {
    /// Whether this URL may be called, as far as can be told without resolving its host; the destination that it names.
    /// Where the allow-list could let a name through, the verdict is left to the addresses that it resolves to.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(&self, url: &str) -> Result<Target, BadUrl> {
        let (target, _) = split(url)?;
        self.check_target(&target)?;
        Ok(target)
    }

    /// The part of [`Policy::check_url`] that asks the policy.
    pub(super) fn check_target(&self, target: &Target) -> Result<(), Blocked> {
        let &Target { tls, ref host, port } = target;
        match host {
            Host::Ip(ip) => self.check_call(tls, *ip, port),
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => self
                .check_call(tls, Ipv4Addr::LOCALHOST.into(), port)
                .or_else(|blocked| self.check_call(tls, Ipv6Addr::LOCALHOST.into(), port).map_err(|_| blocked)),
            Host::Name(_) if self.may_allow_port(port) => Ok(()),
            Host::Name(_) if !self.ports.contains(&port) => Err(Blocked::Port),
            Host::Name(_) if !tls && !self.allow_http => Err(Blocked::PlainHttp),
            Host::Name(_) => Ok(()),
        }
    }
}

/// Splits an absolute URL into its destination and the rest (path and query; empty, or begins with `/` or `?`).
pub(super) fn split(url: &str) -> Result<(Target, &str), BadUrl> {
    if url.len() > URL_BYTES_MAX {
        return Err(BadUrl::TooLong);
    }
    let (tls, after_scheme) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some(_) | None => return Err(BadUrl::Scheme),
    };
    let authority_end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(authority_end);
    check_rest(rest)?;
    // A backslash is a slash to some parsers and part of the authority to others.
    if authority.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return Err(BadUrl::Character);
    }
    if authority.contains('@') {
        return Err(BadUrl::UserInfo);
    }
    let (host, port) = split_port(authority)?;
    let host = match host.strip_prefix('[') {
        Some(literal) => Host::Ip(literal.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok()).ok_or(BadUrl::Host)?.into()),
        None => name_or_v4(host)?,
    };
    let port = match port {
        Some(port) => port,
        None if tls => 443,
        None => 80,
    };
    Ok((Target { tls, host, port }, rest))
}

/// What stands behind the authority may be any printable ASCII but a fragment.
fn check_rest(rest: &str) -> Result<(), BadUrl> {
    if rest.contains('#') {
        return Err(BadUrl::Fragment);
    }
    if rest.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return Err(BadUrl::Character);
    }
    Ok(())
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), BadUrl> {
    // The colons inside an IPv6 literal are not the port's.
    let host_end = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority[host_end..].find(':') else { return Ok((authority, None)) };
    let (host, port) = authority.split_at(host_end + colon);
    let digits = &port[1..];
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadUrl::Port);
    }
    match digits.parse::<u16>() {
        Ok(0) | Err(_) => Err(BadUrl::Port),
        Ok(port) => Ok((host, Some(port))),
    }
}

fn name_or_v4(host: &str) -> Result<Host, BadUrl> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err(BadUrl::Host);
    }
    for label in host.split('.') {
        let fits = !label.is_empty() && label.len() <= LABEL_BYTES_MAX;
        // Underscores are no host names by the book, but they resolve and are in use.
        let clean = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !fits || !clean || label.starts_with('-') || label.ends_with('-') {
            return Err(BadUrl::Host);
        }
    }
    // The rule of the URL standard: a host whose last label is a number is an IPv4 address. It also allows octal,
    // hexadecimal and shortened ones, which we refuse: nobody but an attacker writes them.
    let last = host.rsplit('.').next().unwrap_or(host);
    if is_number(last) {
        return host.parse::<Ipv4Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| BadUrl::NumericHost);
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit()) || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::guard::AllowedNetwork;

    const BLOCKED_PORT: BadUrl = BadUrl::Blocked(Blocked::Port);
    const BLOCKED_HTTP: BadUrl = BadUrl::Blocked(Blocked::PlainHttp);
    const LOOPBACK: BadUrl = BadUrl::Blocked(Blocked::Loopback);

    #[test]
    fn hostile_urls_are_refused() {
        let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
        let long_label = format!("https://{}.com/", "a".repeat(64));
        let long_host = format!("https://{}com/", "abcdefg.".repeat(32));
        let refused: &[(&str, BadUrl)] = &[
            (&long, BadUrl::TooLong),
            (&long_label, BadUrl::Host),
            (&long_host, BadUrl::Host),
            ("", BadUrl::Scheme),
            ("/hook", BadUrl::Scheme),
            ("//example.com/", BadUrl::Scheme),
            ("example.com", BadUrl::Scheme),
            ("https:/example.com", BadUrl::Scheme),
            ("https:example.com", BadUrl::Scheme),
            (" https://example.com/", BadUrl::Scheme),
            ("ftp://example.com/", BadUrl::Scheme),
            ("file:///etc/passwd", BadUrl::Scheme),
            ("gopher://127.0.0.1:6379/_x", BadUrl::Scheme),
            ("javascript:alert(1)", BadUrl::Scheme),
            ("data:text/plain,x", BadUrl::Scheme),
            ("unix:///var/run/docker.sock", BadUrl::Scheme),
            ("https://", BadUrl::Host),
            ("https:///path", BadUrl::Host),
            ("https://?q", BadUrl::Host),
            ("https://./", BadUrl::Host),
            ("https://example..com/", BadUrl::Host),
            ("https://example.com../", BadUrl::Host),
            ("https://.example.com/", BadUrl::Host),
            ("https://-a.com/", BadUrl::Host),
            ("https://a-.com/", BadUrl::Host),
            ("https://exa*mple.com/", BadUrl::Host),
            ("https://user@example.com/", BadUrl::UserInfo),
            ("https://user:pw@example.com/", BadUrl::UserInfo),
            ("https://example.com@127.0.0.1/", BadUrl::UserInfo),
            ("https://127.0.0.1:443@example.com/", BadUrl::UserInfo),
            ("https://example.com\\@127.0.0.1/", BadUrl::Character),
            ("https://example.com\\.evil.net/", BadUrl::Character),
            ("https://127.0.0.1\\example.com/", BadUrl::Character),
            ("https://exam ple.com/", BadUrl::Character),
            ("https://example.com\t/", BadUrl::Character),
            ("https://example.com\r\nHost: x/", BadUrl::Character),
            ("https://example.com/\r\nX-Injected: 1", BadUrl::Character),
            ("https://example.com/a b", BadUrl::Character),
            ("https://example.com/\u{0}", BadUrl::Character),
            ("https://example.com/ü", BadUrl::Character),
            ("https://bücher.example/", BadUrl::Character),
            ("https://ⓔxample.com/", BadUrl::Character),
            ("https://１２７.０.０.１/", BadUrl::Character),
            ("https://127。0。0。1/", BadUrl::Character),
            ("https://example.com/#frag", BadUrl::Fragment),
            ("https://example.com#@127.0.0.1/", BadUrl::Fragment),
            ("https://%31%32%37.0.0.1/", BadUrl::Host),
            ("https://127.0.0.%31/", BadUrl::Host),
            ("https://example%2ecom/", BadUrl::Host),
            ("https://localhost%00.example.com/", BadUrl::Host),
            // IPv4 in other spellings.
            ("https://2130706433/", BadUrl::NumericHost),
            ("https://017700000001/", BadUrl::NumericHost),
            ("https://0x7f000001/", BadUrl::NumericHost),
            ("https://0x7F.0.0.1/", BadUrl::NumericHost),
            ("https://0X7f.1/", BadUrl::NumericHost),
            ("https://0177.0.0.1/", BadUrl::NumericHost),
            ("https://127.0.0.01/", BadUrl::NumericHost),
            ("https://127.1/", BadUrl::NumericHost),
            ("https://127.0.1/", BadUrl::NumericHost),
            ("https://0/", BadUrl::NumericHost),
            ("https://0x/", BadUrl::NumericHost),
            ("https://127.0.0.0x1/", BadUrl::NumericHost),
            ("https://256.1.1.1/", BadUrl::NumericHost),
            ("https://1.2.3.4.5/", BadUrl::NumericHost),
            ("https://8.8.8.8.0x8/", BadUrl::NumericHost),
            ("https://4294967296/", BadUrl::NumericHost),
            // Literals.
            ("https://127.0.0.1/", LOOPBACK),
            ("https://127.0.0.1./", LOOPBACK),
            ("https://[::1]/", LOOPBACK),
            ("https://[::ffff:127.0.0.1]/", LOOPBACK),
            ("https://[::ffff:7f00:1]/", LOOPBACK),
            ("https://[0:0:0:0:0:0:0:1]/", LOOPBACK),
            ("https://[::]/", BadUrl::Blocked(Blocked::Unspecified)),
            ("https://[64:ff9b::7f00:1]/", BadUrl::Blocked(Blocked::Wrapped)),
            ("https://[fe80::1%25eth0]/", BadUrl::Host),
            ("https://[fe80::1]/", BadUrl::Blocked(Blocked::LinkLocal)),
            ("https://[::1/", BadUrl::Port),
            ("https://::1/", BadUrl::Port),
            ("https://[::1]x/", BadUrl::Host),
            ("https://[127.0.0.1]/", BadUrl::Host),
            ("https://[v1.x]/", BadUrl::Host),
            ("https://10.0.0.1/", BadUrl::Blocked(Blocked::Private)),
            ("https://169.254.169.254/latest/meta-data/", BadUrl::Blocked(Blocked::LinkLocal)),
            ("https://localhost/", LOOPBACK),
            ("https://LOCALHOST./", LOOPBACK),
            ("https://x.localhost/", LOOPBACK),
            // Ports.
            ("https://example.com:/", BadUrl::Port),
            ("https://example.com:0/", BadUrl::Port),
            ("https://example.com:65536/", BadUrl::Port),
            ("https://example.com:+443/", BadUrl::Port),
            ("https://example.com:44x/", BadUrl::Port),
            ("https://example.com:443:443/", BadUrl::Port),
            ("https://example.com:000443/", BadUrl::Port),
            ("https://example.com:22/", BLOCKED_PORT),
            ("https://example.com:6379/", BLOCKED_PORT),
            ("https://8.8.8.8:25/", BLOCKED_PORT),
            ("http://example.com/", BLOCKED_HTTP),
            ("http://8.8.8.8/", BLOCKED_HTTP),
        ];
        assert!(refused.len() >= 70);
        for (url, expected) in refused {
            assert_eq!(Policy::default().check_url(url), Err(*expected), "{url:?}");
        }
    }

    #[test]
    fn good_urls_name_their_destination() {
        let cases: &[(&str, bool, &str, u16, &str)] = &[
            ("https://example.com", true, "example.com", 443, "example.com"),
            ("HTTPS://Example.COM/Hook?x=1", true, "example.com", 443, "example.com"),
            ("https://example.com./hook", true, "example.com", 443, "example.com"),
            ("https://example.com:443/", true, "example.com", 443, "example.com"),
            ("https://example.com:8443?x", true, "example.com", 8443, "example.com:8443"),
            ("https://xn--bcher-kva.example/", true, "xn--bcher-kva.example", 443, "xn--bcher-kva.example"),
            ("https://my_hook.example.com/%20", true, "my_hook.example.com", 443, "my_hook.example.com"),
            ("https://1.example.com/", true, "1.example.com", 443, "1.example.com"),
            ("https://graph.facebook.com/v23.0/1/messages", true, "graph.facebook.com", 443, "graph.facebook.com"),
            ("https://api.telegram.org/bot1:aA-_/sendMessage", true, "api.telegram.org", 443, "api.telegram.org"),
            ("https://8.8.8.8/", true, "8.8.8.8", 443, "8.8.8.8"),
            ("https://[2606:4700::1111]:8443/", true, "[2606:4700::1111]", 8443, "[2606:4700::1111]:8443"),
            ("https://example.com:80/", true, "example.com", 80, "example.com:80"),
        ];
        for &(url, tls, host, port, authority) in cases {
            let target = Policy::default().check_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((target.tls, target.host.to_string().as_str(), target.port), (tls, host, port), "{url}");
            assert_eq!(target.authority(), authority, "{url}");
        }
    }

    #[test]
    fn the_allow_list_and_allow_http_open_what_they_name() {
        let dev = Policy { allow: AllowedNetwork::LOOPBACK.to_vec(), ..Policy::default() };
        for url in
            ["http://127.0.0.1:3000/", "http://localhost:3000/", "http://[::1]:3000/", "https://localhost/", "http://hook.localhost:1/"]
        {
            assert!(dev.check_url(url).is_ok(), "{url}");
        }
        assert_eq!(dev.check_url("http://10.0.0.1:3000/"), Err(BadUrl::Blocked(Blocked::Private)));
        assert_eq!(dev.check_url("http://8.8.8.8/"), Err(BLOCKED_HTTP));

        let inside = Policy { allow: vec!["10.1.0.0/16:8080".parse().unwrap()], ..Policy::default() };
        assert!(inside.check_url("http://crm:8080/").is_ok(), "what it resolves to decides");
        assert_eq!(inside.check_url("http://crm:8081/"), Err(BLOCKED_PORT));
        assert_eq!(inside.check_url("http://crm/"), Err(BLOCKED_HTTP));

        let open = Policy { allow_http: true, ..Policy::default() };
        assert!(open.check_url("http://example.com/").is_ok());
        assert_eq!(open.check_url("http://127.0.0.1/"), Err(LOOPBACK));
        assert_eq!(open.check_url("http://example.com:8080/"), Err(BLOCKED_PORT));
    }
}
