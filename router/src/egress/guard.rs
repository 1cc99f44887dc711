//! Which addresses may be called. Pure: the same question gets the same answer, and nothing here touches a network.
//!
//! Only public unicast addresses pass, judged by the IANA special-purpose registries; the operator's allow-list is the
//! one way around. Every form of an IPv4 address inside an IPv6 address is either judged as that IPv4 address or refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network that the operator allows although it is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedNetwork {
    /// An address of the network.
    pub net: IpAddr,
    /// How many leading bits count. More bits than the family has: covers nothing.
    pub prefix: u8,
    /// Only this port; none means every port.
    pub port: Option<u16>,
}

impl AllowedNetwork {
    /// This machine, every port: for development and tests.
    pub const LOOPBACK: [Self; 2] = [
        Self { net: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8, port: None },
        Self { net: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128, port: None },
    ];

    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match (self.net, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) if self.prefix <= 32 => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) if self.prefix <= 128 => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
        }
    }

    /// Whether the network's address has bits behind its prefix: most likely a slip of the operator.
    fn has_host_bits(&self) -> bool {
        match self.net {
            IpAddr::V4(net) => net.to_bits().checked_shl(u32::from(self.prefix)).unwrap_or(0) != 0,
            IpAddr::V6(net) => net.to_bits().checked_shl(u32::from(self.prefix)).unwrap_or(0) != 0,
        }
    }
}

/// The ports of public relays that mail is submitted to; port 25 is between relays.
const MAIL_PORTS: [u16; 5] = [465, 587, 2465, 2525, 2587];

/// Text that is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// Not of the form.
    #[error("not a network such as 10.1.0.0/16, 10.1.2.3:8443, 10.1.0.0/16:8443 or [fd00::]/8:8443")]
    Form,
    /// The prefix is longer than the address.
    #[error("the prefix is longer than the address: at most 32 for IPv4 and 128 for IPv6")]
    Prefix,
    /// The address has bits that the prefix does not cover.
    #[error("the address has bits set behind its prefix: write the first address of the network")]
    HostBits,
}

impl FromStr for AllowedNetwork {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or(BadNetwork::Form)?,
            None => match text.find('/') {
                Some(at) => text.split_at(at),
                // Without a slash a colon is a port only when the text is not an IPv6 address as a whole.
                None if text.parse::<Ipv6Addr>().is_ok() => (text, ""),
                None => text.split_at(text.find(':').unwrap_or(text.len())),
            },
        };
        let net: IpAddr = address.parse().map_err(|_| BadNetwork::Form)?;
        let (prefix, port) = match rest.split_once(':') {
            Some((prefix, port)) => (prefix, Some(port.parse().map_err(|_| BadNetwork::Form)?)),
            None => (rest, None),
        };
        let longest = if net.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix.strip_prefix('/') {
            Some(digits) => digits.parse().map_err(|_| BadNetwork::Form)?,
            None if prefix.is_empty() => longest,
            None => return Err(BadNetwork::Form),
        };
        if prefix > longest {
            return Err(BadNetwork::Prefix);
        }
        let network = Self { net, prefix, port };
        if network.has_host_bits() {
            return Err(BadNetwork::HostBits);
        }
        Ok(network)
    }
}

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Networks that may be called although they are not public, on any port unless they name one, also without TLS.
    pub allow: Vec<AllowedNetwork>,
    /// Whether public addresses may be called without TLS.
    pub allow_http: bool,
    /// The ports of public addresses that may be called.
    pub ports: Vec<u16>,
}

impl Default for Policy {
    /// Public addresses only, TLS only.
    fn default() -> Self {
        Self { allow: Vec::new(), allow_http: false, ports: vec![443, 80, 8443] }
    }
}

/// Why an address is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Blocked {
    /// `0.0.0.0/8`, `::`.
    #[error("the address is unspecified")]
    Unspecified,
    /// This machine.
    #[error("the address is loopback")]
    Loopback,
    /// A private network, unique-local and site-local included.
    #[error("the address is in a private network")]
    Private,
    /// Link-local: clouds serve credentials there.
    #[error("the address is link-local")]
    LinkLocal,
    /// Carrier-grade NAT, `100.64.0.0/10`.
    #[error("the address is in the shared space of carriers")]
    SharedNat,
    /// Multicast and broadcast.
    #[error("the address is multicast or broadcast")]
    Multicast,
    /// Documentation, benchmarking, protocol assignments, and what is not assigned to anybody.
    #[error("the address is reserved")]
    Reserved,
    /// An IPv4 address wrapped in a way that public servers do not use.
    #[error("the address wraps another address")]
    Wrapped,
    /// Public by number, but a cloud's own service for its machines.
    #[error("the address is a cloud's internal service")]
    CloudInternal,
    /// Not a port that may be called.
    #[error("the port is not allowed")]
    Port,
    /// No TLS.
    #[error("http without TLS is not allowed")]
    PlainHttp,
    /// No TLS.
    #[error("mail without TLS goes to loopback only")]
    PlainMail,
}

impl Policy {
    /// Whether this address may be called on this port.
    ///
    /// # Errors
    /// Why not.
    pub fn check_address(&self, ip: IpAddr, port: u16) -> Result<(), Blocked> {
        let ip = canonical(ip);
        if self.allows(ip, port) {
            return Ok(());
        }
        check_public(ip)?;
        if !self.ports.contains(&port) {
            return Err(Blocked::Port);
        }
        Ok(())
    }

    /// Whether this address may be called on this port with or without TLS. Allow-listed networks need no TLS.
    ///
    /// # Errors
    /// Why not.
    pub fn check_call(&self, tls: bool, ip: IpAddr, port: u16) -> Result<(), Blocked> {
        self.check_address(ip, port)?;
        if tls || self.allow_http || self.allows(canonical(ip), port) {
            return Ok(());
        }
        Err(Blocked::PlainHttp)
    }

    /// Whether mail may be submitted to this address on this port. Without TLS only to this machine, when it is allow-listed.
    ///
    /// # Errors
    /// Why not.
    pub fn check_mail(&self, tls: bool, ip: IpAddr, port: u16) -> Result<(), Blocked> {
        let ip = canonical(ip);
        if !tls && !ip.is_loopback() {
            return Err(Blocked::PlainMail);
        }
        if self.allows(ip, port) {
            return Ok(());
        }
        check_public(ip)?;
        if MAIL_PORTS.contains(&port) { Ok(()) } else { Err(Blocked::Port) }
    }

    fn allows(&self, ip: IpAddr, port: u16) -> bool {
        self.allow.iter().any(|network| network.covers(ip, port))
    }

    /// Whether the allow-list could let some address through on this port.
    pub(super) fn may_allow_port(&self, port: u16) -> bool {
        self.allow.iter().any(|network| network.port.is_none_or(|only| only == port))
    }
}

/// The form that is judged and dialled: IPv4-mapped addresses as the IPv4 address that the kernel would dial for them.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Refuses everything but public unicast addresses.
fn check_public(ip: IpAddr) -> Result<(), Blocked> {
    match ip {
        IpAddr::V4(ip) => check_public_v4(ip),
        IpAddr::V6(ip) => check_public_v6(ip),
    }
}

fn check_public_v4(ip: Ipv4Addr) -> Result<(), Blocked> {
    let refused = match ip.octets() {
        [0, ..] => Blocked::Unspecified,
        [127, ..] => Blocked::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Blocked::Private,
        [169, 254, ..] => Blocked::LinkLocal,
        [100, 64..=127, ..] => Blocked::SharedNat,
        // 192.0.0/24 protocol assignments, 192.0.2/24 198.51.100/24 203.0.113/24 documentation, 198.18/15 benchmarking.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => Blocked::Reserved,
        // The relays of 6to4, withdrawn by RFC 7526.
        [192, 88, 99, _] => Blocked::Wrapped,
        // Azure's machine agent and DNS.
        [168, 63, 129, 16] => Blocked::CloudInternal,
        [224..=239, ..] | [255, 255, 255, 255] => Blocked::Multicast,
        [240..=255, ..] => Blocked::Reserved,
        _ => return Ok(()),
    };
    Err(refused)
}

fn check_public_v6(ip: Ipv6Addr) -> Result<(), Blocked> {
    let refused = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Blocked::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Blocked::Loopback,
        // NAT64's well-known prefix: how a public IPv4 server looks from an IPv6-only network. As public as what it wraps.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return check_wrapped(high, low),
        // NAT64 of a local network; IPv4-compatible; IPv4-translated.
        [0x64, 0xff9b, ..] | [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => Blocked::Wrapped,
        // Teredo, 6to4.
        [0x2001, 0, ..] | [0x2002, ..] => Blocked::Wrapped,
        // Protocol assignments (benchmarking and ORCHID among them), documentation twice, 6bone.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x3ffe, ..] => Blocked::Reserved,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Blocked::Private,
        [0xfe80..=0xfebf, ..] => Blocked::LinkLocal,
        [0xff00..=0xffff, ..] => Blocked::Multicast,
        // ISATAP carries an IPv4 address in the interface id under any prefix.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => return check_wrapped(high, low),
        [0x2000..=0x3fff, ..] => return Ok(()),
        // Nothing else is global unicast.
        _ => Blocked::Reserved,
    };
    Err(refused)
}

fn check_wrapped(high: u16, low: u16) -> Result<(), Blocked> {
    let inner = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    check_public_v4(inner).map_err(|_| Blocked::Wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_unicast_addresses_pass() {
        let refused: &[(&str, Blocked)] = &[
            ("0.0.0.0", Blocked::Unspecified),
            ("0.1.2.3", Blocked::Unspecified),
            ("127.0.0.1", Blocked::Loopback),
            ("127.0.0.53", Blocked::Loopback),
            ("127.255.255.255", Blocked::Loopback),
            ("10.0.0.0", Blocked::Private),
            ("10.255.255.255", Blocked::Private),
            ("172.16.0.1", Blocked::Private),
            ("172.31.255.255", Blocked::Private),
            ("192.168.0.1", Blocked::Private),
            ("192.168.255.255", Blocked::Private),
            ("169.254.0.1", Blocked::LinkLocal),
            ("169.254.169.254", Blocked::LinkLocal),
            ("169.254.170.2", Blocked::LinkLocal),
            ("100.64.0.1", Blocked::SharedNat),
            ("100.100.100.200", Blocked::SharedNat),
            ("100.127.255.255", Blocked::SharedNat),
            ("192.0.0.1", Blocked::Reserved),
            ("192.0.0.192", Blocked::Reserved),
            ("192.0.2.1", Blocked::Reserved),
            ("198.18.0.1", Blocked::Reserved),
            ("198.19.255.255", Blocked::Reserved),
            ("198.51.100.7", Blocked::Reserved),
            ("203.0.113.7", Blocked::Reserved),
            ("192.88.99.1", Blocked::Wrapped),
            ("168.63.129.16", Blocked::CloudInternal),
            ("224.0.0.1", Blocked::Multicast),
            ("239.255.255.250", Blocked::Multicast),
            ("240.0.0.1", Blocked::Reserved),
            ("255.255.255.254", Blocked::Reserved),
            ("255.255.255.255", Blocked::Multicast),
            ("::", Blocked::Unspecified),
            ("::1", Blocked::Loopback),
            // Mapped: judged as what the kernel dials.
            ("::ffff:127.0.0.1", Blocked::Loopback),
            ("::ffff:10.0.0.1", Blocked::Private),
            ("::ffff:169.254.169.254", Blocked::LinkLocal),
            ("::ffff:0.0.0.0", Blocked::Unspecified),
            ("::ffff:a9fe:a9fe", Blocked::LinkLocal),
            // Compatible and translated.
            ("::127.0.0.1", Blocked::Wrapped),
            ("::10.0.0.1", Blocked::Wrapped),
            ("::8.8.8.8", Blocked::Wrapped),
            ("::ffff:0:127.0.0.1", Blocked::Wrapped),
            // NAT64.
            ("64:ff9b::127.0.0.1", Blocked::Wrapped),
            ("64:ff9b::10.0.0.1", Blocked::Wrapped),
            ("64:ff9b::169.254.169.254", Blocked::Wrapped),
            ("64:ff9b:1::8.8.8.8", Blocked::Wrapped),
            // 6to4, Teredo, ISATAP.
            ("2002:7f00:1::", Blocked::Wrapped),
            ("2002:a00:1::1", Blocked::Wrapped),
            ("2002:808:808::1", Blocked::Wrapped),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Blocked::Wrapped),
            ("2001::1", Blocked::Wrapped),
            ("2a00:1450::5efe:a00:1", Blocked::Wrapped),
            ("2a00:1450::200:5efe:127.0.0.1", Blocked::Wrapped),
            // The rest of IPv6.
            ("2001:2::1", Blocked::Reserved),
            ("2001:10::1", Blocked::Reserved),
            ("2001:20::1", Blocked::Reserved),
            ("2001:db8::1", Blocked::Reserved),
            ("3fff::1", Blocked::Reserved),
            ("3ffe::1", Blocked::Reserved),
            ("100::1", Blocked::Reserved),
            ("5f00::1", Blocked::Reserved),
            ("4000::1", Blocked::Reserved),
            ("fc00::1", Blocked::Private),
            ("fd00:ec2::254", Blocked::Private),
            ("fec0::1", Blocked::Private),
            ("fe80::1", Blocked::LinkLocal),
            ("febf::1", Blocked::LinkLocal),
            ("ff02::1", Blocked::Multicast),
            ("ff0e::1", Blocked::Multicast),
            ("e000::1", Blocked::Reserved),
        ];
        assert!(refused.len() >= 70, "{}", refused.len());
        let policy = Policy::default();
        for (text, reason) in refused {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(policy.check_address(ip, 443), Err(*reason), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "149.154.167.220",
            "157.240.0.1",
            "169.253.255.255",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a03:2880::1",
            "2a00:1450::5efe:808:808",
        ];
        for text in public {
            assert_eq!(policy.check_address(text.parse().unwrap(), 443), Ok(()), "{text}");
        }
    }

    #[test]
    fn ports_and_plain_http_are_limited() {
        let policy = Policy::default();
        let ip: IpAddr = "93.184.216.34".parse().unwrap();
        for (port, expected) in [(443, Ok(())), (80, Ok(())), (8443, Ok(())), (22, Err(Blocked::Port)), (6379, Err(Blocked::Port))] {
            assert_eq!(policy.check_address(ip, port), expected, "{port}");
        }
        assert_eq!(policy.check_call(true, ip, 443), Ok(()));
        assert_eq!(policy.check_call(false, ip, 80), Err(Blocked::PlainHttp));
        let open = Policy { allow_http: true, ..Policy::default() };
        assert_eq!(open.check_call(false, ip, 80), Ok(()));
    }

    #[test]
    fn the_allow_list_opens_exactly_what_it_names() {
        let allow = ["10.1.0.0/16:8443", "192.168.7.9", "127.0.0.0/8", "fd12::/16", "[::1]:8080"].map(|text| text.parse().unwrap());
        let policy = Policy { allow: allow.to_vec(), ..Policy::default() };
        let cases: &[(&str, u16, bool)] = &[
            ("10.1.0.1", 8443, true),
            ("10.1.255.255", 8443, true),
            ("::ffff:10.1.2.3", 8443, true),
            ("10.1.0.1", 443, false),
            ("10.2.0.1", 8443, false),
            ("10.0.255.255", 8443, false),
            ("192.168.7.9", 12345, true),
            ("192.168.7.8", 443, false),
            ("192.168.7.10", 443, false),
            ("127.9.9.9", 3000, true),
            ("::127.0.0.1", 3000, false),
            ("fd12:ffff::1", 443, true),
            ("fd13::1", 443, false),
            ("::1", 8080, true),
            ("::1", 8081, false),
            ("8.8.8.8", 443, true),
            ("8.8.8.8", 8080, false),
        ];
        for &(ip, port, allowed) in cases {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(policy.check_address(ip, port).is_ok(), allowed, "{ip} {port}");
        }
        assert_eq!(policy.check_call(false, "127.0.0.1".parse().unwrap(), 3000), Ok(()), "allow-listed networks need no TLS");
    }

    #[test]
    fn networks_are_read_strictly() {
        let net = |net: &str, prefix, port| Ok(AllowedNetwork { net: net.parse().unwrap(), prefix, port });
        let cases: &[(&str, Result<AllowedNetwork, BadNetwork>)] = &[
            ("10.1.0.0/16", net("10.1.0.0", 16, None)),
            ("10.1.0.0/16:8443", net("10.1.0.0", 16, Some(8443))),
            ("10.1.2.3", net("10.1.2.3", 32, None)),
            ("10.1.2.3:80", net("10.1.2.3", 32, Some(80))),
            ("0.0.0.0/0", net("0.0.0.0", 0, None)),
            ("::1", net("::1", 128, None)),
            ("fd00::/8", net("fd00::", 8, None)),
            ("fd00::/8:443", net("fd00::", 8, Some(443))),
            ("[fd00::]/8:443", net("fd00::", 8, Some(443))),
            ("[fd00::1]:443", net("fd00::1", 128, Some(443))),
            ("10.1.0.0/33", Err(BadNetwork::Prefix)),
            ("fd00::/129", Err(BadNetwork::Prefix)),
            ("10.1.2.3/16", Err(BadNetwork::HostBits)),
            ("loopback", Err(BadNetwork::Form)),
            ("10.1/16", Err(BadNetwork::Form)),
            ("10.1.0.0/16:99999", Err(BadNetwork::Form)),
            ("10.1.0.0/", Err(BadNetwork::Form)),
            ("[fd00::", Err(BadNetwork::Form)),
            ("[fd00::]8", Err(BadNetwork::Form)),
            ("", Err(BadNetwork::Form)),
        ];
        for (text, expected) in cases {
            assert_eq!(&text.parse::<AllowedNetwork>(), expected, "{text}");
        }
        let too_long = AllowedNetwork { net: "10.0.0.0".parse().unwrap(), prefix: 60, port: None };
        assert!(!too_long.covers("10.0.0.0".parse().unwrap(), 443), "a prefix beyond the family covers nothing");
    }
}
