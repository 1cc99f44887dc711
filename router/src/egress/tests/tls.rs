//! Certificates must prove the name that was asked for.

use std::io;

use messaging::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::egress::{CallError, ErrorKind, Resolver, Sent, Stage};

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A server's configuration with a certificate for these names.
    pub(super) fn server(
        &self,
        names: &[&str],
        expired: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Every name is this machine.
pub(super) struct Here;

impl Resolver for Here {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

pub(super) fn serve_tls(config: Arc<ServerConfig>) -> Peer {
    Peer::start(move |_, served| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, served.stream.try_clone().unwrap());
        while let Some(request) = read_request(&mut stream) {
            let name = stream.conn.server_name().unwrap_or("none").to_owned();
            served.seen.requests.lock().unwrap().push(format!("{name}: {request}"));
            let _ = stream.write_all(OK.as_bytes());
        }
    })
}

async fn call(door: &Door, host: &str, peer: &Peer, times: usize) -> Result<Sent, CallError> {
    let url = format!("https://{host}:{}/", peer.address.port());
    let client = door.client(&url).unwrap();
    for _ in 1..times {
        client.send(post(url.as_str(), "{}"), AMPLE, CAP).await?;
    }
    client.send(post(url, "{}"), AMPLE, CAP).await
}

pub(super) fn trusting(roots: Vec<CertificateDer<'static>>) -> Door {
    let settings = Settings { extra_roots: roots, connect_timeout: Duration::from_secs(5), ..settings() };
    Door::with_resolver(settings, clock(), Arc::new(Here)).unwrap()
}

pub(super) const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn a_certificate_that_proves_the_name_is_taken() {
    let authority = Authority::new();
    let door = trusting(vec![authority.root()]);
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13], BOTH] {
        for (host, server_name) in [("hook.example", "hook.example"), ("Hook.Example.", "hook.example"), ("127.0.0.1", "none")] {
            let peer = serve_tls(authority.server(&["hook.example", "127.0.0.1"], false, versions));
            let sent = call(&door, host, &peer, 3).await.unwrap_or_else(|error| panic!("{host}: {error}"));
            assert_eq!((sent.response.status, sent.reused, peer.connections()), (200, true, 1));
            assert!(peer.requests().iter().all(|request| request.starts_with(&format!("{server_name}: POST / "))));
        }
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_is_refused_before_the_write() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusts_it = trusting(vec![authority.root()]);
    let cases = [
        ("wrong name", &trusts_it, "other.example", authority.server(&["hook.example"], false, BOTH)),
        ("name below", &trusts_it, "a.hook.example", authority.server(&["hook.example"], false, BOTH)),
        ("address not in it", &trusts_it, "127.0.0.1", authority.server(&["hook.example"], false, BOTH)),
        ("expired", &trusts_it, "hook.example", authority.server(&["hook.example"], true, BOTH)),
        ("another authority", &trusts_it, "hook.example", other.server(&["hook.example"], false, BOTH)),
        ("public authorities only", &trusting(Vec::new()), "hook.example", authority.server(&["hook.example"], false, BOTH)),
    ];
    for (name, door, host, config) in cases {
        let peer = serve_tls(config);
        let error = call(door, host, &peer, 1).await.unwrap_err();
        assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::Tls), "{name}: {error}");
        assert_eq!(peer.requests().len(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_refused_before_the_write() {
    type Handle = fn(&mut Served);
    let handlers: [(&str, Handle); 3] = [
        ("speaks HTTP", |served| served.write("HTTP/1.1 400 Bad Request\r\n\r\n")),
        ("closes", |_| {}),
        ("says nothing", Served::until_closed),
    ];
    for (name, handle) in handlers {
        let peer = Peer::start(move |_, served| handle(served));
        let settings = Settings { connect_timeout: SHORT, ..settings() };
        let door = Door::with_resolver(settings, clock(), Arc::new(Here)).unwrap();
        let error = call(&door, "hook.example", &peer, 1).await.unwrap_err();
        assert_eq!((error.stage, error.kind), (Stage::BeforeWrite, ErrorKind::Tls), "{name}: {error}");
    }
}

#[test]
fn a_root_that_is_none_is_refused() {
    let settings = Settings { extra_roots: vec![CertificateDer::from(vec![1, 2, 3])], ..settings() };
    assert!(Door::new(settings, clock()).is_err());
}

#[test]
fn authorities_come_as_pem() {
    let pem = |inner: &str| format!("# ours\n-----BEGIN CERTIFICATE-----\n{inner}\n-----END CERTIFICATE-----\n");
    let two = pem("AQID") + &pem("BAU=");
    let read = |text: &str| crate::egress::authorities(text.as_bytes());
    assert_eq!(read(&two).unwrap(), [CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4, 5])]);
    for bad in ["", "AQID", "-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n", &pem("?"), &two[..two.len() - 20]] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
