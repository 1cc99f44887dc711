//! Budgets and answers over a real Redis. Those that break it start one of their own.
#![cfg(feature = "redis")]

mod limit_redis {
    mod cost;
    mod outages;
    mod places;
    mod shared;
    mod support;
}
