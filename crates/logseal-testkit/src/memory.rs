//! Finds secrets in the memory of a running process (Linux).
//!
//! All mappings in `/proc/PID/maps` are read through `/proc/PID/mem`: heap, stacks, mapped files, also what the process itself must not read.
//! Pages that were never touched are left out (`/proc/PID/pagemap`): there is nothing in them, and allocators reserve gigabytes.
//!
//! The kernel lets a process read that of its child when both have one user and the child did not make itself undumpable, also where Yama
//! (`ptrace_scope` 1) refuses strangers. Where it refuses, there is an error, never an empty finding.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::canary::encodings;

/// Bytes read at once.
const CHUNK: usize = 4 << 20;

const PAGE: u64 = 4096;

/// In `/proc/PID/pagemap`: the page is in memory, or in the swap (the kernel's `Documentation/admin-guide/mm/pagemap.rst`).
const PRESENT: u64 = 0b11 << 62;

/// What to look for.
#[derive(Default)]
pub struct Secrets {
    names: Vec<String>,
    needles: Vec<Needle>,
    longest: usize,
    /// By the first two bytes of a needle: which needles begin so.
    beginnings: BTreeMap<u16, Vec<usize>>,
}

struct Needle {
    secret: usize,
    form: &'static str,
    bytes: Vec<u8>,
}

/// A secret in the memory of a process.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Found {
    /// Its name.
    pub secret: String,
    /// In which form it is there.
    pub form: &'static str,
    /// Where.
    pub address: u64,
    /// What is mapped there: permissions, and the name that the kernel gives it.
    pub mapping: String,
}

impl Secrets {
    /// Looks for `secret` too, under `name`: as it is, hexadecimal, and Base64. A secret of 32 bytes is a key: each half of it is looked for as
    /// well, since compilers keep such halves in vector registers and put them anywhere. The expanded key of AES-256 begins with the key.
    ///
    /// # Panics
    ///
    /// When `secret` has less than 16 bytes, which would be found by chance.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 16, "a short secret is found everywhere");
        let number = self.names.len();
        self.names.push(name.to_owned());
        for (form, bytes) in encodings(secret) {
            self.needle(number, form, bytes);
        }
        if let Some((first, second)) = secret.split_first_chunk::<16>().filter(|_| secret.len() == 32) {
            self.needle(number, "first half", first.to_vec());
            self.needle(number, "second half", second.to_vec());
        }
    }

    fn needle(&mut self, secret: usize, form: &'static str, bytes: Vec<u8>) {
        self.longest = self.longest.max(bytes.len());
        self.beginnings.entry(u16::from_le_bytes([bytes[0], bytes[1]])).or_default().push(self.needles.len());
        self.needles.push(Needle { secret, form, bytes });
    }

    /// Everywhere that a secret is in the memory of the process `id`.
    ///
    /// # Errors
    ///
    /// When there is no such process, its memory may not be read, or nothing of it could be.
    pub fn search(&self, id: u32) -> io::Result<Vec<Found>> {
        let mut search = Search::new(self);
        let read = read_memory(id, self.longest.saturating_sub(1), &mut |at, bytes, mapping| {
            search.look(at, bytes, mapping);
        })?;
        if read == 0 {
            return Err(io::Error::other(format!("nothing of the memory of process {id} could be read")));
        }
        search.found.sort();
        search.found.dedup();
        Ok(search.found)
    }
}

/// The bytes from each occurrence of `beginning` on, `length` of them, in the memory of the process `id`.
///
/// # Errors
///
/// As [`Secrets::search`].
///
/// # Panics
///
/// When `beginning` is empty or longer than `length`.
pub fn occurrences(id: u32, beginning: &[u8], length: usize) -> io::Result<Vec<Vec<u8>>> {
    assert!((1..=length).contains(&beginning.len()), "a beginning of what is looked for");
    let mut found = BTreeMap::new();
    read_memory(id, length, &mut |at, bytes, _| {
        for (offset, window) in bytes.windows(length).enumerate().filter(|(_, window)| window.starts_with(beginning)) {
            found.insert(at + offset as u64, window.to_vec());
        }
    })?;
    Ok(found.into_values().collect())
}

impl Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.names).finish()
    }
}

struct Search<'s> {
    secrets: &'s Secrets,
    /// Whether a needle begins with these two bytes: asked for each byte of memory.
    begins: Vec<bool>,
    found: Vec<Found>,
}

impl<'s> Search<'s> {
    fn new(secrets: &'s Secrets) -> Self {
        let mut begins = vec![false; 1 << 16];
        secrets.beginnings.keys().for_each(|beginning| begins[usize::from(*beginning)] = true);
        Self { secrets, begins, found: Vec::new() }
    }

    fn look(&mut self, at: u64, bytes: &[u8], mapping: &str) {
        for (offset, pair) in bytes.windows(2).enumerate() {
            let beginning = u16::from_le_bytes([pair[0], pair[1]]);
            if !self.begins[usize::from(beginning)] {
                continue;
            }
            for needle in self.secrets.beginnings[&beginning].iter().map(|index| &self.secrets.needles[*index]) {
                if bytes[offset..].starts_with(&needle.bytes) {
                    self.found.push(Found {
                        secret: self.secrets.names[needle.secret].clone(),
                        form: needle.form,
                        address: at + offset as u64,
                        mapping: mapping.to_owned(),
                    });
                }
            }
        }
    }
}

/// Hands the memory of the process `id` to `look`, piece by piece with the piece's address and mapping. A piece begins with the last `overlap` bytes
/// of the one before it where they touch. Returns how many bytes were read.
fn read_memory(id: u32, overlap: usize, look: &mut dyn FnMut(u64, &[u8], &str)) -> io::Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
    let refused = |error: io::Error| {
        let kind = error.kind();
        io::Error::new(kind, format!("the kernel does not let this process read the memory of process {id}: {error}"))
    };
    let memory = File::open(format!("/proc/{id}/mem")).map_err(refused)?;
    let pages = File::open(format!("/proc/{id}/pagemap")).map_err(refused)?;
    let (mut piece, mut end, mut total) = (Vec::new(), 0, 0);
    for (range, mapping) in maps.lines().filter_map(mapping) {
        for present in present(&pages, range)? {
            let mut at = present.start;
            while at < present.end {
                let wanted = usize::try_from(present.end - at).map_or(CHUNK, |left| left.min(CHUNK));
                let kept = if at == end { overlap.min(piece.len()) } else { 0 };
                piece.drain(..piece.len() - kept);
                piece.resize(kept + wanted, 0);
                match memory.read_at(&mut piece[kept..], at) {
                    Ok(read) if read > 0 => {
                        piece.truncate(kept + read);
                        look(at - kept as u64, &piece, mapping);
                        at += read as u64;
                        total += read as u64;
                    }
                    // It was unmapped meanwhile, or belongs to the kernel.
                    _ => {
                        piece.clear();
                        at += PAGE;
                    }
                }
                end = at;
            }
        }
    }
    Ok(total)
}

/// The addresses of a line of `/proc/PID/maps`, and what is there.
fn mapping(line: &str) -> Option<(Range<u64>, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?..number(end)?, rest))
}

/// The parts of `range` that have pages.
fn present(pages: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    let (mut page, last) = (range.start / PAGE, range.end / PAGE);
    let mut entries = vec![0; 1 << 16];
    while page < last {
        let wanted = usize::try_from(last - page).unwrap_or(usize::MAX).saturating_mul(8).min(entries.len());
        let read = pages.read_at(&mut entries[..wanted], page * 8)? / 8 * 8;
        if read == 0 {
            break; // beyond what a process can have: the kernel's own page of calls
        }
        for entry in entries[..read].as_chunks::<8>().0 {
            if u64::from_le_bytes(*entry) & PRESENT != 0 {
                let start = page * PAGE;
                match parts.last_mut().filter(|part| part.end == start) {
                    Some(part) => part.end += PAGE,
                    None => parts.push(start..start + PAGE),
                }
            }
            page += 1;
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Scenario: secrets on the heap of this very process, in each form, and what is not there is not.
    #[test]
    fn secrets_are_found_in_each_form() {
        let secret: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(91) ^ 0x5a).collect();
        let forms = encodings(&secret);
        let mut big = vec![1_u8; 3 * CHUNK];
        (0..big.len() - 64).step_by(4093).for_each(|at| big[at..at + 32].copy_from_slice(&secret));
        black_box((&forms, &big));
        let mut secrets = Secrets::default();
        secrets.add("there", &secret);
        let found = secrets.search(std::process::id()).expect("a process may read its own memory");
        for (form, _) in &forms {
            assert!(found.iter().any(|found| found.form == *form), "{form}");
        }
        let place = big.as_ptr().addr() as u64;
        let within = place..place + big.len() as u64;
        let whole = found.iter().filter(|found| found.form == "raw" && within.contains(&found.address)).count();
        assert_eq!(whole, (0..big.len() - 64).step_by(4093).count(), "each of them, once");
        let beginning = &secret[..16];
        let rest = occurrences(std::process::id(), beginning, 32).expect("its own memory");
        assert!(rest.len() >= whole && rest.iter().all(|bytes| bytes.starts_with(beginning)));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let mut secrets = Secrets::default();
        secrets.add("any", &[7; 16]);
        assert!(secrets.search(u32::MAX).is_err());
    }
}
