//! The backends that several processes share.
