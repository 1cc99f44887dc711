//! TikTok Business Messaging, simulated.
//!
//! NOT FILLED YET.
