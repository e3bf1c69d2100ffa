//! The sealed write-ahead log: what is acknowledged is here first, encrypted, checksummed and synced.
//!
//! The crate is synchronous: it does file I/O through the port [`Disk`] and nothing else. It asks no vault (it is given
//! unwrapped [`Aek`](logseal_crypto::Aek)s) and no catalog (it tells a [`FileRegistry`]).
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`format`](mod@format) | the bytes: [`FileHeader`], frame heads, metadata, the chain hash |
//! | [`disk`] | the port [`Disk`], [`SystemDisk`] |
//! | [`entry`] | [`Entry`]: one request as it goes in; [`Position`] |
//! | [`writer`] | [`Writer`]: seals groups, syncs, rolls, abandons a file after any error |
//! | [`reader`] | [`FileReader`]: frames of one file in order, over damage |
//! | [`keys`] | [`FileKeys`]: the DEKs of one file |
//! | [`survey`] | [`survey_file`]: what counts in a file, what is damaged, what is void |
//! | [`folder`] | [`survey_folder`]: the chain of a cluster's files |
//! | [`quarantine`](mod@quarantine) | [`quarantine`](fn@quarantine): sets evidence aside, still sealed |
//!
//! # Guarantees
//!
//! * When [`Writer::sync`] has returned `Ok`, every entry appended before survives power loss, in order and unaltered, and
//!   so do its file's name, its header and its keys' wraps; the registry knew the file before.
//! * After any error nothing of the group counts, and its file is never written, truncated or synced again: the next append
//!   makes a new file with new keys, whose header says how far its predecessor is valid. So no nonce is used twice under a
//!   key, and a sync that failed is never believed later.
//! * No request bytes reach the disk in clear. In clear are: ids of cluster, node, file, workspace, AEK and table; times;
//!   numbers of records; lengths.
//! * A damaged, missing, truncated, swapped or older file is noticed and said, never skipped silently; what is intact around
//!   the damage is recovered.
//! * Arbitrary bytes in place of a file cause errors or reports: no panic, no memory beyond one frame's limit, and work
//!   proportional to the file's length.
//!
//! # Files
//!
//! `DIR/wal/<node>/<cluster id>/<file uuid>.wal`, mode 0600. All integers are little-endian. A file is the header twice, then
//! frames without gaps:
//!
//! ```text
//! file    | header A 512 | header B 512 | frame 1 | frame 2 | ...
//!
//! header  0 magic "LOGSEALW"     8 | version = 2       u16 | length = 512      u16 | flags, bit 0: predecessor u32
//!        16 file id             16 | cluster id         16 | node id            16
//!        64 ordinal            u64 | created, Unix ns  i64 | frame marker        8 | nonce field 4 | zero 4
//!        96 predecessor's id    16 | its valid-to      u64 | its chain hash     32
//!       152 zero               356 | CRC-32 of 0..508  u32
//!
//! frame   0 frame marker         8 | sequence          u64 | durable           u64
//!        24 metadata length    u32 | body length       u32 | kind u8 | zero u8 | slot u16
//!        36 metadata CRC-32    u32 | body CRC-32       u32 | CRC-32 of 0..44   u32
//!        48 metadata, in clear     | body
//!
//! key (1)         metadata: workspace id 16, AEK id 16
//!                 body: the DEK sealed by the AEK (nonce 12, ciphertext 32, tag 16), its commitment 32
//! entry (2)       metadata: received, Unix ns i64 | raw length u32 | scan version u16 | compression u8 | zero u8
//!                           | parts u16 | parts x (table id 16, records u32)
//!                 body: AES-256-GCM(the request's bytes, compressed), tag 16
//! attestation (3) neither metadata nor body
//! ```
//!
//! * The frame marker and the nonce field are random for each file. A head's CRC-32 covers the marker, so a head of another
//!   file or a piece of text is not taken for one.
//! * `sequence` counts frames of all kinds from 1. `durable` is the highest sequence for which a sync had returned when
//!   the frame was made: everything up to it was durable, and only that may have been acknowledged.
//! * A key frame gives its `slot` a DEK; it stands twice (two sequences) before the slot's first entry. There is one DEK for
//!   each workspace and AEK in a file, and none is ever used in a second file.
//! * An entry is one request of the slot's workspace, or several one after the other, which protobuf reads as one. Its nonce is
//!   the nonce field followed by the sequence (big-endian, NIST SP 800-38D section 8.2.1); its AAD binds the file's id, bytes 0..36
//!   of the head, and the metadata.
//! * `compression` is 0 for none, 1 for one LZ4 block, 2 for gzip (RFC 1952, any number of members), 3 for zstd (RFC 8878, any number of
//!   frames). What came compressed may stay as it came; what LZ4 makes little smaller stays as it is ([`CompressedBody`]). Version 1 has
//!   LZ4 alone.
//! * The chain hash: `h(0) = SHA-256(header copy)`, `h(n) = SHA-256(h(n-1) | head, 48 bytes | last 16 bytes of the body, or all
//!   of it if shorter)`. For an entry these 16 bytes are the tag, which authenticates body, metadata and place.
//! * Limits: metadata 64 KiB ([`format::METADATA_BYTES`]), body 65 MiB ([`format::BODY_BYTES`]), request 64 MiB. A reader checks
//!   each length against them and against the file's size before it reserves memory.
//!
//! # What counts
//!
//! `attested` is the highest sequence known to have been durable: the successor's valid-to if there is a successor; else the
//! highest `durable` of any intact head in the file, or what the catalog attests, whichever is higher. A bad frame at or below
//! it is *damage*: it is reported, and the frames behind it count. Beyond it the first bad frame starts the *torn tail*:
//! all that follows was never acknowledged and is void, as is everything behind a successor's valid-to. A file that ends below
//! `attested` is truncated or an older copy. A chain hash that differs from the successor's although each frame is
//! intact means that the file was swapped or rewritten.
//!
//! The chain and the CRCs find accidents; who can write the files can recompute them. What such a writer cannot do is make
//! entries (AES-256-GCM under DEKs that only the AEK opens) or replace a file whose header hash the catalog holds.
//!
//! # Recovery, step by step
//!
//! 1. [`settle`] the newest file, so that what a killed process wrote is durable before it is relied on.
//! 2. [`survey_folder`] with what the catalog knows of each file; report its problems, [`quarantine`](fn@quarantine)
//!    damage.
//! 3. Read each file with a [`FileReader`] bounded by its survey's `end`; open entries with [`FileKeys`].
//! 4. Start a [`Writer`] whose predecessor is the newest file's [`FileSurvey::predecessor`]. Old files are only ever removed.
//!
//! # Evolution
//!
//! Readers refuse versions that they do not know; this one reads 1 and 2. Any change of a layout, of a meaning or of a limit takes the next version; kinds
//! and compressions are never renumbered. Writers write one version; readers keep reading all earlier ones.

mod active;
pub mod disk;
pub mod entry;
pub mod error;
pub mod folder;
pub mod format;
pub mod keys;
pub mod quarantine;
pub mod reader;
mod scan;
pub mod survey;
pub mod writer;

pub use disk::{Disk, DiskFile, Space, SystemDisk};
pub use entry::{CompressedBody, Compression, Entry, Part, Position};
pub use error::{OpenError, WalError};
pub use folder::{FolderProblem, FolderSurvey, Known, survey_folder};
pub use format::{FileHeader, Predecessor};
pub use keys::FileKeys;
pub use quarantine::{Evidence, quarantine};
pub use reader::{Attestation, Damage, DamageCause, FileReader, Item, KeyFrame, SealedEntry, Torn};
pub use survey::{Alteration, Bound, FileSurvey, settle, survey_file};
pub use writer::{ClosedFile, FileRegistry, Writer, WriterParts, WriterSettings};
