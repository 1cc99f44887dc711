use super::*;

type Seen = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

fn open(dir: &Path) -> Result<(Journal, Seen), String> {
    let mut seen = Vec::new();
    let journal = Journal::open(dir, |(table, key, value)| seen.push((table, key.to_vec(), value)));
    match journal {
        Ok(journal) => Ok((journal, seen)),
        Err(OpenError::Io(error)) => Err(error.to_string()),
        Err(OpenError::Damaged(text)) => Err(text),
    }
}

fn write(journal: &mut Journal, number: u32) {
    journal.begin_frame();
    journal.add(Table::Events, &number.to_be_bytes(), Some(&[number as u8; 100]));
    journal.add(Table::Pointers, &number.to_be_bytes(), None);
    journal.write_frame().expect("is written");
}

fn rows(numbers: impl Iterator<Item = u32>) -> Seen {
    let two =
        |n: u32| [(Table::Events, n.to_be_bytes().to_vec(), Some(vec![n as u8; 100])), (Table::Pointers, n.to_be_bytes().to_vec(), None)];
    numbers.flat_map(two).collect()
}

/// Bytes of a frame of `write`.
const FRAME: usize = (HEADER_BYTES + 2 * (7 + 4) + 100).next_multiple_of(ALIGN);
/// Bytes of the first frame of a file.
const LINK: usize = HEADER_BYTES + 16;

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("is read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("is written");
}

#[test]
fn rows_come_back_in_order_also_after_several_processes() {
    let dir = tempfile::tempdir().expect("a folder");
    for process in 0..5 {
        let (mut journal, seen) = open(dir.path()).expect("opens");
        assert_eq!(seen, rows(0..process * 10));
        for number in process * 10..process * 10 + 10 {
            write(&mut journal, number);
        }
    }
    let (_, seen) = open(dir.path()).expect("opens");
    assert_eq!(seen, rows(0..50));
}

#[test]
fn what_is_released_does_not_come_back_and_its_files_are_used_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = open(dir.path()).expect("opens");
    for round in 0..6 {
        for number in round * 10..round * 10 + 10 {
            write(&mut journal, number);
        }
        if round < 5 {
            let numbers = journal.rotate().expect("goes on");
            journal.release(&numbers).expect("lets go");
        }
    }
    drop(journal);
    assert!(fs::read_dir(dir.path()).expect("is listed").count() <= 1 + SPARES_MAX, "files are used again");
    // Remains of earlier rounds stand behind the last frame, and count for nothing.
    let (_, seen) = open(dir.path()).expect("opens");
    assert_eq!(seen, rows(50..60));
}

#[test]
fn a_torn_end_is_cut_and_damage_is_told() {
    // What was synced before frame 6, where a bit flips, and what is read then.
    let cases: [(&str, bool, usize, Result<u32, &str>); 6] = [
        ("in the last frame", false, LINK + 9 * FRAME + 40, Ok(9)),
        ("in the last frame, the others durable", true, LINK + 9 * FRAME + 40, Ok(9)),
        ("in the middle, nothing durable", false, LINK + 3 * FRAME + 5, Ok(3)),
        ("in the middle, which was durable", true, LINK + 3 * FRAME + 5, Err("is damaged")),
        ("in the body of a durable one", true, LINK + 3 * FRAME + 60, Err("is damaged")),
        ("in the first frame", true, 20, Err("is damaged")),
    ];
    for (what, synced, at, expected) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut journal, _) = open(dir.path()).expect("opens");
        for number in 0..10 {
            if number == 6 && synced {
                journal.sync().expect("is synced");
            }
            write(&mut journal, number);
        }
        drop(journal);
        damage(&path_of(dir.path(), 1), at);
        match (open(dir.path()), expected) {
            (Ok((_, seen)), Ok(read)) => assert_eq!(seen, rows(0..read), "{what}"),
            (Err(text), Err(said)) => assert!(text.contains(said), "{what}: {text}"),
            (Ok((_, seen)), Err(said)) => panic!("{what}: {} rows, not {said}", seen.len()),
            (Err(text), Ok(_)) => panic!("{what}: {text}"),
        }
    }
}

#[test]
fn a_file_that_lost_its_end_is_told_by_the_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = open(dir.path()).expect("opens");
    for number in 0..10 {
        write(&mut journal, number);
    }
    journal.rotate().expect("goes on");
    write(&mut journal, 10);
    drop(journal);
    damage(&path_of(dir.path(), 1), LINK + 9 * FRAME + 40);
    let error = open(dir.path()).err().expect("does not open");
    assert!(error.contains("and it was written up to"), "{error}");
}

#[test]
fn a_file_grows_ahead_of_what_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = open(dir.path()).expect("opens");
    write(&mut journal, 1);
    let length = fs::metadata(path_of(dir.path(), 1)).expect("is there").len();
    assert_eq!((length, journal.end() as usize), (GROW_BYTES, LINK + FRAME));
}
