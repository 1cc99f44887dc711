//! One connection to Redis, whichever way the servers are found. It does not mend itself: who uses it drops it and opens another.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::time::timeout;

use super::place::{Host, Place, Servers};

/// For a connection: name lookup, handshake, and what a cluster or sentinels have to say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands that are on their way to a cluster at once for one call of [`Link::send`].
const CLUSTER_IN_FLIGHT: usize = 64;

/// Certificates for `rediss`. Without a root, the web's roots are trusted.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// PEM of the authority that signed the servers' certificates.
    pub root: Option<Vec<u8>>,
    /// PEM of our certificate and of its key, where the servers ask for one.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisTls").field("root", &self.root.is_some()).field("client", &self.client.is_some()).finish()
    }
}

/// What went wrong, in words that hold neither addresses nor secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke.
    #[error("no connection")]
    Connection,
    /// User or password.
    #[error("user or password are not accepted")]
    Denied,
    /// It answers, and does not take writes.
    #[error("it is read only")]
    ReadOnly,
    /// It has forgotten our scripts.
    #[error("scripts are not known")]
    NoScript,
    /// It answers with something else.
    #[error("it answers with an error ({0})")]
    Answer(&'static str),
}

impl Trouble {
    fn of(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Denied,
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::ReadOnly,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Self::Answer("loading"),
            ErrorKind::Server(ServerErrorKind::NoScript) => Self::NoScript,
            ErrorKind::Server(ServerErrorKind::ClusterDown) => Self::Answer("cluster is down"),
            ErrorKind::Server(ServerErrorKind::MasterDown) => Self::Answer("master is down"),
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Answer("refused"),
            ErrorKind::MasterNameNotFoundBySentinel => Self::Answer("sentinels do not know the master"),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType | ErrorKind::RESP3NotSupported => Self::Answer("not understood"),
            ErrorKind::InvalidClientConfig | ErrorKind::Client => Self::Answer("client"),
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Self::Connection,
            // The driver's list may grow.
            _ => Self::Connection,
        }
    }
}

/// How connections are opened.
#[derive(Debug, Clone)]
pub struct Opener {
    place: Place,
    tls: RedisTls,
    timeout: Duration,
}

/// An open connection. Clones share it.
#[derive(Clone)]
pub enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Opener {
    /// `timeout` is for answers.
    pub fn new(place: Place, tls: RedisTls, timeout: Duration) -> Self {
        Self { place, tls, timeout }
    }

    /// For an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects.
    pub async fn open(&self) -> Result<Link, Trouble> {
        let opened = async {
            match &self.place.servers {
                Servers::One(host) => self.one(host).await,
                Servers::Sentinel { sentinels, master } => self.sentinel(sentinels, master).await,
                Servers::Cluster(hosts) => self.cluster(hosts).await,
            }
        };
        match timeout(CONNECT_TIMEOUT, opened).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(Trouble::of(&error)),
            Err(_) => Err(Trouble::Timeout),
        }
    }

    /// Whether the certificates can be read. Connects to nothing.
    pub fn check(&self) -> Result<(), RedisError> {
        // Also those of a place without TLS: they are there because somebody means to use them.
        if !self.place.tls && self.tls.root.is_none() && self.tls.client.is_none() {
            return Ok(());
        }
        // The driver takes the process' provider and panics without one. One that is set already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let addr = ConnectionAddr::TcpTls { host: "localhost".to_owned(), port: 1, insecure: false, tls_params: None };
        Client::build_with_tls(addr.into_connection_info()?, self.certificates()).map(|_| ())
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(self.timeout))
    }

    fn certificates(&self) -> TlsCertificates {
        let client_tls = self.tls.client.as_ref().map(|(cert, key)| ClientTlsConfig { client_cert: cert.clone(), client_key: key.clone() });
        TlsCertificates { client_tls, root_cert: self.tls.root.clone() }
    }

    fn addr(&self, (host, port): &Host) -> ConnectionAddr {
        if self.place.tls {
            return ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
        }
        ConnectionAddr::Tcp(host.clone(), *port)
    }

    fn info(&self, host: &Host) -> Result<redis::ConnectionInfo, RedisError> {
        let mut settings = RedisConnectionInfo::default().set_db(self.place.database).set_skip_set_lib_name();
        if let Some(user) = &self.place.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.place.password {
            settings = settings.set_password(password);
        }
        Ok(self.addr(host).into_connection_info()?.set_redis_settings(settings))
    }

    async fn one(&self, host: &Host) -> Result<Link, RedisError> {
        let info = self.info(host)?;
        let client = if self.place.tls { Client::build_with_tls(info, self.certificates())? } else { Client::open(info)? };
        client.get_multiplexed_async_connection_with_config(&self.config()).await.map(Link::One)
    }

    /// Asks anew which server is the master: after a fail-over it is another.
    async fn sentinel(&self, sentinels: &[Host], master: &str) -> Result<Link, RedisError> {
        let hosts = sentinels.iter().map(|host| self.addr(host));
        let mut builder =
            SentinelClientBuilder::new(hosts, master, SentinelServerType::Master)?.set_client_to_redis_db(self.place.database);
        if self.place.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates())
                .set_client_to_sentinel_certificates(self.certificates());
        }
        if let Some(user) = &self.place.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.place.password {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()?.get_async_connection_with_config(&self.config()).await.map(Link::One)
    }

    async fn cluster(&self, hosts: &[Host]) -> Result<Link, RedisError> {
        let hosts = hosts.iter().map(|host| self.addr(host));
        // One more try is for a slot that moved; who calls is told of all else.
        let mut builder = ClusterClientBuilder::new(hosts)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(self.timeout)
            .retries(1)
            .min_retry_wait(1)
            .max_retry_wait(5);
        if self.place.tls {
            builder = builder.tls(TlsMode::Secure).certs(self.certificates());
        }
        if let Some(user) = &self.place.user {
            builder = builder.username(user);
        }
        if let Some(password) = &self.place.password {
            builder = builder.password(password);
        }
        builder.build()?.get_async_connection().await.map(Link::Cluster)
    }
}

impl Link {
    /// Sends commands together, in one write where one server takes them all; gives an answer or trouble for each, in their order.
    pub async fn send(&mut self, cmds: &[Cmd]) -> Result<Vec<Result<Value, Trouble>>, Trouble> {
        match self {
            Self::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(cmds.len());
                pipeline.ignore_errors();
                for cmd in cmds {
                    pipeline.add_command(cmd.clone());
                }
                let answers: Result<Vec<Result<Value, RedisError>>, RedisError> = pipeline.query_async(connection).await;
                let answers = answers.map_err(|error| Trouble::of(&error))?;
                Ok(answers.into_iter().map(|answer| answer.map_err(|error| Trouble::of(&error))).collect())
            }
            // Keys lie on different servers: each goes its way, and those for one server share its socket.
            Self::Cluster(connection) => {
                let mut answers = Vec::with_capacity(cmds.len());
                for part in cmds.chunks(CLUSTER_IN_FLIGHT) {
                    let calls = part.iter().map(|cmd| {
                        let mut connection = connection.clone();
                        async move { connection.req_packed_command(cmd).await.and_then(Value::extract_error) }
                    });
                    answers.extend(futures_util::future::join_all(calls).await);
                }
                Ok(answers.into_iter().map(|answer| answer.map_err(|error| Trouble::of(&error))).collect())
            }
        }
    }

    /// Sends one command.
    pub async fn call(&mut self, cmd: &Cmd) -> Result<Value, Trouble> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(cmd).await,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await,
        };
        answer.and_then(Value::extract_error).map_err(|error| Trouble::of(&error))
    }
}
