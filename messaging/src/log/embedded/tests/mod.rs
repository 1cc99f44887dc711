//! What only the embedded log promises.

mod support;

mod conforms;
mod damage;
mod faults;
mod model;
mod reading;
mod segments;
mod throughput;
mod torn;
