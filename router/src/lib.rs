//! Station two: from the log to decisions to effects.

pub mod egress;
pub mod sign;
