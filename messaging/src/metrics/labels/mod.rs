//! Label values that no other module of the spine has an enum for. Each is closed; `index()` is what `Family::at` takes.

mod backends;
mod edge;
mod egress;
mod pipeline;

pub use backends::*;
pub use edge::*;
pub use egress::*;
pub use pipeline::*;

/// Most partitions and shards that have a label of their own: `log.partitions` may not be larger.
pub const MAX_PARTITIONS: usize = 32;

/// The values of `partition` and `shard`.
pub const PARTITION_NAMES: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21", "22", "23",
    "24", "25", "26", "27", "28", "29", "30", "31",
];
const _: () = assert!(PARTITION_NAMES.len() == MAX_PARTITIONS);
