//! Links to media: `GET {public_url}/media/{token}`. Whoever has one may read that medium until the link ends, and nothing else.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::ids::{ID_BYTES, IdHasher, MediaId, TenantId};

/// Tenant, medium, end in seconds, proof.
const TOKEN_BYTES: usize = ID_BYTES + ID_BYTES + 8 + ID_BYTES;

/// How links are made.
#[derive(Debug, Clone)]
pub struct LinkTerms {
    /// Where the outside finds this installation, without a slash at the end; none: this process does not know, and makes no links.
    pub public_url: Option<String>,
    /// How long a link is good.
    pub ttl: Duration,
}

impl LinkTerms {
    /// The link to a medium that is made at this time. The same every time.
    pub fn link(&self, ids: &IdHasher, tenant: TenantId, medium: MediaId, now: Timestamp) -> Option<String> {
        let until = now.plus(self.ttl).as_secs();
        let mut token = [0; TOKEN_BYTES];
        token[..16].copy_from_slice(&tenant.0);
        token[16..32].copy_from_slice(&medium.0);
        token[32..40].copy_from_slice(&until.to_be_bytes());
        token[40..].copy_from_slice(&ids.media_link(tenant, medium, until));
        Some(format!("{}/media/{}", self.public_url.as_ref()?, BASE64URL_NOPAD.encode(&token)))
    }
}

/// What a link leads to, when we made it and it is still good.
pub fn read_link(ids: &IdHasher, token: &str, now: Timestamp) -> Option<(TenantId, MediaId)> {
    let bytes: [u8; TOKEN_BYTES] = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?.try_into().ok()?;
    let id = |from: usize| -> [u8; ID_BYTES] { bytes[from..from + ID_BYTES].try_into().expect("within the token") };
    let (tenant, medium) = (TenantId(id(0)), MediaId(id(16)));
    let until = u64::from_be_bytes(bytes[32..40].try_into().expect("within the token"));
    let proved: bool = ids.media_link(tenant, medium, until).ct_eq(&bytes[40..]).into();
    (proved && now < Timestamp::from_secs(until)).then_some((tenant, medium))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_one_medium_for_a_while() {
        let ids = IdHasher::new(b"secret");
        let terms = LinkTerms { public_url: Some("https://gw.example".to_owned()), ttl: Duration::from_secs(3600) };
        let (tenant, medium, now) = (TenantId([1; 16]), MediaId([2; 16]), Timestamp::from_secs(1_795_168_800));
        let link = terms.link(&ids, tenant, medium, now).unwrap();
        let token = link.strip_prefix("https://gw.example/media/").unwrap();
        assert_eq!(terms.link(&ids, tenant, medium, now).unwrap(), link, "the same every time");
        assert_eq!(read_link(&ids, token, now), Some((tenant, medium)));
        assert_eq!(read_link(&ids, token, now.plus(Duration::from_secs(3599))), Some((tenant, medium)));
        assert_eq!(read_link(&ids, token, now.plus(Duration::from_secs(3600))), None, "over");
        assert_eq!(read_link(&IdHasher::new(b"other"), token, now), None, "of another installation");
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert_eq!(read_link(&ids, &BASE64URL_NOPAD.encode(&bent), now), None, "bit at {at}");
        }
        for odd in ["", "a", &token[1..], &format!("{token}A"), &format!("{token}=")] {
            assert_eq!(read_link(&ids, odd, now), None, "{odd}");
        }
        assert_eq!(LinkTerms { public_url: None, ..terms }.link(&ids, tenant, medium, now), None);
    }
}
