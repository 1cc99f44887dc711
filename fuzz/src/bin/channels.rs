//! One libFuzzer target for every channel: `FUZZ_SUBJECT` says which, see `fuzz::subjects`.
#![no_main]

use std::sync::LazyLock;

use fuzz::Subject;
use libfuzzer_sys::fuzz_target;

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_SUBJECT").expect("FUZZ_SUBJECT names the subject");
    fuzz::subject(&name).unwrap_or_else(|| panic!("no subject {name}"))
});

fuzz_target!(|input: &[u8]| SUBJECT.judge(input));
