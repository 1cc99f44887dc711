//! A WooCommerce shop, simulated.
//!
//! NOT FILLED YET.
