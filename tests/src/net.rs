//! A network of a test's own, whose ways can be cut: one network namespace for each process, joined by a bridge that has no way out.
//!
//! The bridge stands in our own namespace and holds the hub's address, where the servers listen. Simulators and their clients stay on
//! loopback, and are relayed both ways. A cut drops the packets of one way in both directions, so that nobody is told: connections hang, as when a cable is
//! pulled.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Where all networks of tests lie, for the egress guard.
pub const ALL: &str = "10.213.0.0/16";
/// What a panic says when there can be none.
const CURE: &str = "network cuts need root, `ip` and `nft` (Debian: iproute2, nftables) and a kernel that allows network namespaces; \
     `tests/run --no-namespaces` leaves this test out";

/// Connections of one relay at once; more wait.
const RELAYED_MAX: usize = 1_024;

/// A network; it goes when the value is dropped.
#[derive(Debug)]
pub struct Net {
    /// What its devices and namespaces begin with; device names have at most 15 letters.
    prefix: String,
    third: u8,
    members: Vec<String>,
}

impl Net {
    /// Whether the run leaves networks out, by an option of its own. Says so.
    pub fn is_left_out() -> bool {
        let left_out = std::env::var_os("TRUNKLINE_TEST_NO_NAMESPACES").is_some();
        if left_out {
            println!("LEFT OUT by TRUNKLINE_TEST_NO_NAMESPACES: {CURE}");
        }
        left_out
    }

    /// Makes one with a namespace for each member.
    ///
    /// # Panics
    /// When the machine does not allow it; the message says what to do.
    pub fn make(members: &[&str]) -> Self {
        let number = std::process::id();
        let third = u8::try_from(number % 255).expect("a remainder of 255 is a byte");
        let members = members.iter().map(|name| (*name).to_owned()).collect();
        // Before the first step, so that one that fails half-way leaves nothing behind.
        let net = Self { prefix: format!("tl{number}"), third, members };
        net.build().unwrap_or_else(|why| panic!("{why}\n{CURE}"));
        net
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["address", "add", &format!("{}/24", self.hub()), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for name in &self.members {
            let (space, outer) = (self.namespace(name), format!("{}v{}", self.prefix, self.number(name)));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run("ip", &["link", "set", &outer, "master", &bridge, "up"])?;
            run("ip", &["-n", &space, "address", "add", &format!("{}/24", self.address(name)), "dev", "eth0"])?;
            run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    fn number(&self, member: &str) -> u8 {
        let at = self.members.iter().position(|name| name == member).expect("a member of that name");
        u8::try_from(at + 2).expect("few members")
    }

    /// Where the servers listen.
    pub fn hub(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.third, 1)
    }

    /// A member's address.
    pub fn address(&self, member: &str) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.third, self.number(member))
    }

    /// A member's namespace.
    pub fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }

    /// Cuts a member off a server of the hub (`host:port`), until the value that it gives is dropped.
    pub fn cut(&self, member: &str, server: &str) -> Cut {
        let (host, port) = server.rsplit_once(':').expect("a server is host:port");
        let cut = Cut { namespace: self.namespace(member), table: format!("cut{port}") };
        let rules = format!(
            "table inet {table} {{\n chain in {{ type filter hook input priority 0; ip saddr {host} tcp sport {port} drop; }}\n \
             chain out {{ type filter hook output priority 0; ip daddr {host} tcp dport {port} drop; }}\n}}\n",
            table = cut.table,
        );
        cut.nft(&rules).unwrap_or_else(|why| panic!("{why}\n{CURE}"));
        cut
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.members {
            // The pair of devices goes with it.
            let _ = run("ip", &["netns", "delete", &self.namespace(name)]);
        }
        let _ = run("ip", &["link", "delete", &self.bridge()]);
    }
}

/// A way that is cut. It heals when this is dropped.
#[derive(Debug)]
#[must_use = "the way heals when this is dropped"]
pub struct Cut {
    namespace: String,
    table: String,
}

impl Cut {
    fn nft(&self, rules: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("ip does not start: {error}"))?;
        child.stdin.take().expect("stdin is piped").write_all(rules.as_bytes()).map_err(|error| format!("nft: {error}"))?;
        let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr))) }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(why) = self.nft(&format!("delete table inet {}\n", self.table)) {
            eprintln!("a cut does not heal: {why}");
        }
    }
}

/// Relays connections that come to an address, for as long as the runtime lives. Gives the address.
///
/// # Errors
/// The address is taken.
pub async fn relay(listen: SocketAddr, to: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(RELAYED_MAX));
    tokio::spawn(async move {
        while let (Ok(slot), Ok((mut inside, _))) = (slots.clone().acquire_owned().await, listener.accept().await) {
            tokio::spawn(async move {
                let _slot = slot;
                if let Ok(mut outside) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                }
            });
        }
    });
    Ok(address)
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(words).stdin(Stdio::null()).output().map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
