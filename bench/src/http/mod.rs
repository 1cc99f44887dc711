//! The small HTTP/1.1 server and client that the simulators share.

mod client;
mod server;

pub use client::{Client, ClientError, Response, loopback};
pub use server::{BodyError, Reply, Request, Server, json_reply, reply};
