//! The endpoints of the management API: for which roles each is, what it is called, takes and answers, and who answers.

use super::routes::Content::{Json, Nothing, Result as QueryResult, Text};
use super::routes::Method::{Delete, Get, Patch, Post, Put};
use super::routes::{Endpoint, Method, Routes};
use super::{audit, health, key_release, keys, operations, query, resources, segments, tokens};
use crate::gate::Role::{self, Auditor, KeyOfficer, Operator, Reader};

const SUBSCRIPTION: &str = "/subscriptions/{subscription}/providers/Microsoft.OperationalInsights";
const GROUP: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.OperationalInsights";

/// Who changes resources, and whose changes are operations that they follow.
const MANAGERS: &[Role] = &[Operator, KeyOfficer];

/// Who sees operations.
const FOLLOWERS: &[Role] = &[Operator, KeyOfficer, Auditor];

/// Headers by which an operation is followed.
const FOLLOW: &[&str] = &["Azure-AsyncOperation", "Location", "Retry-After"];
const FOLLOW_RESOURCE: &[&str] = &["Azure-AsyncOperation", "ETag", "Location", "Retry-After"];
const RESOURCE: &[&str] = &["ETag"];

/// Headers of an answer that holds a key.
const SECRET: &[&str] = &["Cache-Control"];
const REGENERATED: &[&str] = &["Azure-AsyncOperation", "Cache-Control"];

/// Conditions of RFC 9110.
const CONDITIONS: &[&str] = &["If-Match", "If-None-Match"];

/// What load balancers ask, who have no token.
pub(super) fn open() -> Routes {
    let text = |path, id, summary| Endpoint::new(&[], Get, path, id, summary).open();
    Routes::default()
        .at(
            text("/healthz", "Health_Alive", "Whether the process answers.").answers(
                200,
                "It does.",
                Text("text/plain"),
                &[],
            ),
            health::alive,
        )
        .at(
            text("/readyz", "Health_Ready", "Whether requests are served.")
                .answers(200, "They are.", Text("text/plain"), &[])
                .answers(503, "Not yet, or not any more.", Text("text/plain"), &[]),
            health::ready,
        )
}

/// Everything that needs a token, but for the document itself.
pub(super) fn guarded() -> Routes {
    let routes = Routes::default()
        .at(
            Endpoint::new(&[Operator, Auditor], Get, "/metrics", "Metrics_Get", "Metrics in Prometheus' text format.")
                .answers(200, "As they are now.", Text("text/plain"), &[]),
            health::metrics,
        )
        .at(
            Endpoint::new(
                &[Reader],
                Post,
                "/v1/workspaces/{workspace}/query",
                "Queries_Run",
                "Runs a query and waits for it.",
            )
            .body("Query")
            .answers(
                200,
                "The result, in the first form of `Accept` that there is.",
                QueryResult,
                &["X-Logseal-Truncated", "X-Logseal-Unsealed-Records", "X-Logseal-Lag-Ms"],
            )
            .fails(&[400, 404, 406, 500, 503]),
            query::query,
        )
        .at(
            Endpoint::new(
                MANAGERS,
                Get,
                "/v1/segments",
                "Segments_List",
                "The segments of all workspaces, or of those of one name.",
            )
            .takes(&["workspace"])
            .shows("SegmentList")
            .fails(&[400, 404, 503]),
            segments::segments,
        )
        .at(
            Endpoint::new(FOLLOWERS, Get, "/v1/operations", "Operations_List", "Operations, newest first.")
                .takes(&["status", "operationBefore", "top"])
                .shows("OperationList")
                .fails(&[400, 404, 503]),
            operations::list,
        )
        .at(
            Endpoint::new(
                FOLLOWERS,
                Get,
                "/v1/operations/{id}",
                "Operations_Get",
                "One operation; with `wait`, when it has ended.",
            )
            .takes(&["wait"])
            .shows("Operation")
            .fails(&[400, 404, 503]),
            operations::show,
        )
        .at(
            Endpoint::new(
                &[Operator],
                Post,
                "/v1/operations/{id}/cancel",
                "Operations_Cancel",
                "Cancels an operation that has done nothing yet that stays, and waits for its end for up to 30 s.",
            )
            .shows("Operation")
            .fails(&[400, 404, 409, 503]),
            operations::cancel,
        )
        .at(
            Endpoint::new(&[Auditor], Get, "/v1/audit", "Audit_List", "Records of the audit trail, newest first.")
                .takes(&["recordBefore", "top"])
                .shows("AuditList")
                .fails(&[400, 503]),
            audit::list,
        )
        .at(
            Endpoint::new(&[Auditor], Get, "/v1/audit/verify", "Audit_Verify", "Checks the whole audit trail.")
                .shows("AuditVerdict")
                .fails(&[503]),
            audit::verify,
        );
    links(workspaces(clusters(resource_manager(data_keys(access_tokens(routes))))))
}

/// Tokens of this API: whoever makes them could give themselves any role, so they are for who has all rights.
fn access_tokens(routes: Routes) -> Routes {
    let one = |method, id, summary| Endpoint::new(&[], method, "/v1/tokens/{token}", id, summary).fails(&[503]);
    routes
        .at(
            Endpoint::new(&[], Get, "/v1/tokens", "Tokens_List", "The tokens, by name, without what opens anything.")
                .shows("TokenList")
                .fails(&[503]),
            tokens::list,
        )
        .at(
            Endpoint::new(&[], Post, "/v1/tokens", "Tokens_Create", "Makes a token. It never changes.")
                .body("TokenInput")
                .answers(201, "The token, which is shown this once.", Json("NewToken"), SECRET)
                .fails(&[400, 409, 503]),
            tokens::create,
        )
        .at(
            one(Get, "Tokens_Get", "One token, without what opens anything.").shows("Token").fails(&[400, 404]),
            tokens::show,
        )
        .at(
            one(Delete, "Tokens_Delete", "Deletes a token, which opens nothing any more when this is answered.")
                .answers(200, "It is deleted.", Nothing, &[])
                .answers(204, "There is no such token.", Nothing, &[])
                .fails(&[400]),
            tokens::delete,
        )
}

/// Data keys for readers outside of the server; what they answer is kept by nobody on the way.
fn data_keys(routes: Routes) -> Routes {
    let fails = &[400, 403, 404, 500, 503];
    routes
        .at(
            Endpoint::new(
                &[Reader],
                Post,
                "/v1/keys/{key}/unwrapkey",
                "Keys_Unwrap",
                "The data key of a segment, for a reader that has its file. Leaves a record in the audit trail.",
            )
            .body("WrappedKey")
            .answers(200, "The key, which opens that file for ever.", Json("UnwrappedKey"), SECRET)
            .fails(fails),
            key_release::unwrap,
        )
        .at(
            Endpoint::new(
                &[KeyOfficer],
                Post,
                "/v1/segments/{segment}/exportkey",
                "Segments_ExportKey",
                "The data key of a segment, to be kept. Leaves a record in the audit trail.",
            )
            .answers(200, "The key, which opens that file for ever.", Json("ExportedKey"), SECRET)
            .fails(&fails[1..]),
            key_release::export,
        )
}

/// A request in Azure Resource Manager's shape.
fn arm(roles: &'static [Role], method: Method, path: String, id: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new(roles, method, path, id, summary).takes(&["api-version"]).fails(&[400, 404, 503])
}

/// A request that may begin an operation.
fn change(roles: &'static [Role], method: Method, path: String, id: &'static str, summary: &'static str) -> Endpoint {
    arm(roles, method, path, id, summary).fails(&[409])
}

fn resource_manager(routes: Routes) -> Routes {
    let status = format!("{SUBSCRIPTION}/locations/{{location}}/operationStatuses/{{id}}");
    let ended = |path: String, id| {
        arm(MANAGERS, Get, path, id, "What the request that began the operation would have answered, had it waited.")
            .answers(200, "It has succeeded; the resource as it is now.", Json("Resource"), &[])
            .answers(202, "It runs.", Nothing, FOLLOW)
            .answers(204, "It has succeeded, and the resource is gone.", Nothing, &[])
            .fails(&[409])
    };
    routes
        .at(
            arm(FOLLOWERS, Get, status, "OperationStatuses_Get", "Where an operation is, also after it has failed.")
                .answers(
                    200,
                    "As it is now; with `Retry-After` as long as it runs.",
                    Json("OperationStatus"),
                    &["Retry-After"],
                ),
            operations::status,
        )
        .at(
            ended(format!("{GROUP}/clusters/{{name}}/operationresults/{{id}}"), "Clusters_OperationResult"),
            operations::result,
        )
        .at(
            ended(format!("{GROUP}/workspaces/{{name}}/operationresults/{{id}}"), "Workspaces_OperationResult"),
            operations::result,
        )
}

fn list(path: String, id: &'static str, summary: &'static str, schema: &'static str) -> Endpoint {
    arm(MANAGERS, Get, path, id, summary).takes(&["page.top", "page.skiptoken"]).shows(schema)
}

fn clusters(routes: Routes) -> Routes {
    let path = || format!("{GROUP}/clusters/{{name}}");
    let started = "The change is an operation now; the resource as it is until that has ended.";
    // Who changes what of it is told by `request::duties`.
    let write = |method, id, summary, schema| {
        change(MANAGERS, method, path(), id, summary)
            .takes(CONDITIONS)
            .body(schema)
            .answers(200, started, Json("Cluster"), FOLLOW_RESOURCE)
            .fails(&[412])
    };
    routes
        .at(
            list(format!("{SUBSCRIPTION}/clusters"), "Clusters_List", "The clusters of a subscription.", "ClusterList"),
            resources::list_clusters,
        )
        .at(
            list(
                format!("{GROUP}/clusters"),
                "Clusters_ListByResourceGroup",
                "The clusters of a resource group.",
                "ClusterList",
            ),
            resources::list_clusters,
        )
        .at(
            arm(MANAGERS, Get, path(), "Clusters_Get", "One cluster.").answers(
                200,
                "As it is now.",
                Json("Cluster"),
                RESOURCE,
            ),
            resources::get_cluster,
        )
        .at(
            write(Put, "Clusters_CreateOrUpdate", "Makes a cluster, or states its settings.", "ClusterInput"),
            resources::put_cluster,
        )
        .at(
            write(Patch, "Clusters_Update", "Changes settings of a cluster, its key among them.", "ClusterInput"),
            resources::patch_cluster,
        )
        .at(
            change(
                &[Operator],
                Delete,
                path(),
                "Clusters_Delete",
                "Deletes a cluster, and with `forceDelete` what its keys protect.",
            )
            .takes(&["forceDelete"])
            .takes(CONDITIONS)
            .answers(202, "The deletion is an operation now.", Nothing, FOLLOW)
            .answers(204, "There is no such cluster.", Nothing, &[])
            .fails(&[412]),
            resources::delete_cluster,
        )
}

fn workspaces(routes: Routes) -> Routes {
    let path = || format!("{GROUP}/workspaces/{{name}}");
    let write = |method, id, summary| {
        change(&[Operator], method, path(), id, summary)
            .takes(CONDITIONS)
            .body("WorkspaceInput")
            .answers(200, "The settings are changed.", Json("Workspace"), RESOURCE)
            .fails(&[412])
    };
    routes
        .at(
            list(
                format!("{SUBSCRIPTION}/workspaces"),
                "Workspaces_List",
                "The workspaces of a subscription.",
                "WorkspaceList",
            ),
            resources::list_workspaces,
        )
        .at(
            list(
                format!("{GROUP}/workspaces"),
                "Workspaces_ListByResourceGroup",
                "The workspaces of a resource group.",
                "WorkspaceList",
            ),
            resources::list_workspaces,
        )
        .at(
            arm(
                &[Operator, KeyOfficer, Reader],
                Get,
                path(),
                "Workspaces_Get",
                "One workspace; for a reader one that its token names.",
            )
            .answers(200, "As it is now.", Json("Workspace"), RESOURCE),
            resources::get_workspace,
        )
        .at(
            write(
                Put,
                "Workspaces_CreateOrUpdate",
                "Makes a workspace, recovers a deleted one, or states the settings of one.",
            )
            .answers(
                201,
                "Making or recovering it is an operation now.",
                Json("Workspace"),
                FOLLOW_RESOURCE,
            ),
            resources::put_workspace,
        )
        .at(write(Patch, "Workspaces_Update", "Changes settings of a workspace."), resources::patch_workspace)
        .at(
            change(
                &[Operator],
                Delete,
                path(),
                "Workspaces_Delete",
                "Deletes a workspace, which can be recovered for 14 days; with `force` for good.",
            )
            .takes(&["force"])
            .takes(CONDITIONS)
            .answers(202, "The deletion is an operation now.", Nothing, FOLLOW)
            .answers(204, "There is no such workspace.", Nothing, &[])
            .fails(&[412]),
            resources::delete_workspace,
        )
        .at(
            change(
                &[KeyOfficer],
                Post,
                format!("{}/rotateKey", path()),
                "Workspaces_RotateKey",
                "Has a workspace go on under a new account key; what it has stays as it is sealed.",
            )
            .takes(CONDITIONS)
            .answers(202, "The rotation is an operation now.", Nothing, FOLLOW)
            .fails(&[403, 408, 412, 413]),
            resources::rotate_key,
        )
        .at(
            arm(
                &[KeyOfficer],
                Post,
                format!("{}/sharedKeys", path()),
                "SharedKeys_GetSharedKeys",
                "The keys of a workspace's shippers.",
            )
            .answers(200, "As they are now.", Json("SharedKeys"), SECRET),
            keys::shared_keys,
        )
        .at(
            change(
                &[KeyOfficer],
                Post,
                format!("{}/regenerateSharedKey", path()),
                "SharedKeys_Regenerate",
                "Gives a workspace's shippers other keys; those that they had are refused from the answer on.",
            )
            .takes(CONDITIONS)
            .body("RegenerateKey")
            .answers(200, "Both keys, as they are from now on.", Json("SharedKeys"), REGENERATED)
            .answers(202, "It has not ended within 30 s.", Nothing, FOLLOW)
            .fails(&[412]),
            keys::regenerate,
        )
}

fn links(routes: Routes) -> Routes {
    let all = || format!("{GROUP}/workspaces/{{name}}/linkedServices");
    let one = || format!("{}/{{service}}", all());
    routes
        .at(
            arm(
                MANAGERS,
                Get,
                all(),
                "LinkedServices_ListByWorkspace",
                "The link of a workspace to its cluster, as a list.",
            )
            .shows("LinkedServiceList"),
            resources::list_links,
        )
        .at(
            arm(MANAGERS, Get, one(), "LinkedServices_Get", "The link of a workspace to its cluster.")
                .shows("LinkedService"),
            resources::get_link,
        )
        .at(
            change(&[Operator], Put, one(), "LinkedServices_CreateOrUpdate", "Links a workspace to a cluster.")
                .body("LinkedServiceInput")
                .answers(
                    200,
                    "The link; while an operation makes it, with the headers to follow that.",
                    Json("LinkedService"),
                    FOLLOW,
                ),
            resources::put_link,
        )
        .at(
            change(&[Operator], Delete, one(), "LinkedServices_Delete", "Unlinks a workspace from its cluster.")
                .answers(202, "Unlinking is an operation now.", Nothing, FOLLOW)
                .answers(204, "It is linked to none.", Nothing, &[]),
            resources::delete_link,
        )
}
