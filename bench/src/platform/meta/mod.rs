//! Messenger and Instagram, simulated.
//!
//! NOT FILLED YET.
