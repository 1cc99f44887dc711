//! What a file is, by its bytes and not by what anybody says of it.

/// Bytes of the beginning that are looked at.
const HEAD_BYTES: usize = 1024;
/// Bytes of the end that are looked at: an archive's last record with the longest comment.
const TAIL_BYTES: usize = 22 + 65_535;
/// What makes a picture, sound or film a page or program as well, in lower case.
const ACTIVE: &[&[u8]] = &[b"<script", b"<html", b"<!doctype html", b"<svg", b"<?php", b"<iframe", b"<foreignobject"];
/// Bytes of two pieces that are looked at together.
const OVERLAP_BYTES: usize = 16;

/// The type of what is nothing else.
pub const OCTETS: &str = "application/octet-stream";

/// Looks at a file as it goes by.
#[derive(Debug, Default)]
pub struct Sniffer {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// The end of the piece before.
    carried: Vec<u8>,
    is_active: bool,
}

impl Sniffer {
    /// Looks at the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        let mut joint = std::mem::take(&mut self.carried);
        joint.extend_from_slice(&piece[..piece.len().min(OVERLAP_BYTES)]);
        self.is_active = self.is_active || holds_active(&joint) || holds_active(piece);
        let end = if piece.len() < OVERLAP_BYTES { &joint } else { piece };
        self.carried = end[end.len().saturating_sub(OVERLAP_BYTES)..].to_vec();
        let kept = &piece[piece.len().saturating_sub(TAIL_BYTES)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        self.tail.extend_from_slice(kept);
    }

    /// Its media type: one of a short list of types that do nothing by themselves, or [`OCTETS`].
    pub fn kind(&self) -> &'static str {
        let kind = kind_of(&self.head);
        if kind != OCTETS && !may_hold_anything(kind) && self.is_polyglot() { OCTETS } else { kind }
    }

    /// Whether files of this media type are told by their bytes here. Parameters do not count.
    pub fn knows(media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        KNOWN.contains(&essence.as_str()) || BEGINNINGS.iter().any(|(_, kind)| *kind == essence)
    }

    /// Whether it is another thing as well: a page, a program, a document or an archive.
    pub fn is_polyglot(&self) -> bool {
        let kind = kind_of(&self.head);
        let is_document = kind != "application/pdf" && find(&self.head, b"%PDF-").is_some();
        let is_archive = kind != "application/zip" && ends_as_archive(&self.tail);
        self.is_active || is_document || is_archive
    }

    /// Whether it is what a message's `type` says: a picture for `image`, a sound for `audio` … A document may be anything.
    pub fn is_what(&self, kind: &str, animated: bool) -> bool {
        let found = kind_of(&self.head);
        // These hold sounds and films alike.
        let plays = found.starts_with("audio/") || found.starts_with("video/");
        match kind {
            "image" => found.starts_with("image/"),
            "audio" => plays,
            "video" => plays || animated && found == "image/gif",
            "sticker" => {
                found.starts_with("image/") || found == "video/webm" || animated && matches!(found, "application/gzip" | "video/mp4")
            }
            _ => true,
        }
    }
}

/// Documents and archives hold texts of others by their nature.
fn may_hold_anything(kind: &str) -> bool {
    matches!(kind, "application/pdf" | "application/zip" | "application/gzip")
}

fn holds_active(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = &rest[at..];
        if ACTIVE.iter().any(|mark| rest.len() >= mark.len() && rest[..mark.len()].eq_ignore_ascii_case(mark)) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// Whether the last record of an archive stands at the end, with a comment that reaches exactly to the end.
fn ends_as_archive(tail: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = find(&tail[from..], b"PK\x05\x06").map(|at| from + at) {
        let comment = tail.get(at + 20..at + 22).map(|two| usize::from(u16::from_le_bytes([two[0], two[1]])));
        if comment.is_some_and(|comment| at + 22 + comment == tail.len()) {
            return true;
        }
        from = at + 1;
    }
    false
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// What files begin with.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"#!AMR", "audio/amr"),
    (b"ID3", "audio/mpeg"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
];

/// Types that are told otherwise than by how files begin, and other names of types.
const KNOWN: &[&str] = &[
    "image/jpg",
    "image/webp",
    "image/heic",
    "image/heif",
    "image/avif",
    "image/bmp",
    "audio/wav",
    "audio/x-wav",
    "audio/aac",
    "audio/mp4",
    "audio/m4a",
    "audio/x-m4a",
    "audio/mp3",
    "audio/opus",
    "audio/webm",
    "video/ogg",
    "video/mp4",
    "video/3gpp",
    "video/quicktime",
];

fn kind_of(head: &[u8]) -> &'static str {
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| head.starts_with(beginning)) {
        return kind;
    }
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "audio/wav",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => by_brand(brand),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => "image/bmp",
        // MPEG frames: AAC has no layer, MP3 has layer III.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => "audio/aac",
        [0xff, second, third, ..] if second & 0xe6 == 0xe2 && third & 0xf0 != 0xf0 => "audio/mpeg",
        _ => OCTETS,
    }
}

fn by_brand(brand: &[u8]) -> &'static str {
    match brand.get(..3) {
        Some(b"3gp" | b"3g2") => "video/3gpp",
        Some(b"M4A" | b"M4B") => "audio/mp4",
        Some(b"qt ") => "video/quicktime",
        Some(b"hei" | b"mif" | b"msf") => "image/heic",
        Some(b"avi") => "image/avif",
        Some(_) => "video/mp4",
        None => OCTETS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    /// Fed in pieces of every size, the answer is the same.
    fn sniff(bytes: &[u8]) -> (&'static str, bool, [bool; 4]) {
        let look = |size: usize| {
            let mut sniffer = Sniffer::default();
            bytes.chunks(size).for_each(|piece| sniffer.feed(piece));
            (sniffer.kind(), sniffer.is_polyglot(), ["image", "audio", "video", "sticker"].map(|kind| sniffer.is_what(kind, false)))
        };
        let whole = look(bytes.len().max(1));
        for size in [1, 2, 3, 7, 16, 17, 64, 1000] {
            assert_eq!(look(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn kinds() {
        let (image, plays, webm, none) = ([true, false, false, true], [false, true, true, false], [false, true, true, true], [false; 4]);
        let table: &[(&[u8], &str, [bool; 4])] = &[
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg", image),
            (PNG, "image/png", image),
            (b"GIF89a\x01\0\x01\0", "image/gif", image),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp", image),
            (b"\0\0\0\x1cftypheic", "image/heic", image),
            (b"BM\x46\0\0\0\0\0\0\0\x36", "image/bmp", image),
            (b"OggS\0\x02", "audio/ogg", plays),
            (b"#!AMR\n", "audio/amr", plays),
            (b"ID3\x04\0", "audio/mpeg", plays),
            (b"\xff\xfb\x90\x64", "audio/mpeg", plays),
            (b"\xff\xf1\x50\x80", "audio/aac", plays),
            (b"\0\0\0\x18ftypM4A ", "audio/mp4", plays),
            (b"\0\0\0\x18ftypmp42", "video/mp4", plays),
            (b"\0\0\0\x18ftyp3gp5", "video/3gpp", plays),
            (b"\x1a\x45\xdf\xa3\x9f", "video/webm", webm),
            (b"%PDF-1.7", "application/pdf", none),
            (b"PK\x03\x04\x14", "application/zip", none),
            (b"<html><script>", OCTETS, none),
            (b"<svg xmlns=", OCTETS, none),
            (b"MZ\x90\0", OCTETS, none),
            (b"#!/bin/sh", OCTETS, none),
            (b"", OCTETS, none),
            (b"\xff", OCTETS, none),
        ];
        for (bytes, kind, is) in table {
            let (found, _, what) = sniff(bytes);
            assert_eq!((found, what), (*kind, *is), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn known_types() {
        for known in ["image/jpeg", "Image/PNG", "audio/ogg; codecs=opus", "video/mp4", "image/webp"] {
            assert!(Sniffer::knows(known), "{known}");
        }
        for unknown in ["image/svg+xml", "image/x-icon", "audio/midi", "", "text/html"] {
            assert!(!Sniffer::knows(unknown), "{unknown}");
        }
    }

    #[test]
    fn what_is_two_things_at_once() {
        let zip = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0abc";
        let filler = vec![b'x'; 70_000];
        let table: &[(&str, Vec<u8>, bool)] = &[
            ("a picture", PNG.to_vec(), false),
            ("a picture and a page", [PNG, b"<ScRiPt>alert(1)"].concat(), true),
            ("a page far behind", [PNG, &filler, b"<!DOCTYPE html>"].concat(), true),
            ("a picture and a program", [b"GIF89a", b"<?php system(1)".as_slice()].concat(), true),
            ("a picture and a drawing", [b"\xff\xd8\xff".as_slice(), &filler, b"<svg onload=x>"].concat(), true),
            ("a picture and a document", [PNG, b"%PDF-1.4"].concat(), true),
            ("a picture and an archive", [PNG, &filler, zip].concat(), true),
            ("a sound and a page", [b"ID3\x04", b"<iframe src=x>".as_slice()].concat(), true),
            ("a film and an archive", [b"\0\0\0\x18ftypmp42".as_slice(), zip].concat(), true),
            ("the mark of an archive by chance", [PNG, b"PK\x05\x06", &filler].concat(), false),
            ("words about pages", [PNG, b"< script, html and svg >"].concat(), false),
            ("an archive", [b"PK\x03\x04".as_slice(), zip].concat(), false),
        ];
        for (what, bytes, expected) in table {
            let (kind, is_polyglot, _) = sniff(bytes);
            assert_eq!(is_polyglot, *expected, "{what}");
            assert!(!is_polyglot || kind == OCTETS, "{what}: never served under the type that it pretends");
        }
    }
}
