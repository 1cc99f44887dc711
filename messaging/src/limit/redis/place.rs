//! Where Redis is: the forms of the address, and what they mean.
//!
//! ```text
//! redis://[[user]:password@]host[:port][/database]                      one server; port 6379, database 0
//! redis+sentinel://[[user]:password@]host[:port],.../name[/database]    the master that these sentinels name; port 26379
//! redis+cluster://[[user]:password@]host[:port],...                     a cluster; port 6379
//! ```
//!
//! `rediss` in place of `redis` means TLS, to sentinels too. User and password are for Redis; sentinels are asked without. Both may be
//! percent-encoded. IPv6 addresses stand in brackets. There are no query parameters, and nothing that is not understood is left aside.

use std::fmt;

use percent_encoding::percent_decode_str;

/// Most hosts of one address.
const HOSTS_MAX: usize = 32;
/// Most databases that a server can have.
const DATABASE_MAX: i64 = 1 << 20;

/// An address that is not understood. Says what is wrong and what is expected, and holds nothing of the address but the scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address of redis is not understood: {0}")]
pub struct BadPlace(String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadPlace> {
    Err(BadPlace(why.into()))
}

/// A host and a port.
pub type Host = (String, u16);

/// How the servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One(Host),
    /// The master of this name, as the sentinels say.
    Sentinel {
        /// Where they are.
        sentinels: Vec<Host>,
        /// The master's name.
        master: String,
    },
    /// A cluster, of which these are known.
    Cluster(Vec<Host>),
}

/// Where Redis is, and as whom to go there.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The servers.
    pub servers: Servers,
    /// Whether to use TLS.
    pub tls: bool,
    /// The user; none is Redis' `default`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The database.
    pub database: i64,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, tls, user: _, password, database } = self;
        let password = password.as_ref().map(|_| "...");
        f.debug_struct("Place")
            .field("servers", servers)
            .field("tls", tls)
            .field("password", &password)
            .field("database", database)
            .finish_non_exhaustive()
    }
}

impl std::str::FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return bad("it does not begin with redis://, rediss://, redis+sentinel:// or redis+cluster://");
        };
        let (tls, kind) = match scheme {
            "redis" => (false, Kind::One),
            "rediss" => (true, Kind::One),
            "redis+sentinel" => (false, Kind::Sentinel),
            "rediss+sentinel" => (true, Kind::Sentinel),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            _ => {
                return bad("its scheme is none of redis, rediss, redis+sentinel, rediss+sentinel, redis+cluster and rediss+cluster");
            }
        };
        if rest.contains(['?', '#']) {
            return bad("it has parameters or a fragment; there are none, and both characters are written %3F and %23 in a password");
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return bad("it holds a space or a control character");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, hosts) = match authority.rsplit_once('@') {
            Some((who, hosts)) => {
                let (user, password) = credentials(who)?;
                (user, password, hosts)
            }
            None => (None, None, authority),
        };
        let port = match kind {
            Kind::Sentinel => 26379,
            Kind::One | Kind::Cluster => 6379,
        };
        let mut hosts = hosts_of(hosts, port)?;
        let (servers, database) = match kind {
            Kind::One if hosts.len() > 1 => return bad("it names several hosts: use redis+cluster:// or redis+sentinel://"),
            Kind::One => (Servers::One(hosts.remove(0)), database(path)?),
            Kind::Cluster if !path.is_empty() => return bad("a cluster has no databases: nothing may follow the hosts"),
            Kind::Cluster => (Servers::Cluster(hosts), 0),
            Kind::Sentinel => {
                let (master, number) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return bad("the name of the master is missing after the sentinels: redis+sentinel://host,host/name");
                }
                (Servers::Sentinel { sentinels: hosts, master: decoded(master, "the master's name")? }, database(number)?)
            }
        };
        Ok(Self { servers, tls, user, password, database })
    }
}

enum Kind {
    One,
    Sentinel,
    Cluster,
}

fn decoded(text: &str, what: &str) -> Result<String, BadPlace> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => bad(format!("{what} is not UTF-8 once its percent signs are decoded")),
    }
}

fn credentials(text: &str) -> Result<(Option<String>, Option<String>), BadPlace> {
    let Some((user, password)) = text.split_once(':') else {
        return bad("before the @ there is no colon: write user:password@, or :password@");
    };
    if password.is_empty() {
        return bad("the password before the @ is empty");
    }
    let user = (!user.is_empty()).then(|| decoded(user, "the user")).transpose()?;
    Ok((user, Some(decoded(password, "the password")?)))
}

fn hosts_of(text: &str, default_port: u16) -> Result<Vec<Host>, BadPlace> {
    let hosts = text.split(',').map(|host| host_of(host, default_port)).collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > HOSTS_MAX {
        return bad(format!("it names more than {HOSTS_MAX} hosts"));
    }
    Ok(hosts)
}

fn host_of(text: &str, default_port: u16) -> Result<Host, BadPlace> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((host, rest)) = rest.split_once(']') else { return bad("the bracket of an IPv6 address is not closed") };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return bad("what stands in brackets is no IPv6 address");
            }
            match (rest.is_empty(), rest.strip_prefix(':')) {
                (true, _) => (host, None),
                (false, Some(port)) => (host, Some(port)),
                (false, None) => return bad("after the bracket of an IPv6 address comes a colon and the port, or nothing"),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'));
    if host.is_empty() || !is_name(host) {
        return bad("a host is empty, or holds a character that host names do not have");
    }
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return bad("a port is not a number from 1 to 65535"),
        },
        Some(_) => return bad("a port is not a number from 1 to 65535; an IPv6 address stands in brackets"),
    };
    Ok((host.to_owned(), port))
}

fn database(text: &str) -> Result<i64, BadPlace> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<i64>() {
        Ok(number) if (0..DATABASE_MAX).contains(&number) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => bad("after the slash comes the number of the database, or nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        (name.to_owned(), port)
    }

    #[test]
    fn good_addresses() {
        let one = |name, port| Servers::One(host(name, port));
        let sentinel = |hosts: &[(&str, u16)], master: &str| Servers::Sentinel {
            sentinels: hosts.iter().map(|(name, port)| host(name, *port)).collect(),
            master: master.to_owned(),
        };
        let cluster = |hosts: &[(&str, u16)]| Servers::Cluster(hosts.iter().map(|(name, port)| host(name, *port)).collect());
        type Row<'a> = (&'a str, Servers, bool, Option<&'a str>, Option<&'a str>, i64);
        let rows: Vec<Row<'_>> = vec![
            ("redis://cache-1", one("cache-1", 6379), false, None, None, 0),
            ("redis://cache-1/", one("cache-1", 6379), false, None, None, 0),
            ("redis://127.0.0.1:7000/3", one("127.0.0.1", 7000), false, None, None, 3),
            ("rediss://cache.example.com:6380", one("cache.example.com", 6380), true, None, None, 0),
            ("redis://[::1]:7000", one("::1", 7000), false, None, None, 0),
            ("redis://[::1]", one("::1", 6379), false, None, None, 0),
            ("redis://:pass@h", one("h", 6379), false, None, Some("pass"), 0),
            ("redis://ann:p%40ss%3F%2F:x@h:1", one("h", 1), false, Some("ann"), Some("p@ss?/:x"), 0),
            ("redis+sentinel://s1,s2:26380/main", sentinel(&[("s1", 26379), ("s2", 26380)], "main"), false, None, None, 0),
            ("rediss+sentinel://:pw@[::1]/main/2", sentinel(&[("::1", 26379)], "main"), true, None, Some("pw"), 2),
            ("redis+cluster://h1,h2:7001", cluster(&[("h1", 6379), ("h2", 7001)]), false, None, None, 0),
            ("rediss+cluster://ann:pw@h1", cluster(&[("h1", 6379)]), true, Some("ann"), Some("pw"), 0),
        ];
        for (text, servers, tls, user, password, database) in rows {
            let expected = Place { servers, tls, user: user.map(Into::into), password: password.map(Into::into), database };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_addresses_say_why_and_show_no_secret() {
        let rows = [
            ("", "does not begin"),
            ("cache-1:6379", "does not begin"),
            ("local:", "does not begin"),
            ("http://h", "its scheme"),
            ("Redis://h", "its scheme"),
            ("unix:///run/redis", "its scheme"),
            ("redis://", "a host is empty"),
            ("redis://:s3cret@", "a host is empty"),
            ("redis://s3cret@h", "no colon"),
            ("redis://ann:@h", "the password before the @ is empty"),
            ("redis://h:0", "a port"),
            ("redis://h:65536", "a port"),
            ("redis://h:+1", "a port"),
            ("redis://::1", "a host is empty"),
            ("redis://a::1", "an IPv6 address stands in brackets"),
            ("redis://[::1", "not closed"),
            ("redis://[h]", "no IPv6"),
            ("redis://[::1]7000", "after the bracket"),
            ("redis://h1,h2", "several hosts"),
            ("redis://h/x", "number of the database"),
            ("redis://h/-1", "number of the database"),
            ("redis://h/+1", "number of the database"),
            ("redis://h/1/2", "number of the database"),
            ("redis://h?db=1", "parameters"),
            ("redis://:s3cret#x@h", "parameters"),
            ("redis://:s3 cret@h", "a space"),
            ("redis://:%ff@h", "not UTF-8"),
            ("redis+cluster://h1,h2/0", "no databases"),
            ("redis+cluster://h1,,h2", "a host is empty"),
            ("redis+sentinel://s1,s2", "name of the master"),
            ("redis+sentinel://s1,s2/", "name of the master"),
            ("redis+sentinel://s1/main/x", "number of the database"),
        ];
        for (text, why) in rows {
            let error = text.parse::<Place>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("s3"), "{text}: {error}");
        }
        let many = format!("redis+cluster://{}", vec!["h"; HOSTS_MAX + 1].join(","));
        assert!(many.parse::<Place>().is_err());
        let place: Place = "redis://ann:s3cret@h".parse().unwrap();
        assert!(!format!("{place:?}").contains("s3cret"));
    }
}
