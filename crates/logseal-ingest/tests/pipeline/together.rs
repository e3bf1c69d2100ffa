//! Small requests that come at once: they go through the log together, and each is answered for itself.

use std::sync::{Arc, Condvar, Mutex};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::future::join_all;
use logseal_wal::{FileReader, Item};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::counters::alone;
use crate::life::Parts;
use crate::records::{Id, request};
use crate::settings::Settings;
use crate::world::{World, cluster, until, workspace};

/// So many bytes that a request is read on a compute thread, and few enough that it is gathered.
const PADDING: usize = 10_000;

/// Keeps all compute threads from work as long as it exists.
struct Blocked(Arc<(Mutex<bool>, Condvar)>);

impl Blocked {
    fn all() -> Self {
        let released = Arc::new((Mutex::new(false), Condvar::new()));
        for _ in 0..rayon::current_num_threads() {
            let released = Arc::clone(&released);
            rayon::spawn(move || {
                let (flag, told) = &*released;
                drop(told.wait_while(flag.lock().unwrap(), |released| !*released).unwrap());
            });
        }
        Self(released)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Bytes as they are, whatever they are.
#[derive(Clone, Copy, Default)]
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = ExportLogsServiceResponse;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        Ok(Some(ExportLogsServiceResponse::decode(input.copy_to_bytes(input.remaining())).unwrap()))
    }
}

/// Ships `body` for the first workspace.
async fn send(parts: &Parts, body: Bytes) -> Result<ExportLogsServiceResponse, Status> {
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export".parse().unwrap();
    let mut message = Request::new(body);
    message.metadata_mut().insert("authorization", "Bearer 0".parse().unwrap());
    let mut client = tonic::client::Grpc::new(parts.channel.clone());
    client.ready().await.unwrap();
    client.unary(message, path, AsTheyAre).await.map(tonic::Response::into_inner)
}

/// Waits until `requests` requests of about [`PADDING`] bytes and their columns have been let in.
async fn let_in(parts: &Parts, requests: usize) {
    let taken = || parts.budget.total() - parts.budget.free();
    until("the requests to be let in", async || taken() > requests * 2 * PADDING).await;
}

/// The entries of the first cluster's log.
fn frames(world: &World) -> usize {
    let files = world.log_files(cluster(0));
    let count = |file| {
        let mut reader = FileReader::open(&world.disk, file).unwrap();
        std::iter::from_fn(|| reader.next_item().unwrap()).filter(|item| matches!(item, Item::Entry(_))).count()
    };
    files.iter().map(|file| count(file.as_path())).sum()
}

/// As many as go on by themselves, since nothing else is under way.
fn alone_under_way() -> usize {
    rayon::current_num_threads().max(2)
}

/// Scenario: more requests come than may be under way, while the threads that read them are busy; then the process is killed. Guarantee: those that
/// waited are one frame of the log, all are acknowledged, and each record is there once, before and after the restart.
#[test]
fn requests_that_wait_become_one_frame() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        let blocked = Blocked::all();
        let requests: Vec<Vec<Id>> = (0..alone_under_way() + 15).map(|_| parts.new_records(0, 3)).collect();
        let release = async {
            let_in(parts, requests.len()).await;
            drop(blocked);
        };
        let sent = join_all(requests.iter().map(|records| parts.send(records, PADDING / 3)));
        let (sent, ()) = futures::future::join(sent, release).await;
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
        assert_eq!(frames(&world), alone_under_way() + 1);
        assert_eq!(parts.check("in memory").await.loaded.len(), requests.len() * 3);
    });
    life.kill();
    let life = world.start(&Settings::cut_at_once());
    life.run(async |parts| {
        parts.sealed().await;
        parts.check("after a restart").await;
    });
    life.stop();
}

/// A request of one record whose body is nested deeper than may be.
fn too_deep(id: Id) -> Bytes {
    let mut message = request(&[id], "key", PADDING);
    let body = &mut message.resource_logs[0].scope_logs[0].log_records[0].body;
    for _ in 0..logseal_core::limit::VALUE_NESTING {
        let inner = ArrayValue { values: body.take().into_iter().collect() };
        *body = Some(AnyValue { value: Some(Value::ArrayValue(inner)) });
    }
    message.encode_to_vec().into()
}

/// Scenario: among requests that wait together one is cut off, so that it would take the next one's bytes for its own, or one has a record that is
/// rejected. Guarantee: that one alone is told so; the records of the others are there, once.
#[test]
fn a_bad_request_among_others_is_refused_alone() {
    let _alone = alone();
    let cut_off = |id: Id| {
        let whole = request(&[id], "key", PADDING).encode_to_vec();
        Bytes::from(whole).slice(..PADDING / 2)
    };
    for bad in [&cut_off as &dyn Fn(Id) -> Bytes, &too_deep] {
        let world = Arc::new(World::new());
        let life = world.start(&Settings::default());
        life.run(async |parts| {
            let good: Vec<Vec<Id>> = (0..alone_under_way() + 4).map(|_| parts.new_records(0, 3)).collect();
            let body = bad(parts.new_records(0, 1)[0]);
            let is_cut_off = body.len() < PADDING;
            let blocked = Blocked::all();
            // The bad one comes when all that may be under way is: it waits, and others wait with it.
            let first = join_all(good[..alone_under_way()].iter().map(|records| parts.send(records, PADDING / 3)));
            let rest = async {
                let_in(parts, alone_under_way()).await;
                let others = good[alone_under_way()..].iter().map(|records| parts.send(records, PADDING / 3));
                let release = async {
                    let_in(parts, good.len()).await;
                    drop(blocked);
                };
                futures::future::join3(send(parts, body), join_all(others), release).await
            };
            let (first, (bad, others, ())) = futures::future::join(first, rest).await;
            assert!(first.iter().chain(&others).all(Result::is_ok), "{first:?}, {others:?}");
            match bad {
                Err(status) => assert!(is_cut_off && status.code() == Code::InvalidArgument, "{status:?}"),
                Ok(answer) => assert_eq!(answer.partial_success.map(|partial| partial.rejected_log_records), Some(1)),
            }
            assert_eq!(parts.check("in memory").await.loaded.len(), good.len() * 3);
        });
        life.stop();
    }
}

/// Scenario: a large request of one workspace, whose columns take more than its bytes. Guarantee: as much is expected of its next one, and no more of another
/// workspace's.
#[test]
fn what_a_request_took_is_expected_of_the_next() {
    let _alone = alone();
    let world = Arc::new(World::new());
    let life = world.start(&Settings::default());
    life.run(async |parts| {
        let expected = |n| parts.frames.tables.workspace(workspace(n)).unwrap().learned().expansion();
        let before = expected(0);
        parts.ship(0, 2_000).await.unwrap();
        assert!(expected(0).chunk_bytes(1 << 20) > before.chunk_bytes(1 << 20), "{:?}", expected(0));
        assert_eq!(expected(1), before);
    });
    life.stop();
}
