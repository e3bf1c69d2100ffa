//! Texts as regular expressions (ECMA 262), each as strict as what reads it.

/// `resource::name::resource_group`.
pub(super) const GROUP: &str = "^[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]$";

/// `resource::name::resource`.
pub(super) const RESOURCE: &str = "^[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]$";

/// `resource::name::location`.
pub(super) const LOCATION: &str = "^[A-Za-z0-9 -]{1,64}$";

/// `resource::name::api_version`: days that there are, from the first version to the last.
pub(super) const API_VERSION: &str = "^(2020-(08|09|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
    |202[1-4]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
    |2025-0[1-6]-(0[1-9]|[12][0-9]|3[01])|2025-07-01)(-preview)?$";

/// `resource::key::check_uri`: hosts and ports as they usually are.
pub(super) const VAULT_URI: &str = "^https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,4})?/?$";

/// `KeyReference::versionless`, likewise.
pub(super) const KEY_URI: &str = "^https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,4})?/keys/[A-Za-z0-9-]{1,127}/?$";

/// `DefaultIdentity::try_from`.
pub(super) const DEFAULT_IDENTITY: &str =
    "^(FirstPartyIdentity|(Delegated)?SystemAssignedIdentity|(Delegated)?UserAssignedIdentity=[^ ]+)$";

/// `KeyName::parse`.
pub(super) const KEY_NAME: &str = "^[A-Za-z0-9-]{1,127}$";

/// `KeyVersion::parse`, or nothing.
pub(super) const KEY_VERSION: &str = "^([0-9a-f]{32})?$";

/// `request::find_cluster`.
pub(super) const CLUSTER_ID: &str = "^/[Ss]ubscriptions/[^/]+/[Rr]esource[Gg]roups/[^/]+/providers/\
    [Mm]icrosoft\\.[Oo]perational[Ii]nsights/clusters/[^/]+/?$";

/// `Head::skip_token`.
pub(super) const TOKEN: &str = "^[A-Za-z0-9_-]+$";

/// `PresentedWrap::parse`: 109 bytes, the first of which is the version.
pub(super) const WRAPPED_KEY: &str = "^A[Q-Za-f][A-Za-z0-9_-]{143}[AQgw]$";

/// A data key.
pub(super) const DATA_KEY: &str = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$";

/// `gate::is_token_name`.
pub(super) const TOKEN_NAME: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// A token that was made.
pub(super) const ACCESS_TOKEN: &str = "^lsm_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$";

/// Bytes.
pub(super) const HEX: &str = "^([0-9a-f]{2})+$";

/// `resource::tags`.
pub(super) const TAG_NAME: &str = r"^[^<>%&\\?/]{1,512}$";
