//! Who is paced, and who never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, length: usize) -> Vec<u8> {
    let announced = u32::try_from(length).expect("a small frame").to_be_bytes();
    [&announced[1..], &[kind, 0, 0, 0, 0, 1], &vec![kind; length]].concat()
}

/// Who it is, the frames that it sends in a round, and the bytes of the answers.
type Client<'a> = (&'a str, &'a [(u8, u32)], u64);

/// How often one is asked to pause who sends `round` again and again, and is sent `answers` bytes for it, in no time at all.
fn pauses_of(round: &[(u8, u32)], answers: u64) -> usize {
    let now = Instant::now();
    let mut allowance = Allowance::new(now);
    let mut paused = 0;
    for _ in 0..100_000 {
        for (kind, length) in round {
            allowance.received(*kind, *length);
        }
        allowance.sent(answers);
        paused += usize::from(allowance.pause(now).is_some());
    }
    paused
}

/// Scenario: a hundred thousand rounds of what clients send that have something to say, faster than any network carries them, and of floods.
/// Guarantee: the former are never paused, the latter almost always.
#[test]
fn requests_pay_for_their_frames_and_floods_do_not() {
    let small_call =
        [(HEADERS, 120), (DATA, 5), (DATA, 300), (DATA, 0), (PING, 8), (WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4)];
    let honest: [Client<'_>; 6] = [
        ("small calls, with a PING for each answer", &small_call, 100),
        ("calls that are given up", &[(HEADERS, 30), (DATA, 100), (3, 4)], 0),
        ("a large body", &[(DATA, 16_384)], 0),
        ("a large body in small pieces", &[(DATA, 64)], 0),
        ("a large answer", &[(WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4)], 16_384),
        ("a large answer in frames of 4 KiB", &[(WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4)], 4_096),
    ];
    for (who, round, answers) in honest {
        assert_eq!(pauses_of(round, answers), 0, "{who}");
    }
    let floods: [Client<'_>; 6] = [
        ("PING", &[(PING, 8)], 17),
        ("SETTINGS", &[(SETTINGS, 6)], 9),
        ("WINDOW_UPDATE", &[(WINDOW_UPDATE, 4)], 0),
        ("PRIORITY", &[(2, 5)], 0),
        ("DATA of a byte", &[(DATA, 1)], 0),
        ("a request with many", &[&[(HEADERS, 120)][..], &[(PING, 8); 100]].concat(), 1_700),
    ];
    for (flood, round, answers) in floods {
        let paused = pauses_of(round, answers);
        assert!(paused > 90_000, "{flood}: {paused}");
    }
}

/// Scenario: the same frames, in pieces of each size up to more than the whole. Guarantee: they are the same frames; what is not HTTP/2 has none.
#[test]
fn frames_are_found_however_they_come() {
    let lengths = [(SETTINGS, 0), (HEADERS, 300), (DATA, 70_000), (DATA, 1), (PING, 8)];
    let frames: Vec<u8> = lengths.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
    let all = [PREFACE, &frames].concat();
    let expected: Vec<_> =
        lengths.iter().map(|(kind, length)| (*kind, u32::try_from(*length).expect("small"))).collect();
    for size in (1..40).chain([100, 1_000, 16_384, all.len(), all.len() + 1]) {
        let (mut reader, mut found) = (Frames::default(), Vec::new());
        for piece in all.chunks(size) {
            reader.each(piece, |kind, length| found.push((kind, length)));
        }
        assert_eq!(found, expected, "in pieces of {size}");
    }
    for other in [b"POST /v1/logs HTTP/1.1\r\n".as_slice(), b"PRI * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nXX"] {
        let mut reader = Frames::default();
        let all = [other, &frames].concat();
        reader.each(&all, |kind, _| panic!("a frame of kind {kind} in HTTP/1.1"));
        assert!(matches!(reader, Frames::Other), "{reader:?}");
    }
}

/// Scenario: a client sends 2,000 PINGs more than it may. Guarantee: they are read as time passes, and nothing of them is lost.
#[tokio::test]
async fn who_sent_too_much_is_read_later_and_loses_nothing() {
    const BEYOND: u32 = 2_000;
    const PIECE: usize = 8 * 1024;
    let ping = frame(PING, 8);
    let flood = ping.repeat(usize::try_from(MOST).expect("positive") + BEYOND as usize);
    let all = [PREFACE, &flood].concat();
    let began = Instant::now();
    let (mut client, server) = duplex(all.len());
    client.write_all(&all).await.expect("there is room");
    let mut server = Paced::new(server, Counter::noop());
    let (mut read, mut piece) = (Vec::new(), [0; PIECE]);
    while read.len() < all.len() {
        let received = server.read(&mut piece).await.expect("it is open");
        read.extend_from_slice(&piece[..received]);
    }
    assert!(read == all, "it is read as it was sent");
    // What comes at once is read as a whole, and paid for afterwards.
    let paid = BEYOND - u32::try_from(PIECE / ping.len()).expect("few");
    let least = Duration::from_micros(FOR_A_FRAME) * paid;
    assert!(began.elapsed() >= least, "{:?} instead of {least:?}", began.elapsed());
}

/// Scenario: what a client sends never ends, and never has to be waited for. Guarantee: reading it stops after a turn, with a wake that is due at once.
#[tokio::test]
async fn a_connection_that_is_never_empty_lets_others_have_their_turn() {
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(b"POST / HTTP/1.1\r\n");
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let wakes = Arc::<Wakes>::default();
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut endless = Paced::new(Endless, Counter::noop());
    for turn in 1..4 {
        let began = Instant::now();
        loop {
            let mut bytes = [0; 64];
            if Pin::new(&mut endless).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes)).is_pending() {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "it is read without an end");
        }
        yield_now().await;
        assert_eq!(wakes.0.load(Ordering::Relaxed), turn, "nobody would read it again");
        assert!(began.elapsed() >= TURN, "a turn is long enough to be worth the change");
    }
}
