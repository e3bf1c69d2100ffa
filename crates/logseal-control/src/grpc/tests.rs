//! `logseal.v1.Operations` through its generated client, over a control plane with a real catalog and a real vault.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use logseal_core::OperationId;
use logseal_keys::Slot;
use serde_json::json;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status, Streaming};

use super::service::Bounds;
use super::v1::operations_client::OperationsClient;
use super::*;
use crate::operation::Operation;
use crate::operation::world::{Fault, Faults, NoFaults, Point};
use crate::request::{self, Written};
use crate::resource::Method;
use crate::testing::management::{TOKEN, management};
use crate::testing::{Deployment, caller, place};

/// A step that begins when the test says so.
#[derive(Debug)]
struct Gate {
    step: &'static str,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn before(step: &'static str) -> Arc<Self> {
        Arc::new(Self { step, is_open: Mutex::new(false), opened: Condvar::new() })
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Faults for Gate {
    fn at(&self, _: &str, step: &str, point: Point) -> Option<Fault> {
        if step == self.step && point == Point::Before {
            // A test that failed leaves its gate closed; its runtime has to end all the same.
            let long = Duration::from_secs(60);
            let open = self.opened.wait_timeout_while(self.is_open.lock().unwrap(), long, |is_open| !*is_open);
            drop(open.unwrap());
        }
        None
    }
}

/// Fails a step, once.
#[derive(Debug)]
struct FailOnce(&'static str, AtomicBool);

impl Faults for FailOnce {
    fn at(&self, _: &str, step: &str, point: Point) -> Option<Fault> {
        let here = step == self.0 && point == Point::Done && !self.1.swap(true, Ordering::SeqCst);
        let failure = crate::operation::Failure { code: "Broken".to_owned(), message: "it broke".to_owned() };
        here.then_some(Fault::Fail(failure))
    }
}

type Client = OperationsClient<InterceptedService<Routes, Bearer>>;

#[derive(Clone)]
struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            call.metadata_mut().insert("authorization", self.0.parse().unwrap());
        }
        Ok(call)
    }
}

fn client_of(routes: Routes, authorization: &str) -> Client {
    OperationsClient::with_interceptor(routes, Bearer(authorization.to_owned()))
}

/// A client of `deployment` that is let in, and what stops the server.
async fn client(deployment: &Deployment) -> (Client, watch::Sender<bool>) {
    let (stop, shutdown) = watch::channel(false);
    let api = Arc::new(management(deployment).await);
    (client_of(routes(&api, shutdown), &format!("Bearer {TOKEN}")), stop)
}

/// As [`client`], with other bounds.
fn bounded(deployment: &Deployment, bounds: Bounds) -> (Client, watch::Sender<bool>) {
    let (stop, shutdown) = watch::channel(false);
    let service = OperationsService::new(Arc::clone(&deployment.operations), shutdown, bounds);
    (client_of(Routes::new(OperationsServer::new(service)), ""), stop)
}

async fn create(deployment: &Deployment, name: &str) -> Operation {
    let body = json!({"location": "x"});
    let written =
        request::write_workspace(&deployment.operations, place(name), &body, Method::Put, &caller()).await.unwrap();
    match written {
        Written::Started { operation, .. } => *operation,
        Written::Changed(_) => panic!("it is new"),
    }
}

async fn delete(deployment: &Deployment, name: &str, force: bool) -> Operation {
    request::delete_workspace(&deployment.operations, place(name), force, &caller()).await.unwrap().unwrap()
}

async fn get(client: &mut Client, id: &str) -> Result<v1::Operation, Status> {
    Ok(client.get_operation(v1::GetOperationRequest { id: id.to_owned() }).await?.into_inner())
}

async fn wait(client: &mut Client, id: &str, timeout: Option<Duration>) -> Result<v1::Operation, Status> {
    let timeout = timeout.map(|timeout| timeout.try_into().unwrap());
    Ok(client.wait_operation(v1::WaitOperationRequest { id: id.to_owned(), timeout }).await?.into_inner())
}

async fn cancel(client: &mut Client, id: &str) -> Result<v1::Operation, Status> {
    Ok(client.cancel_operation(v1::CancelOperationRequest { id: id.to_owned() }).await?.into_inner())
}

async fn watch_it(client: &mut Client, id: &str) -> Result<Streaming<v1::Operation>, Status> {
    Ok(client.watch_operation(v1::WatchOperationRequest { id: id.to_owned() }).await?.into_inner())
}

async fn all(changes: Streaming<v1::Operation>) -> Vec<v1::Operation> {
    changes.map(|change| change.expect("a change")).collect().await
}

/// Each method of the service, asked for something that is not there, or for everything.
async fn call_each(client: &mut Client, id: &str) -> Vec<(&'static str, Option<Status>)> {
    let listed = client.list_operations(v1::ListOperationsRequest::default()).await.err();
    vec![
        ("GetOperation", get(client, id).await.err()),
        ("ListOperations", listed),
        ("WaitOperation", wait(client, id, None).await.err()),
        ("WatchOperation", watch_it(client, id).await.err()),
        ("CancelOperation", cancel(client, id).await.err()),
    ]
}

/// Scenario: each method is called with a token of each role. Guarantee: the roles that are listed here get to the method, the others are refused
/// with the role that is needed; every method of the service has an entry in the table, and the table has no other.
#[tokio::test]
async fn each_method_is_for_its_roles() {
    use crate::gate::Role;
    let deployment = Deployment::new().await;
    let api = Arc::new(management(&deployment).await);
    let (_running, stopping) = watch::channel(false);
    let routes = routes(&api, stopping);
    let nobody = OperationId::from_bytes([9; 16]).to_string();
    for role in Role::ALL {
        let token = crate::testing::management::token(&api, role).await;
        let mut client = client_of(routes.clone(), &format!("Bearer {token}"));
        for (method, refused) in call_each(&mut client, &nobody).await {
            let is_for = match method {
                "CancelOperation" => role == Operator,
                _ => role != Role::Reader,
            };
            let code = refused.as_ref().map_or(Code::Ok, Status::code);
            if is_for {
                assert!(matches!(code, Code::Ok | Code::NotFound), "{method} {role}: {refused:?}");
            } else {
                let message = refused.map(|status| status.message().to_owned()).unwrap_or_default();
                assert_eq!(code, Code::PermissionDenied, "{method} {role}");
                assert!(message.contains("`operator`") && message.contains(role.as_str()), "{message}");
            }
        }
        let unknown =
            http::Request::post("/logseal.v1.Operations/Nothing").header("authorization", format!("Bearer {token}"));
        let unknown = unknown.body(tonic::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(routes.clone(), unknown).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], (Code::PermissionDenied as i32).to_string().as_str());
    }
    let described = <prost_types::FileDescriptorSet as prost::Message>::decode(FILE_DESCRIPTOR_SET).unwrap();
    let own = described.file.iter().find(|file| file.package() == "logseal.v1").unwrap();
    let mut methods: Vec<_> = own.service[0].method.iter().map(|method| method.name().to_owned()).collect();
    methods.sort();
    let prefix = "/logseal.v1.Operations/";
    let mut table: Vec<_> = METHODS.iter().map(|(path, _)| path.strip_prefix(prefix).unwrap().to_owned()).collect();
    table.sort();
    assert_eq!(methods, table);
}

/// Scenario: calls without a token, with a wrong one, and with a shipper's key. Guarantee: no method lets any of them in, whatever it is
/// asked for, and a method that does not exist says nothing else.
#[tokio::test]
async fn only_a_token_opens_it() {
    let deployment = Deployment::new().await;
    let operation = create(&deployment, "work").await;
    let id = operation.row.id.to_string();
    deployment.succeed(&operation).await;
    let keys = deployment.catalog.workspace_keys_of(operation.row.resource.workspace()).await.unwrap();
    assert_eq!(keys.len(), Slot::ALL.len());
    let key = deployment.access.reveal(&keys[0]).unwrap();
    let fresh = async || routes(&Arc::new(management(&deployment).await), watch::channel(false).1);
    for authorization in ["", "Bearer wrong", TOKEN, &format!("Bearer {}", *key)] {
        // Each by itself: too many of one peer would be answered otherwise.
        let routes = fresh().await;
        let mut client = client_of(routes.clone(), authorization);
        let listed = client.list_operations(v1::ListOperationsRequest::default()).await.map(|_| ());
        for refused in [
            get(&mut client, &id).await.map(|_| ()),
            get(&mut client, "no id").await.map(|_| ()),
            wait(&mut client, &id, None).await.map(|_| ()),
            cancel(&mut client, &id).await.map(|_| ()),
            watch_it(&mut client, &id).await.map(|_| ()),
            listed,
        ] {
            assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "{authorization:?}");
        }
        let unknown = http::Request::post("/logseal.v1.Operations/Nothing").body(tonic::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(routes.clone(), unknown).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], (Code::Unauthenticated as i32).to_string().as_str());
    }
    let mut client = client_of(fresh().await, &format!("Bearer {TOKEN}"));
    assert!(get(&mut client, &id).await.unwrap().done);
}

/// Scenario: operations that succeeded with a result, and failed. Guarantee: the message says what the management API's status says.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_what_the_status_document_says() {
    let mut deployment = Deployment::new().await;
    deployment.succeed(&create(&deployment, "work").await).await;
    let purged = delete(&deployment, "work", true).await;
    deployment.end(purged.row.id).await;
    deployment.restart(Arc::new(FailOnce("open", AtomicBool::new(false)))).await;
    let failed = create(&deployment, "other").await;
    deployment.end(failed.row.id).await;
    let (mut client, _stop) = client(&deployment).await;
    for id in [purged.row.id, failed.row.id] {
        let operation = deployment.operations.find(id).await.unwrap().unwrap();
        let listed = operation.listed(0.0);
        let shown = get(&mut client, &id.to_string()).await.unwrap();
        assert_eq!(json!(shown.id), listed["name"]);
        assert_eq!(json!(shown.kind), listed["kind"]);
        assert_eq!(json!(shown.resource_id), listed["resourceId"]);
        assert_eq!(json!(shown.status_path), listed["id"]);
        assert_eq!(json!(shown.status), listed["status"]);
        assert!(shown.done && shown.step.is_empty() && shown.percent_complete == 100);
        assert!(shown.end_time.unwrap().seconds >= shown.start_time.unwrap().seconds);
        let error = shown.error.map(|error| json!({"code": error.code, "message": error.message}));
        assert_eq!(error.unwrap_or_default(), listed["error"]);
        let keys = shown.result.map(|result| result.fields["shreddedKeys"].kind.clone().unwrap());
        let number = keys.map(|kind| match kind {
            prost_types::value::Kind::NumberValue(number) => json!(number as u64),
            other => panic!("{other:?}"),
        });
        assert_eq!(number.unwrap_or_default(), listed["properties"]["shreddedKeys"]);
    }
    let status = |id: OperationId| deployment.operations.find(id);
    assert_eq!(status(purged.row.id).await.unwrap().unwrap().status(), "Succeeded");
    assert_eq!(status(failed.row.id).await.unwrap().unwrap().status(), "Failed");
}

/// Scenario: an operation is watched from before its first step. Guarantee: each step comes once and in its order, then the end, then
/// nothing; who watches an operation that has ended gets it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_watcher_sees_each_step_in_order_and_the_end() {
    let mut deployment = Deployment::new().await;
    let gate = Gate::before("add-workspace");
    deployment.restart(Arc::clone(&gate) as _).await;
    let operation = create(&deployment, "work").await;
    let id = operation.row.id.to_string();
    let (mut client, _stop) = client(&deployment).await;
    let mut changes = watch_it(&mut client, &id).await.unwrap();
    let first = changes.next().await.unwrap().unwrap();
    assert_eq!((first.status.as_str(), first.step.as_str(), first.done), ("InProgress", "add-workspace", false));
    gate.open();
    let rest = all(changes).await;
    // Progress within a step may be sent as well, when the machine is slow.
    let mut steps: Vec<_> = rest.iter().map(|change| (change.step.as_str(), change.status.as_str())).collect();
    steps.dedup();
    assert_eq!(steps, [("open", "InProgress"), ("finish", "InProgress"), ("", "Succeeded")]);
    assert!(rest.windows(2).all(|pair| pair[0].percent_complete <= pair[1].percent_complete));
    let last = rest.last().unwrap();
    assert!(last.done && last.percent_complete == 100 && last.end_time.is_some());
    let again = all(watch_it(&mut client, &id).await.unwrap()).await;
    assert_eq!(again.as_slice(), std::slice::from_ref(last));
}

/// Scenario: a crash breaks off an operation that is watched over no task, and the next start ends it. Guarantee: a watcher of an
/// operation that nobody runs yet gets its end as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_an_operation_that_goes_on_later_sees_its_end() {
    #[derive(Debug)]
    struct Crash;
    impl Faults for Crash {
        fn at(&self, _: &str, step: &str, point: Point) -> Option<Fault> {
            (step == "open" && point == Point::Before).then_some(Fault::Crash)
        }
    }
    let mut deployment = Deployment::new().await;
    deployment.restart(Arc::new(Crash)).await;
    let operation = create(&deployment, "work").await;
    deployment.end(operation.row.id).await;
    // As a start begins: the catalog is open, and nothing runs yet.
    deployment.restart_later(Arc::new(NoFaults)).await;
    let (mut client, _stop) = client(&deployment).await;
    let mut changes = watch_it(&mut client, &operation.row.id.to_string()).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().step, "open");
    deployment.operations.resume().await.unwrap();
    assert_eq!(all(changes).await.last().unwrap().status, "Succeeded");
}

/// Scenario: waits for an operation that is held up, and for one that goes on. Guarantee: the first answers after its time with what is,
/// the second when it has ended; what is no time or no operation is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wait_ends_with_the_operation_or_with_its_time() {
    let mut deployment = Deployment::new().await;
    let gate = Gate::before("open");
    deployment.restart(Arc::clone(&gate) as _).await;
    let id = create(&deployment, "work").await.row.id.to_string();
    let (mut client, stop) = client(&deployment).await;
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let now = wait(&mut client, &id, Some(timeout)).await.unwrap();
        assert!(!now.done && now.end_time.is_none() && now.status == "InProgress");
    }
    let timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let negative = client.wait_operation(v1::WaitOperationRequest { id: id.clone(), timeout }).await;
    assert_eq!(negative.unwrap_err().code(), Code::InvalidArgument);
    let nobody = OperationId::from_bytes([9; 16]).to_string();
    for (id, code) in [("", Code::InvalidArgument), ("x", Code::InvalidArgument), (&nobody, Code::NotFound)] {
        assert_eq!(wait(&mut client, id, None).await.unwrap_err().code(), code, "{id:?}");
        assert_eq!(get(&mut client, id).await.unwrap_err().code(), code, "{id:?}");
        assert_eq!(cancel(&mut client, id).await.unwrap_err().code(), code, "{id:?}");
        assert_eq!(watch_it(&mut client, id).await.unwrap_err().code(), code, "{id:?}");
    }
    gate.open();
    let ended = wait(&mut client, &id, Some(Duration::from_secs(60))).await.unwrap();
    assert!(ended.done && ended.status == "Succeeded");
    drop(stop);
}

/// Scenario: an operation is canceled while it runs, once more, and after another one's success. Guarantee: the first ends as canceled
/// and its resource is gone, the second is no error, the third is too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operation_is_canceled_until_it_is_too_late() {
    let mut deployment = Deployment::new().await;
    let gate = Gate::before("open");
    deployment.restart(Arc::clone(&gate) as _).await;
    let id = create(&deployment, "work").await.row.id.to_string();
    let (mut client, _stop) = bounded(&deployment, Bounds { watchers: 1, cancel: Duration::ZERO });
    assert!(!cancel(&mut client, &id).await.unwrap().done, "it is asked for, and the step under way goes on");
    gate.open();
    let ended = wait(&mut client, &id, Some(Duration::from_secs(60))).await.unwrap();
    let state = (ended.state(), ended.status.as_str(), ended.error.as_ref().map(|error| error.code.as_str()));
    assert_eq!(state, (v1::OperationState::Canceled, "Canceled", Some("OperationCanceled")));
    assert_eq!(cancel(&mut client, &id).await.unwrap(), ended);
    let kind = logseal_catalog::ResourceKind::Workspace;
    assert!(request::existing(&deployment.operations, kind, place("work")).await.is_err());
    let succeeded = create(&deployment, "other").await;
    deployment.succeed(&succeeded).await;
    let late = cancel(&mut client, &succeeded.row.id.to_string()).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late:?}");
}

/// Scenario: more calls wait and watch than may, and one of them goes away. Guarantee: what is too many is refused at once, other methods
/// are not, and the place of a client that goes is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watchers_are_bounded_and_leave_their_place() {
    let mut deployment = Deployment::new().await;
    let gate = Gate::before("open");
    deployment.restart(Arc::clone(&gate) as _).await;
    let id = create(&deployment, "work").await.row.id.to_string();
    let (mut client, _stop) = bounded(&deployment, Bounds { watchers: 1, cancel: Duration::ZERO });
    let held = watch_it(&mut client, &id).await.unwrap();
    assert_eq!(watch_it(&mut client, &id).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(wait(&mut client, &id, None).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(!get(&mut client, &id).await.unwrap().done);
    drop(held);
    let mut next = watch_it(&mut client, &id).await.unwrap();
    assert!(next.next().await.unwrap().is_ok());
    gate.open();
    assert!(all(next).await.last().unwrap().done);
    assert!(wait(&mut client, &id, None).await.unwrap().done, "the end of a stream frees its place");
}

/// Scenario: the server stops while calls watch and wait. Guarantee: both end at once with `UNAVAILABLE`, so that they hold up nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_ends_those_who_wait() {
    let mut deployment = Deployment::new().await;
    let gate = Gate::before("open");
    deployment.restart(Arc::clone(&gate) as _).await;
    let id = create(&deployment, "work").await.row.id.to_string();
    let (mut client, stop) = client(&deployment).await;
    let mut changes = watch_it(&mut client, &id).await.unwrap();
    let first = changes.next().await.unwrap().unwrap();
    assert!(!first.done);
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { wait(&mut other, &first.id, Some(Duration::from_secs(60))).await });
    stop.send_replace(true);
    let last = loop {
        match changes.next().await.unwrap() {
            // The step before the held one, which is under way when the watch begins.
            Ok(change) => assert!(!change.done),
            Err(status) => break status,
        }
    };
    assert_eq!(last.code(), Code::Unavailable);
    assert!(changes.next().await.is_none());
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);
    gate.open();
}

async fn pages(client: &mut Client, request: v1::ListOperationsRequest) -> Vec<Vec<v1::Operation>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListOperationsRequest { page_token, ..request.clone() };
        let page = client.list_operations(request).await.unwrap().into_inner();
        pages.push(page.operations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
    }
}

/// Scenario: five operations in three states, listed by pages and by filters. Guarantee: every operation that passes the filters is listed
/// once, newest first, also of a resource that is gone; a token works with its own filters only.
#[tokio::test(flavor = "multi_thread")]
async fn operations_are_listed_by_pages_and_filters() {
    let mut deployment = Deployment::new().await;
    // Ids are in the order of their milliseconds, and within one in none.
    let tick = |deployment: &Deployment| deployment.clock.advance(Duration::from_millis(1));
    let mut made = Vec::new();
    for name in ["work-1", "work-2", "work-3"] {
        made.push(create(&deployment, name).await);
        deployment.succeed(made.last().unwrap()).await;
        tick(&deployment);
    }
    made.push(delete(&deployment, "work-2", true).await);
    deployment.succeed(made.last().unwrap()).await;
    tick(&deployment);
    deployment.restart(Arc::new(FailOnce("open", AtomicBool::new(false)))).await;
    made.push(create(&deployment, "work-4").await);
    deployment.end(made.last().unwrap().row.id).await;
    let newest_first: Vec<_> = made.iter().rev().map(|operation| operation.row.id.to_string()).collect();
    let (mut client, _stop) = client(&deployment).await;
    let ids = |pages: &[Vec<v1::Operation>]| -> Vec<String> {
        pages.iter().flatten().map(|operation| operation.id.clone()).collect()
    };
    for (page_size, lengths) in [(0, &[5][..]), (2, &[2, 2, 1]), (5, &[5, 0]), (7, &[5])] {
        let pages = pages(&mut client, v1::ListOperationsRequest { page_size, ..Default::default() }).await;
        assert_eq!(ids(&pages), newest_first);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    }
    let by_state = |state: v1::OperationState| v1::ListOperationsRequest { state: state.into(), ..Default::default() };
    assert_eq!(ids(&pages(&mut client, by_state(v1::OperationState::Failed)).await), newest_first[..1]);
    assert_eq!(ids(&pages(&mut client, by_state(v1::OperationState::Running)).await), [""; 0]);
    assert_eq!(ids(&pages(&mut client, by_state(v1::OperationState::Succeeded)).await), newest_first[1..]);
    let of_resource = v1::ListOperationsRequest {
        resource_id: format!("{}/", made[1].row.target.to_uppercase()),
        page_size: 1,
        ..Default::default()
    };
    let of_work_2 = [made[3].row.id.to_string(), made[1].row.id.to_string()];
    assert_eq!(
        ids(&pages(&mut client, of_resource.clone()).await),
        of_work_2,
        "it is gone, and its operations are not"
    );
    for (subscription, count) in [(made[0].row.subscription.to_uppercase(), 5), ("other".to_owned(), 0)] {
        let request = v1::ListOperationsRequest { subscription, ..Default::default() };
        assert_eq!(pages(&mut client, request).await.concat().len(), count);
    }
    let first = client.list_operations(of_resource.clone()).await.unwrap().into_inner();
    assert!(!first.next_page_token.is_empty());
    for wrong in [
        v1::ListOperationsRequest { page_token: first.next_page_token, ..Default::default() },
        v1::ListOperationsRequest { page_token: "x".to_owned(), ..of_resource },
        v1::ListOperationsRequest { page_size: -1, ..Default::default() },
        v1::ListOperationsRequest { state: 99, ..Default::default() },
    ] {
        let refused = client.list_operations(wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
}
