//! Works of accounts: one process does each, under its lease.
