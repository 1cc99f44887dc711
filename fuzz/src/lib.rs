//! What the fuzz target asserts of every channel, from outside and the same for all:
//!
//! - no bytes make a verifier, a splitter or a parser panic;
//! - what nobody signed, what another account signed, and a body that was changed after it was signed are refused;
//! - what is authentic does not vanish, and names no account and no person that the bytes do not name.
//!
//! A subject is a channel with a way to prove a request: a row of `SUBJECTS`, its seeds in `corpus/<name>`.

mod input;
mod proof;
mod seeds;
mod spelled;
mod subject;

pub use input::Input;
pub use seeds::seeds;
pub use subject::{SUBJECTS, Subject, subject};
