//! Sources that we connect to, in place of waiting for their webhooks.

pub mod discord;
pub mod refresh;
