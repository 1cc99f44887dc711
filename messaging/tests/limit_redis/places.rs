//! Each form of address, against the real thing.

use messaging::limit::Limit;
use messaging::limit::redis::{RedisSettings, RedisTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::support::*;

/// Limits work there, and something was written.
async fn works(settings: RedisSettings) {
    let process = Process::open(settings, clock()).await;
    eventually("it is there", || !process.limit.degraded()).await;
    for owner in 0..20 {
        assert_eq!(process.count(account(owner, 1.0, 3), 50), 3, "account {owner}");
    }
    process.limit.hold(account(1, 1.0, 3).0, std::time::Duration::from_secs(9));
    process.settle();
    assert!(!process.limit.degraded());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_with_user_password_and_database() {
    let server = Server::start(&["user ann on >p@ss/w ~* +@all", "user default off"]);
    works(settings(&format!("redis://ann:p%40ss%2Fw@127.0.0.1:{}/3", server.port))).await;
    let wrong = Process::open(settings(&format!("redis://ann:other@127.0.0.1:{}", server.port)), clock()).await;
    assert!(wrong.limit.degraded(), "a wrong password is Redis being away: limits go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_the_master() {
    let mut master = Server::start(&[]);
    let sentinel = Server::sentinel(master.port);
    // One of the two sentinels is not there.
    let address = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main/1", sentinel.port);
    works(settings(&address)).await;
    let process = Process::open(settings(&address), clock()).await;
    assert_eq!(process.count(account(1, 1.0, 10), 5), 5);
    // The master moves: the sentinels are asked again.
    let next = Server::start(&[]);
    sentinel.call(&["SENTINEL", "REMOVE", "main"]);
    sentinel.call(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &next.port.to_string(), "1"]);
    master.kill();
    eventually("it is noticed", || process.limit.degraded()).await;
    eventually("the new master is found", || !process.limit.degraded()).await;
    assert_eq!(process.count(account(1, 1.0, 10), 50), 5);
    let unknown = Process::open(settings(&address.replace("main", "other")), clock()).await;
    assert!(unknown.limit.degraded());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_routes_by_key() {
    let server = Server::start(&["cluster-enabled yes"]);
    server.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let is_ok = || matches!(server.call(&["CLUSTER", "INFO"]), redis::Value::BulkString(text) if text.starts_with(b"cluster_state:ok"));
    eventually("the cluster is whole", is_ok).await;
    let address = format!("redis+cluster://127.0.0.1:{}", server.port);
    works(settings(&address)).await;
    let process = Process::open(settings(&address), clock()).await;
    assert!(process.goes(account(1, 1.0, 2)));
    server.call(&["SCRIPT", "FLUSH"]);
    assert!(process.goes(account(1, 1.0, 2)) && !process.goes(account(1, 1.0, 2)), "forgotten scripts are told again");
}

/// An authority, and certificates that it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> Vec<u8> {
        pem("CERTIFICATE", self.0.der())
    }

    /// A certificate for this name, and its key.
    fn sign(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // With the authority's own name OpenSSL takes it for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_proves_both_sides() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = ours.sign("127.0.0.1");
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let port = free_port();
    let server = Server::start_at(
        port,
        &[
            "port 0",
            &format!("tls-port {port}"),
            &format!("tls-cert-file {}", file("server.pem", &certificate)),
            &format!("tls-key-file {}", file("server.key", &key)),
            &format!("tls-ca-cert-file {}", file("root.pem", &ours.root())),
            "tls-auth-clients yes",
        ],
    );
    let settings = settings(&format!("rediss://127.0.0.1:{}", server.port));
    let good = RedisTls { root: Some(ours.root()), client: Some(ours.sign("router")) };
    works(RedisSettings { tls: good.clone(), ..settings.clone() }).await;
    let bad = [
        ("the server's authority is another", RedisTls { root: Some(strangers.root()), ..good.clone() }),
        ("it is none of the web's", RedisTls { root: None, ..good.clone() }),
        ("ours is another", RedisTls { client: Some(strangers.sign("router")), ..good.clone() }),
        ("we show none", RedisTls { client: None, ..good }),
    ];
    for (why, tls) in bad {
        let process = Process::open(RedisSettings { tls, ..settings.clone() }, clock()).await;
        assert!(process.limit.degraded(), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_without_tls_is_away_and_not_an_error() {
    let server = Server::start(&[]);
    let process = Process::open(settings(&format!("rediss://127.0.0.1:{}", server.port)), clock()).await;
    assert!(process.limit.degraded());
}
