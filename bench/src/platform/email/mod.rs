//! Providers of inbound mail and a relay, simulated.
//!
//! NOT FILLED YET.
