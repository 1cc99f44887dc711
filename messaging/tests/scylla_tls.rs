//! The CQL store over TLS: a proxy of the test's own stands before the real server with certificates that are good, of a strange
//! authority, or of another address.
#![cfg(feature = "scylla")]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use messaging::clock::{ManualClock, Timestamp};
use messaging::ids::TenantId;
use messaging::store::scylla::migrations::{self, Replication};
use messaging::store::scylla::{ScyllaSettings, open};
use messaging::store::{Durability, Key, Write};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn server() -> String {
    let hosts = std::env::var("TRUNKLINE_TEST_CASSANDRA")
        .expect("TRUNKLINE_TEST_CASSANDRA is not set: run `tests/servers up cassandra` and set what it prints in the environment");
    hosts.split(',').next().expect("a list has a first").to_owned()
}

/// An authority, and where its certificate stands.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(dir: &tempfile::TempDir, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let file = dir.path().join(name);
        let text = data_encoding::BASE64_MIME.encode(params.self_signed(&key).unwrap().der());
        std::fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text.trim())).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A server's side of TLS, for this address.
    fn acceptor(&self, address: IpAddr) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        // Of another name than its issuer, or it would be taken for one that signs itself.
        params.distinguished_name.push(DnType::CommonName, "node");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Takes TLS off and hands the bytes to the server.
async fn proxy(acceptor: TlsAcceptor) -> SocketAddr {
    let ip = server().parse::<SocketAddr>().expect("an address and a port").ip();
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that refuses our certificate goes away, which is what some of the cases are about.
                let Ok(mut opened) = acceptor.accept(stream).await else { return };
                let mut onward = TcpStream::connect(server()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut opened, &mut onward).await;
            });
        }
    });
    address
}

fn settings(at: SocketAddr, authority: &Authority) -> ScyllaSettings {
    let keyspace = format!("trunkline_test_tls_{}", std::process::id());
    ScyllaSettings {
        timeout: Duration::from_secs(10),
        tls_ca_file: Some(authority.file.clone()),
        ..ScyllaSettings::new(vec![at.to_string()], &keyspace)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_with_a_good_certificate_is_talked_to() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, strange) = (Authority::new(&dir, "ours.pem"), Authority::new(&dir, "strange.pem"));
    let here = server().parse::<SocketAddr>().expect("an address and a port").ip();
    let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
    let clock = ManualClock::at(START);

    let good = settings(proxy(ours.acceptor(here)).await, &ours);
    migrations::apply(&good, &Replication::Simple(1)).await.expect("is applied over TLS");
    let store = open(good.clone(), clock.clone()).await.expect("opens over TLS");
    let key = Key::Pointer(TenantId([5; 16]), [1; 16]);
    store.apply(vec![Write::put(key, b"value".to_vec(), START)], Durability::Buffered).await.expect("is written");
    assert_eq!(store.read(vec![key]).await.expect("is read"), [Some(b"value".to_vec())]);
    store.close().await;

    for (acceptor, why) in [(strange.acceptor(here), "a strange authority"), (ours.acceptor(elsewhere), "of another address")] {
        let bad = ScyllaSettings { keyspace: good.keyspace.clone(), ..settings(proxy(acceptor).await, &ours) };
        let error = open(bad, clock.clone()).await.map(drop).unwrap_err().to_string();
        assert!(error.contains("certificate verify failed"), "{why}: {error}");
    }
    let nothing = dir.path().join("nothing.pem");
    std::fs::write(&nothing, "no certificate").unwrap();
    let error = open(ScyllaSettings { tls_ca_file: Some(nothing), ..good.clone() }, clock.clone()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("no certificate in it"), "{error}");

    let session = scylla::client::session_builder::SessionBuilder::new().known_node(server()).build().await.unwrap();
    session.query_unpaged(format!("DROP KEYSPACE {}", good.keyspace), ()).await.unwrap();
}
