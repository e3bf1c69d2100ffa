//! Who gets in, who waits, and what is given back.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use logseal_ingest::Accepted;
use tokio::sync::{Notify, mpsc};

use crate::bodies::gzip;
use crate::harness::{EXPORT, Script, Server, framed, open_body, soon, until};

/// Scenario: no, wrong, malformed credentials, and a key store that does not answer; the body never comes. Guarantee: an
/// answer all the same, so the body was not waited for, and the last is not told as the client's fault.
#[tokio::test]
async fn credentials_come_before_the_body() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    let cases = [
        ("", 16, false),
        ("Bearer wrong", 16, false),
        ("Bearer", 16, false),
        ("Basic dXNlcjpwYXNz", 16, false),
        ("Bearer unavailable", 14, true),
    ];
    for (value, code, retry) in cases {
        let (_sender, body) = open_body();
        let answer = client.call(EXPORT, &[("authorization", value)], body).await;
        assert_eq!(answer.refusal(), (code, retry), "{value}");
        if code == 16 {
            assert!(answer.message.contains("`authorization: Bearer <workspace key>`"), "{}", answer.message);
            assert!(!answer.message.contains("wrong"), "a key is not echoed");
        }
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: the budget is taken when a call comes. Guarantee: the call is held, not refused, and served when budget is
/// freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_call_is_served_when_budget_is_freed() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |s| s.hold_ms = 60_000).await;
    let mut client = server.client().await;
    let all = server.budget.take(server.budget.total()).await;
    let mut answer = std::pin::pin!(client.export(&[], framed(false, b"x")));
    // A second call on another connection is refused for its key: by then the first has long been waiting.
    let refused = async {
        let mut other = server.client().await;
        other.export(&[("authorization", "")], framed(false, b"x")).await
    };
    tokio::select! {
        answer = &mut answer => panic!("answered while nothing was free: {answer:?}"),
        refused = refused => assert_eq!(refused.code, 16),
    }
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
    drop(all);
    assert!(answer.await.is_whole());
    server.idle().await;
}

/// Scenario: the budget stays taken. Guarantee: at the end of the hold, `UNAVAILABLE` with both forms of `RetryInfo`
/// (the harness compares them).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_call_is_told_to_come_back() {
    let server = Server::start(Script::accept(), |s| s.hold_ms = 50).await;
    let mut client = server.client().await;
    let all = server.budget.take(server.budget.total()).await;
    let start = Instant::now();
    let answer = client.export(&[], framed(false, b"x")).await;
    assert_eq!(answer.refusal(), (14, true));
    assert!(start.elapsed() >= Duration::from_millis(50), "it was held");
    let delay = answer.retry.expect("checked above");
    assert!((1..=5).contains(&delay.as_secs()), "{delay:?}");
    drop(all);
    assert!(client.export(&[], framed(false, b"x")).await.is_whole());
}

/// Scenario: a minute of hold is set, the client waits for less. Guarantee: it hears `UNAVAILABLE` half a second before
/// its own deadline, and at once when there is no half second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_deadline_shortens_the_hold() {
    let server = Server::start(Script::accept(), |s| s.hold_ms = 60_000).await;
    let mut client = server.client().await;
    let _all = server.budget.take(server.budget.total()).await;
    for timeout in ["700m", "400m"] {
        let answer = client.export(&[("grpc-timeout", timeout)], framed(false, b"x")).await;
        assert_eq!(answer.refusal(), (14, true), "{timeout}");
    }
}

/// Scenario: more calls than may be held. Guarantee: the surplus is refused at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_calls_are_bounded() {
    let change = |s: &mut logseal_ingest::DoorSettings| {
        s.hold_ms = 60_000;
        s.max_held_calls = 1;
    };
    let server = Server::start(Script::accept(), change).await;
    let mut client = server.client().await;
    let all = server.budget.take(server.budget.total()).await;
    let (sender, mut answers) = mpsc::channel(2);
    for _ in 0..2 {
        let (mut client, sender) = (server.client().await, sender.clone());
        tokio::spawn(async move { sender.send(client.export(&[], framed(false, b"x")).await).await });
    }
    let refused = soon(answers.recv()).await.expect("one of the two");
    assert_eq!(refused.refusal(), (14, true));
    drop(all);
    assert!(soon(answers.recv()).await.expect("the other").is_whole());
    assert!(client.export(&[], framed(false, b"x")).await.is_whole());
}

/// Scenario: a body that begins and never ends. Guarantee: it is cut off after `ingest.body_read_ms`, and its budget is
/// free again; the client is told to try again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_is_cut_off() {
    let server = Server::start(Script::accept(), |s| s.body_read_ms = 50).await;
    let mut client = server.client().await;
    for begin in [&b"\0\0"[..], b"\0\0\x10\0\0begin"] {
        let (sender, body) = open_body();
        sender.unbounded_send(begin).expect("open");
        let answer = client.call(EXPORT, &[], body).await;
        assert_eq!(answer.refusal(), (14, true));
        assert!(answer.message.contains("ingest.body_read_ms"));
        drop(sender);
        server.idle().await;
    }
}

/// Scenario: a client announces a body that takes all of the budget, and sends a byte of it. Guarantee: it keeps the budget as long as no other workspace
/// wants it; then it is told to come back, long before the time for bodies is over, and the call that waits is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_slowly_gives_its_memory_to_those_who_wait() {
    let server = Server::start(Script::accept(), |s| {
        (s.hold_ms, s.body_read_ms) = (60_000, 600_000);
        s.max_request_bytes = 16 * 1024 * 1024;
        s.memory_budget_bytes = 64 * 1024 * 1024;
    })
    .await;
    let (mut slow, mut other) = (server.client().await, server.client().await);
    let (sender, body) = open_body();
    sender.unbounded_send(b"\0\x01\0\0\0x").expect("open");
    let answer = tokio::spawn(slow.send(EXPORT, &[], body));
    until(|| server.budget.free() < server.budget.total() - 0x100_0000).await;
    let rest = server.budget.take(server.budget.free()).await;
    let served = other.export(&[("authorization", "Bearer another-key")], framed(false, b"x")).await;
    assert!(served.is_whole(), "{served:?}");
    let answer = soon(answer).await.expect("no panic").expect("an answer");
    assert_eq!(answer.headers().get("grpc-status").map(|code| code.as_bytes()), Some(&b"14"[..]));
    drop((rest, sender));
    server.idle().await;
}

/// Scenario: the client goes away in the middle of its body. Guarantee: budget that was taken for it is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_within_the_body_frees_its_budget() {
    let intake = Script::accept();
    let server = Server::start(Arc::clone(&intake), |s| s.body_read_ms = 600_000).await;
    let mut client = server.client().await;
    let (sender, body) = open_body();
    sender.unbounded_send(b"\0\0\x10\0\0begin").expect("open");
    let response = tokio::spawn(client.send(EXPORT, &[], body));
    until(|| server.budget.free() < server.budget.total() - 0x10_0000).await;
    client.cut();
    assert!(soon(response).await.expect("no panic").is_err());
    server.idle().await;
    assert_eq!(intake.taken.load(Ordering::SeqCst), 0);
}

/// Scenario: the client resets its call while the intake works on it. Guarantee: the intake's future is dropped with all
/// that it holds, and the connection goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_drops_the_intakes_future() {
    let intake = Script::new(|request| async move {
        if &request.body[..] == b"stay" {
            pending::<()>().await;
        }
        Ok(Accepted::default())
    });
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    let (sender, body) = open_body();
    sender.unbounded_send(b"\0\0\0\0\x04stay").expect("open");
    drop(sender);
    let response = client.send(EXPORT, &[], body);
    let response = tokio::spawn(response);
    until(|| intake.taken.load(Ordering::SeqCst) == 1).await;
    response.abort();
    server.idle().await;
    assert!(client.export(&[], framed(false, b"x")).await.is_whole());
}

/// Scenario: the client's deadline passes while the intake works. Guarantee: `DEADLINE_EXCEEDED` from us, and everything
/// released; a deadline that is over before it begins gets the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_is_told() {
    let intake = Script::new(|request| async move {
        let _keep = request;
        pending().await
    });
    let server = Server::start(intake, |_| ()).await;
    let mut client = server.client().await;
    for timeout in ["50m", "1m", "0n"] {
        let answer = client.export(&[("grpc-timeout", timeout)], framed(false, b"x")).await;
        assert_eq!(answer.refusal(), (4, false), "{timeout}");
        server.idle().await;
    }
}

/// Scenario: the intake keeps a part of its permit beyond the answer. Guarantee: that part stays taken until it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_may_keep_budget() {
    let (sender, mut kept) = mpsc::channel(1);
    let intake = Script::new(move |mut request| {
        let sender = sender.clone();
        async move {
            let part = request.permit.split(3);
            sender.send(part).await.expect("the test listens");
            Ok(Accepted::default())
        }
    });
    let server = Server::start(intake, |_| ()).await;
    assert!(server.client().await.export(&[], framed(false, b"xyz")).await.is_whole());
    let part = soon(kept.recv()).await.expect("handed over");
    until(|| server.budget.free() == server.budget.total() - 3).await;
    drop(part);
    server.idle().await;
}

/// Scenario: requests of a workspace are found to take eight times their bytes. Guarantee: those that follow come to the intake with as much memory, however
/// they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_comes_with_the_memory_that_earlier_ones_took() {
    let (sender, mut held) = mpsc::channel(1);
    let intake = Script::new(move |request| {
        let sender = sender.clone();
        async move {
            sender.send(request.permit.bytes()).await.expect("the test listens");
            Ok(Accepted::default())
        }
    });
    let body = vec![b'x'; 100_000];
    let server = Server::start(Arc::clone(&intake), |_| ()).await;
    let mut client = server.client().await;
    for times in [1, 8] {
        intake.learned.learn(body.len(), times * body.len());
        for (encoding, message) in [("identity", framed(false, &body)), ("gzip", framed(true, &gzip(&body)))] {
            assert!(client.export(&[("grpc-encoding", encoding)], message).await.is_whole());
            let held = soon(held.recv()).await.expect("handed over");
            let needed = (1 + times) * body.len();
            assert!((needed..needed + body.len()).contains(&held), "{times} {encoding}: {held}");
        }
    }
    server.idle().await;
}

/// Scenario: the intake waits for trouble to pass, within its hold. Guarantee: the call is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_may_hold_the_call() {
    let passed = Arc::new(Notify::new());
    let trouble = Arc::clone(&passed);
    let intake = Script::new(move |request| {
        let trouble = Arc::clone(&trouble);
        async move {
            request.hold.wait(trouble.notified()).await.expect("it passes");
            Ok(Accepted::default())
        }
    });
    let server = Server::start(Arc::clone(&intake), |s| s.hold_ms = 60_000).await;
    let mut client = server.client().await;
    let body = framed(false, b"x");
    let mut answer = std::pin::pin!(client.export(&[], body));
    assert!((&mut answer).now_or_never().is_none());
    let taken = until(|| intake.taken.load(Ordering::SeqCst) == 1);
    tokio::select! {
        answer = &mut answer => panic!("{answer:?}"),
        () = taken => (),
    }
    passed.notify_one();
    assert!(answer.await.is_whole());
}
