//! Names of the control plane's metrics.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Requests that were refused, by `reason`.
pub(crate) const REFUSALS: &str = "logseal_management_refused_total";
/// Operations that have ended, by `kind` and `status`.
const OPERATIONS: &str = "logseal_operations_total";
/// What is wrong with the audit trail, each time that it is found, by `fault`.
const AUDIT_FAULTS: &str = "logseal_audit_faults_total";
/// 1, with the program's `version`.
const BUILD: &str = "logseal_build_info";

/// The trail lacks the record that its anchor names.
pub(crate) const LACKS_RECORDS: &str = "lacks_records";
/// The trail takes no record, since its end was altered.
pub(crate) const TAKES_NONE: &str = "takes_no_records";
/// Trail or anchor cannot be read.
pub(crate) const UNREADABLE: &str = "unreadable";

/// Tells the recorder of metrics what this crate counts, and which version it is.
pub fn describe_metrics() {
    describe_counter!(
        REFUSALS,
        "requests to the management API without a token (`missing`), with one that opens nothing (`unknown`, `expired`), beyond a peer's rate of \
         those (`limited`), with one whose row in the catalog was altered (`unusable`), or without the role or grant (`denied`)"
    );
    describe_counter!(OPERATIONS, Unit::Count, "operations that have ended, by kind and status");
    describe_counter!(
        AUDIT_FAULTS,
        Unit::Count,
        "faults of the audit trail: records before its anchor are gone (`lacks_records`), it takes none (`takes_no_records`), it or its anchor \
         cannot be read (`unreadable`)"
    );
    describe_gauge!(BUILD, "1, with the version of the program");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Counts an operation that has ended.
pub(crate) fn operation_ended(kind: &str, status: &'static str) {
    counter!(OPERATIONS, "kind" => kind.to_owned(), "status" => status).increment(1);
}

/// Counts a fault of the audit trail.
pub(crate) fn audit_fault(fault: &'static str) {
    counter!(AUDIT_FAULTS, "fault" => fault).increment(1);
}
