//! Writes `corpus/<subject>` from the fixtures of `messaging/tests`, and prints the subjects' names.

use std::path::Path;

// The coverage that everything is built with calls into it.
use libfuzzer_sys as _;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, ..) in fuzz::SUBJECTS {
        let folder = here.join("corpus").join(name);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        for (seed, bytes) in fuzz::seeds(name, &here.join("../messaging/tests/fixtures")) {
            std::fs::write(folder.join(seed), bytes).expect("a seed is written");
        }
        println!("{name}");
    }
}
