//! System tests over the real binary.

mod accounts;
mod bad_input;
mod deploy;
mod discord;
mod faults;
mod flows;
mod management;
mod meta;
mod observe;
mod woocommerce;
