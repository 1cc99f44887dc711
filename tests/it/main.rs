//! System tests over the real binary.

mod accounts;
mod bad_input;
mod boards;
mod deploy;
mod dev;
mod discord;
mod email;
mod faults;
mod flows;
mod management;
mod media;
mod meta;
mod observe;
mod storms;
mod strangers;
mod tiktok;
mod woocommerce;
mod woocommerce_pull;
