//! Typed identifiers: 128-bit UUIDs that cannot be mistaken for one another.
//!
//! Ids are made by the server, never taken from a client, so they are safe in paths. New ids are UUID version 7
//! (RFC 9562, section 5.7): they sort by creation time.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, RandomSource};

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 16 bytes (big-endian, as in RFC 9562).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the id, big-endian.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Ok(Self(Uuid::from_str(text)?))
            }
        }
    };
}

typed_id!(
    /// A cluster: owns a KEK reference and its linked workspaces.
    ClusterId
);
typed_id!(
    /// A workspace: a tenant, its tables, access keys and AEK generations.
    WorkspaceId
);
typed_id!(
    /// A table of a workspace.
    TableId
);
typed_id!(
    /// A segment: one immutable encrypted Parquet file.
    SegmentId
);
typed_id!(
    /// An account encryption key: one generation of one workspace.
    AekId
);
typed_id!(
    /// A node: one server process with its own disk.
    NodeId
);
typed_id!(
    /// A file of the write-ahead log: one process life writes it, once.
    WalFileId
);
typed_id!(
    /// An asynchronous operation.
    OperationId
);
typed_id!(
    /// A resource of the control plane: the id of a cluster or of a workspace.
    ResourceId
);

impl ResourceId {
    /// The cluster that this resource is, when it is one.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        ClusterId(self.0)
    }

    /// The workspace that this resource is, when it is one.
    #[must_use]
    pub const fn workspace(&self) -> WorkspaceId {
        WorkspaceId(self.0)
    }
}

impl From<ClusterId> for ResourceId {
    fn from(id: ClusterId) -> Self {
        Self(id.0)
    }
}

impl From<WorkspaceId> for ResourceId {
    fn from(id: WorkspaceId) -> Self {
        Self(id.0)
    }
}

/// Makes new ids from an injected clock and random source.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    clock: Arc<dyn Clock>,
    random: Arc<dyn RandomSource>,
}

impl IdGenerator {
    /// A generator that reads `clock` and `random`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn RandomSource>) -> Self {
        Self { clock, random }
    }

    /// A new UUID version 7, to be turned into a typed id: `let id: SegmentId = ids.next().into()`.
    #[must_use]
    pub fn next(&self) -> Uuid {
        let millis = u64::try_from(self.clock.now().millis()).unwrap_or(0);
        let mut random = [0_u8; 10];
        self.random.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnixNanos;

    #[derive(Debug)]
    struct Fixed;
    impl Clock for Fixed {
        fn now(&self) -> UnixNanos {
            UnixNanos(1_700_000_000_123_000_000)
        }
    }
    impl RandomSource for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(0xAB);
        }
    }

    #[test]
    fn ids_are_version_7_and_carry_the_time() {
        let id = IdGenerator::new(Arc::new(Fixed), Arc::new(Fixed)).next();
        assert_eq!(id.get_version_num(), 7);
        let millis = u64::from_be_bytes([
            0,
            0,
            id.as_bytes()[0],
            id.as_bytes()[1],
            id.as_bytes()[2],
            id.as_bytes()[3],
            id.as_bytes()[4],
            id.as_bytes()[5],
        ]);
        assert_eq!(millis, 1_700_000_000_123);
    }

    #[test]
    fn text_round_trips() {
        let id = WorkspaceId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<WorkspaceId>().expect("own text"), id);
        assert!("not-an-id".parse::<WorkspaceId>().is_err());
    }

    #[test]
    fn a_resource_has_the_id_of_the_cluster_or_workspace_that_it_is() {
        let (cluster, workspace) = (ClusterId::from_bytes([7; 16]), WorkspaceId::from_bytes([8; 16]));
        assert_eq!(ResourceId::from(cluster).cluster(), cluster);
        assert_eq!(ResourceId::from(workspace).workspace(), workspace);
        assert_eq!(ResourceId::from(workspace).to_string(), workspace.to_string());
    }
}
