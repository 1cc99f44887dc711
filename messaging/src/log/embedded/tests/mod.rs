//! What only the embedded log promises.

mod support;

mod conforms;
