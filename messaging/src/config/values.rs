//! Values as people write them: durations, sizes, rates, networks, addresses. Each parser says what is wrong and how to write it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

/// A value that cannot be used: what it is, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Follows the value: `is no duration`.
    pub what: String,
    /// The cure.
    pub help: String,
}

impl Wrong {
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// Units of time, in nanoseconds.
const TIME_UNITS: &[(&str, u64)] =
    &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000), ("d", 86_400_000_000_000)];

/// Units of size, in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

fn unit(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

/// Splits leading digits off.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Which log lines are written: a level, and levels of modules, such as `info,router=debug`.
pub(super) fn log_filter(text: &str) -> Result<String, Wrong> {
    for part in text.split(',') {
        let (module, level) = part.split_once('=').unwrap_or(("any", part));
        let is_path = !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        if !is_path {
            let help = "write modules by their path and without spaces, such as \"info,router=debug\"";
            return Err(Wrong::new("names no module", help));
        }
        if level.parse::<LevelFilter>().is_err() {
            return Err(Wrong::new(
                "has no level",
                "write off, error, warn, info, debug or trace, such as \"info\" or \"info,router=debug\"",
            ));
        }
    }
    Ok(text.to_owned())
}

/// A duration: numbers with units, such as `5s` or `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = |what: &str| Wrong::new(what, "write a number and a unit (us, ms, s, m, h, d), such as \"5s\" or \"1h30m\"");
    let mut total: u64 = 0;
    let mut rest = text;
    loop {
        let (number, tail) = digits(rest);
        let (name, next) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        if number.is_empty() {
            return Err(wrong("is no duration"));
        }
        if name.is_empty() {
            return Err(wrong("has no unit"));
        }
        let factor = unit(TIME_UNITS, name).ok_or_else(|| wrong("is no duration"))?;
        let part = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| wrong("is too long"))?;
        if next.is_empty() {
            return Ok(Duration::from_nanos(total));
        }
        rest = next;
    }
}

/// A duration in the form that is read, in the largest unit that tells it exactly.
pub(super) fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let exact = TIME_UNITS.iter().rev().find(|(_, unit)| nanos != 0 && nanos.is_multiple_of(u128::from(*unit)));
    exact.map_or_else(|| format!("{}us", nanos.div_ceil(1_000)), |(name, unit)| format!("{}{name}", nanos / u128::from(*unit)))
}

/// A size in bytes: a number with a unit, such as `64MiB`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let wrong = |what: &str| Wrong::new(what, "write a whole number and a unit (B, KiB, MiB, GiB, TiB), such as \"64MiB\"");
    let (number, name) = digits(text);
    if number.is_empty() {
        return Err(wrong("is no size"));
    }
    if name.is_empty() {
        return Err(wrong("has no unit"));
    }
    let factor = unit(SIZE_UNITS, name.trim_start()).ok_or_else(|| wrong("is no size"))?;
    number.parse().ok().and_then(|number: u64| number.checked_mul(factor)).ok_or_else(|| wrong("is too large"))
}

/// A rate in units a second: `80/s`, `1/6s`.
pub(super) fn rate(text: &str) -> Result<f64, Wrong> {
    let wrong = |what: &str| Wrong::new(what, "write a count and a time, such as \"80/s\" or \"1/6s\"");
    let (count, per) = text.split_once('/').ok_or_else(|| wrong("is no rate"))?;
    let count: u32 = count.trim().parse().map_err(|_| wrong("is no rate"))?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per = duration(&per).map_err(|_| wrong("is no rate"))?;
    if count == 0 || per.is_zero() {
        return Err(Wrong::new("is zero", "write a rate above zero; to turn something off, use its own switch"));
    }
    Ok(f64::from(count) / per.as_secs_f64())
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| Wrong::new("is no address", "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\""))
}

/// A network that may be called, on every port or on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedNetwork {
    /// Its first address.
    pub net: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
    /// The only port; none means all.
    pub port: Option<u16>,
}

impl AllowedNetwork {
    /// Whether an address and port are in it. An IPv4 address in IPv6 clothes counts as what it is.
    pub fn contains(&self, ip: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|only| only == port) && self.holds(ip)
    }

    /// Whether an address is in it, whatever the port.
    pub fn holds(&self, ip: IpAddr) -> bool {
        match (self.net, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                leading(net.to_bits().into(), 32, self.prefix) == leading(ip.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => leading(net.to_bits(), 128, self.prefix) == leading(ip.to_bits(), 128, self.prefix),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The leading bits of an address of `width` bits.
fn leading(bits: u128, width: u8, prefix: u8) -> u128 {
    bits.checked_shr(u32::from(width - prefix)).unwrap_or(0)
}

/// A network with or without a port: `10.1.0.0/16:8443`, `127.0.0.0/8`, `[fd00::/8]:443`, `10.0.0.7`.
pub(super) fn network(text: &str) -> Result<AllowedNetwork, Wrong> {
    let wrong =
        |what: &str| Wrong::new(what, "write a network, with a port if need be: \"10.1.0.0/16\", \"10.1.0.0/16:8443\", \"[fd00::/8]:443\"");
    let (network, port) = split_port(text).ok_or_else(|| wrong("is no network"))?;
    let port = port.map(|port| port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("has no valid port"))).transpose()?;
    let (net, prefix) = network.split_once('/').map_or((network, None), |(net, prefix)| (net, Some(prefix)));
    let net: IpAddr = net.parse().map_err(|_| wrong("is no network"))?;
    let width: u8 = if net.is_ipv4() { 32 } else { 128 };
    let prefix: u8 =
        prefix.map_or(Ok(width), str::parse).ok().filter(|prefix| *prefix <= width).ok_or_else(|| wrong("has no valid prefix"))?;
    if prefix == 0 {
        return Err(Wrong::new("is every address", "name the networks that are meant"));
    }
    let first = match net {
        IpAddr::V4(net) => IpAddr::from(std::net::Ipv4Addr::from_bits(net.to_bits() & (u32::MAX << (32 - prefix)))),
        IpAddr::V6(net) => IpAddr::from(std::net::Ipv6Addr::from_bits(net.to_bits() & (u128::MAX << (128 - prefix)))),
    };
    if first != net {
        return Err(Wrong::new("has bits beyond its prefix", format!("write {first}/{prefix}, or {net}/{width} for the one address")));
    }
    Ok(AllowedNetwork { net, prefix, port })
}

/// Splits a port off: in IPv6 only after brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, port) = rest.split_once(']')?;
        return if port.is_empty() { Some((network, None)) } else { Some((network, Some(port.strip_prefix(':')?))) };
    }
    match text.split_once(':') {
        Some((network, port)) if !port.contains(':') => Some((network, Some(port))),
        Some(_) | None => Some((text, None)),
    }
}

/// An http(s) address without query, fragment or credentials; the slash at its end is cut.
pub(super) fn base_url(text: &str) -> Result<String, Wrong> {
    let wrong = |what: &str| Wrong::new(what, "write an address such as \"https://gw.example\"");
    let uri: http::Uri = text.parse().map_err(|_| wrong("is no address"))?;
    if !matches!(uri.scheme_str(), Some("https" | "http")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("is no http or https address"));
    }
    if uri.query().is_some() || text.contains(['#', '@']) {
        return Err(wrong("holds more than scheme, host and path"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [("0s", 0), ("5s", 5_000_000), ("250ms", 250_000), ("1h30m", 5_400_000_000), ("7d", 604_800_000_000), ("10us", 10)];
        for (text, micros) in good {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
            assert_eq!(duration(&show(Duration::from_micros(micros))), duration(text), "{text}");
        }
        let bad = [
            ("", "is no duration"),
            ("5", "has no unit"),
            ("s", "is no duration"),
            ("5 s", "is no duration"),
            ("5sec", "is no duration"),
            ("-5s", "is no duration"),
            ("1.5s", "is no duration"),
            ("1h30", "has no unit"),
            ("99999999999999999999s", "is too long"),
            ("400000d", "is too long"),
        ];
        for (text, what) in bad {
            assert_eq!(duration(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0B", 0), ("512B", 512), ("64KiB", 65_536), ("4MiB", 4 << 20), ("20 GiB", 20 << 30), ("1TiB", 1 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        let bad =
            [("", "is no size"), ("64", "has no unit"), ("64MB", "is no size"), ("MiB", "is no size"), ("99999999TiB", "is too large")];
        for (text, what) in bad {
            assert_eq!(size(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, per_second) in [("80/s", 80.0), ("1/6s", 1.0 / 6.0), ("600/m", 10.0), ("1/1m30s", 1.0 / 90.0), ("5 / s", 5.0)] {
            assert_eq!(rate(text), Ok(per_second), "{text}");
        }
        let bad = [
            ("80", "is no rate"),
            ("/s", "is no rate"),
            ("80/", "is no rate"),
            ("0/s", "is zero"),
            ("1/0s", "is zero"),
            ("-1/s", "is no rate"),
        ];
        for (text, what) in bad {
            assert_eq!(rate(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn networks() {
        let inside = [
            ("10.1.0.0/16:8443", "10.1.255.1", 8443),
            ("127.0.0.0/8", "127.1.2.3", 80),
            ("127.0.0.0/8", "::ffff:127.0.0.1", 80),
            ("10.0.0.7", "10.0.0.7", 1),
            ("10.0.0.7:9", "10.0.0.7", 9),
            ("fd00::/8", "fd12::1", 443),
            ("[fd00::/8]:443", "fd12::1", 443),
            ("[::1]", "::1", 5),
            ("::1/128", "::1", 5),
        ];
        for (text, ip, port) in inside {
            assert!(network(text).unwrap().contains(ip.parse().unwrap(), port), "{text} {ip}");
        }
        let outside = [
            ("10.1.0.0/16:8443", "10.1.0.1", 443),
            ("10.1.0.0/16", "10.2.0.1", 443),
            ("127.0.0.0/8", "::1", 80),
            ("fd00::/8", "fe80::1", 443),
            ("[fd00::/8]:443", "fd12::1", 444),
        ];
        for (text, ip, port) in outside {
            assert!(!network(text).unwrap().contains(ip.parse().unwrap(), port), "{text} {ip}");
        }
        let bad = [
            ("", "is no network"),
            ("localhost", "is no network"),
            ("10.1.0.0/33", "has no valid prefix"),
            ("10.1.0.0/x", "has no valid prefix"),
            ("10.1.0.0/16:0", "has no valid port"),
            ("10.1.0.0/16:99999", "has no valid port"),
            ("[fd00::/8", "is no network"),
            ("[fd00::/8]443", "is no network"),
            ("0.0.0.0/0", "is every address"),
            ("::/0", "is every address"),
            ("10.1.2.3/16", "has bits beyond its prefix"),
        ];
        for (text, what) in bad {
            assert_eq!(network(text).unwrap_err().what, what, "{text}");
        }
        assert_eq!(network("10.1.2.3/16").unwrap_err().help, "write 10.1.0.0/16, or 10.1.2.3/32 for the one address");
    }

    #[test]
    fn addresses_of_the_web() {
        for (text, base) in [
            ("https://gw.example", "https://gw.example"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://a.b/x/", "https://a.b/x"),
        ] {
            assert_eq!(base_url(text), Ok(base.to_owned()), "{text}");
        }
        for text in ["gw.example", "ftp://a", "https://", "https://a?b", "https://u:p@a", "https://a#b", "https://a b"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
