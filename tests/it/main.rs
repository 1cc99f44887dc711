//! System tests over the real binary.

mod bad_input;
mod deploy;
mod discord;
mod faults;
mod flows;
mod management;
mod media;
mod meta;
mod observe;
