//! How many connections each address has open: one stranger must not use up what is there for all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;
use messaging::config::AllowedNetwork;

/// Bits of an IPv6 address that one customer of a provider has to himself; the rest he chooses as he likes.
const V6_PREFIX_BITS: u32 = 64;

/// The counts. An address stands here while it has a connection, so there are at most as many as there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    max: usize,
    /// Proxies: behind one address stand many.
    exempt: Vec<AllowedNetwork>,
    open: Mutex<HashMap<IpAddr, usize, RandomState>>,
}

/// A connection that counts. Dropped, it does not.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Arc<Addresses>,
    of: Option<IpAddr>,
}

impl Addresses {
    pub(crate) fn new(max: usize, exempt: Vec<AllowedNetwork>) -> Arc<Self> {
        Arc::new(Self { max, exempt, open: Mutex::default() })
    }

    /// Counts a connection; none: this address has as many as it may.
    pub(crate) fn count(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        if self.exempt.iter().any(|network| network.holds(peer)) {
            return Some(Counted { addresses: self.clone(), of: None });
        }
        let of = household(peer);
        let mut open = self.open.lock().expect("no holder of the counts panics");
        let count = open.entry(of).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Counted { addresses: self.clone(), of: Some(of) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(of) = self.of else { return };
        let mut open = self.addresses.open.lock().expect("no holder of the counts panics");
        if let Some(count) = open.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&of);
            }
        }
    }
}

/// What counts as one address.
fn household(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let host_bits = u128::BITS - V6_PREFIX_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> host_bits << host_bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let proxy = AllowedNetwork { net: "10.0.0.0".parse().unwrap(), prefix: 8, port: None };
        let addresses = Addresses::new(2, vec![proxy]);
        // Whose turn it is, and whether it gets in; all stay open.
        let cases = [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
            ("10.1.2.3", true),
            ("10.1.2.3", true),
            ("10.1.2.3", true),
        ];
        let mut open = Vec::new();
        for (peer, expected) in cases {
            let counted = addresses.count(peer.parse().unwrap());
            assert_eq!(counted.is_some(), expected, "{peer}");
            open.extend(counted);
        }
        open.clear();
        assert!(addresses.open.lock().unwrap().is_empty(), "what is closed is forgotten");
        assert!(addresses.count("192.0.2.1".parse().unwrap()).is_some());
    }
}
