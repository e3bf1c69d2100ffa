//! Shippers with certificates of their own.

use logseal_testkit::Server;
use serde_json::Value;
use tonic::Code;

use super::clients::{Authority, COMMON_NAME, Http, Pair, export, is_ended, open};
use super::{Files, start};
use crate::Deployment;
use crate::cli::{done, json};

/// What a shipper is told over gRPC, unless it is thanked, and over HTTP.
type Answer = (Option<Code>, u16);

const UNAUTHENTICATED: Answer = (Some(Code::Unauthenticated), 401);
const TAKEN: Answer = (None, 200);

/// Ships one record over gRPC and one over HTTP.
async fn ship(server: &Server, authority: &Authority, client: Option<&Pair>, key: Option<&str>) -> Answer {
    let by_grpc = export(server.otlp_grpc(), authority, client, key, "shipped").await;
    let mut http = Http::open(server.otlp_http(), authority, client, "http/1.1").await.expect("a handshake");
    (by_grpc.err().map(|status| status.code()), http.post(key, "shipped").await)
}

/// The rows of a workspace.
fn count(server: &Server, workspace: &str) -> u64 {
    let rows = server.query_in(workspace, "SELECT count(*) AS n FROM logs").expect("rows");
    rows[0]["n"].as_u64().expect("a number")
}

/// Scenario: shippers with each kind of certificate and key. Guarantee: a certificate whose name is mapped is as good as a key of that
/// workspace, and of no other; one that is not mapped, or by its common name only, is as good as none; one of a foreign authority ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_certificate_is_taken_in_place_of_the_key() {
    let deployment = Deployment::new();
    let server = deployment.start();
    done(&server, &["workspace", "create", "team"]);
    let shown = json(&server, &["workspace", "show", "team"]);
    let team = shown.pointer("/properties/customerId").and_then(Value::as_str).expect("its id").to_owned();
    let keys = json(&server, &["workspace", "keys", "team"]);
    let of_team = keys["primarySharedKey"].as_str().expect("its key").to_owned();
    assert!(server.stop().success());

    let (servers, clients, foreign) = (Authority::new("servers"), Authority::new("clients"), Authority::new("foreign"));
    let ca = Files::new(&deployment).put("clients.pem", &clients.pem());
    let gone = "0194d5a0-0000-7000-8000-000000000001";
    let ca = format!("tls.client_ca={}", ca.display());
    let names = format!(
        "tls.client_workspaces=shipper.team={team},spiffe://x/team={team} gone.team={gone} {COMMON_NAME}={team}"
    );
    let server = start(&deployment, &servers, &[&ca, &names]);
    let of_default = server.workspace_key().to_owned();
    let (by_dns, by_uri) = (clients.issue(&["Shipper.Team"]), clients.issue(&["other.name", "spiffe://x/team"]));
    let unmapped = clients.issue(&["stranger.team", "spiffe://x/team/b"]);
    let (two, gone) = (clients.issue(&["shipper.team", "gone.team"]), clients.issue(&["gone.team"]));
    let cases: [(&str, Option<&Pair>, Option<&str>, Answer); 12] = [
        ("a name", Some(&by_dns), None, TAKEN),
        ("a URI", Some(&by_uri), None, TAKEN),
        ("with its own key", Some(&by_dns), Some(&of_team), TAKEN),
        ("with another one's key", Some(&by_dns), Some(&of_default), UNAUTHENTICATED),
        ("with nobody's key", Some(&by_dns), Some("nobody's"), UNAUTHENTICATED),
        ("not mapped", Some(&unmapped), None, UNAUTHENTICATED),
        ("not mapped, with a key", Some(&unmapped), Some(&of_team), TAKEN),
        ("of two workspaces", Some(&two), None, UNAUTHENTICATED),
        ("of two workspaces, with a key", Some(&two), Some(&of_team), UNAUTHENTICATED),
        ("of a workspace that is not there", Some(&gone), None, UNAUTHENTICATED),
        ("a key alone", None, Some(&of_team), TAKEN),
        ("nothing", None, None, UNAUTHENTICATED),
    ];
    let mut expected = 0;
    for (what, client, key, answer) in cases {
        assert_eq!(ship(&server, &servers, client, key).await, answer, "{what}");
        expected += if answer == TAKEN { 2 } else { 0 };
    }
    assert_eq!((count(&server, "team"), count(&server, "default")), (expected, 0));

    let refused =
        export(server.otlp_grpc(), &servers, Some(&unmapped), None, "no").await.expect_err("it stands for none");
    assert!(refused.message().contains("no name in the client certificate"), "{refused}");

    let stranger = foreign.issue(&["shipper.team"]);
    for endpoint in [server.otlp_grpc(), server.otlp_http()] {
        let refused = match open(endpoint, &servers, Some(&stranger), &["h2"]).await {
            Ok(stream) => is_ended(stream).await,
            Err(_) => true,
        };
        assert!(refused, "{endpoint}");
    }
    assert!(export(server.otlp_grpc(), &servers, Some(&stranger), Some(&of_team), "no").await.is_err());

    let management = server.credential("/endpoints/management");
    let token = server.credential("/managementToken");
    let mut api = Http::open(management, &servers, Some(&by_dns), "http/1.1").await.expect("a handshake");
    assert_eq!(api.ask("GET", "/metrics", None, Vec::new()).await.0, 401, "no certificate is a token");
    assert_eq!(api.ask("GET", "/metrics", Some(token), Vec::new()).await.0, 200);
    assert_eq!((count(&server, "team"), count(&server, "default")), (expected, 0));
    assert!(server.stop().success());
}
