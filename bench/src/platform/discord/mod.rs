//! Discord, simulated.
//!
//! NOT FILLED YET.
