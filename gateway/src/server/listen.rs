//! Bound sockets. Ports are bound before anything else is built, so that a conflict is found before any work is done.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds for us before we accept them, per listener.
const BACKLOG: i32 = 1024;

/// The gateway's bound sockets: one per serving thread for the public address, and one for the admin address.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) public: Vec<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
    public_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
}

impl Listeners {
    /// Binds; without a public address for a process that has no gateway, only an admin listener. With port 0 the first socket finds
    /// a free port and the others share it. The threads share the public port among them; another process only with `reuse_port`.
    ///
    /// # Errors
    /// When an address cannot be bound; the message names it.
    pub fn bind(public: Option<SocketAddr>, admin: Option<SocketAddr>, threads: usize, reuse_port: bool) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut public_address = None;
        if let Some(public) = public {
            if !reuse_port && public.port() != 0 {
                // A socket that shares with nobody is refused while another process listens. Two that start in the same instant are not
                // told apart by this; the lock of the data folder does that.
                drop(listen(public, false)?);
            }
            let first = listen(public, true)?;
            let address = first.local_addr()?;
            public_address = Some(address);
            sockets.push(first);
            while sockets.len() < threads.max(1) {
                sockets.push(listen(address, true)?);
            }
        }
        // The admin port is not shared: two processes behind one metrics address would answer in turns.
        let admin = admin.map(|address| listen(address, false)).transpose()?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Self { public: sockets, admin, public_address, admin_address })
    }

    /// Where the public listener is, if there is one.
    pub fn public_address(&self) -> Option<SocketAddr> {
        self.public_address
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }
}

fn listen(address: SocketAddr, shared_port: bool) -> io::Result<TcpListener> {
    bind(address, shared_port).map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

fn bind(address: SocketAddr, shared_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_is_shared_by_all_threads_and_a_taken_port_is_named() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(Some(any), Some(any), 3, false).unwrap();
        assert_eq!(listeners.public.len(), 3);
        for socket in &listeners.public {
            assert_eq!(socket.local_addr().ok(), listeners.public_address());
        }
        let taken = listeners.admin_address().unwrap();
        let error = Listeners::bind(None, Some(taken), 1, false).unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        let public = listeners.public_address();
        let error = Listeners::bind(public, None, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "the public port is one process's: {error}");
        assert!(Listeners::bind(public, None, 1, true).is_ok(), "unless asked otherwise");
    }
}
