//! Filters and permissions as they travel between nodes: by the text that people write, which every version can read.

/// A filter by its source. What is read is compiled anew, so a broken one is an error here and not later.
pub(super) mod filter {
    use std::borrow::Cow;
    use std::sync::Arc;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use tieline_proto::Filter;

    pub(in super::super) fn serialize<S: Serializer>(
        filter: &Arc<Filter>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(filter.source())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Filter>, D::Error> {
        let source = Cow::<str>::deserialize(deserializer)?;
        Filter::parse(&source).map(Arc::new).map_err(D::Error::custom)
    }
}

/// A permission by its role.
pub(super) mod permission {
    use std::borrow::Cow;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use tieline_proto::Permission;

    pub(in super::super) fn serialize<S: Serializer>(
        permission: &Permission,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(permission.role())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Permission, D::Error> {
        let role = Cow::<str>::deserialize(deserializer)?;
        let named = |permission: &Permission| permission.role() == role;
        Permission::ALL.into_iter().find(named).ok_or_else(|| D::Error::custom("unknown permission"))
    }
}
