//! Settings of what is kept: the store, histories, what slow readers are treated like, and how many connections of a user are kept. Tested by `config/tests.rs`.

use std::time::Duration;

use tieline_core::PerUser;
use tieline_core::store::Retention;

use super::kind::{ABSENT, Kind, Size, quote, text, without_password};
use super::layers::Written;
use crate::directory::DirectoryUrl;
use crate::registry::RegistryUrl;
use crate::store::StoreUrl;

impl Kind for Option<StoreUrl> {
    const TAKES: &'static str = StoreUrl::TAKES;

    fn read(written: &Written) -> Option<Self> {
        text(written)?.parse().ok().map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| ABSENT.to_owned(), |store| quote(&store.to_string()))
    }

    fn repeat(text: &str) -> String {
        without_password(text)
    }
}

/// Addresses that are always there, and may have a password in them.
macro_rules! addresses {
    ($($type:ty),*) => {
        $(impl Kind for $type {
            const TAKES: &'static str = <$type>::TAKES;

            fn read(written: &Written) -> Option<Self> {
                text(written)?.parse().ok()
            }

            fn write(&self) -> String {
                quote(&self.to_string())
            }

            fn repeat(text: &str) -> String {
                without_password(text)
            }
        })*
    };
}

addresses!(DirectoryUrl, RegistryUrl);

/// How much is kept of the messages to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History(pub Retention);

impl Kind for Option<History> {
    const TAKES: &'static str =
        "a table such as { count = 1000, age = \"24h\", bytes = \"16MiB\" }, of which each may be left out";
    const TABLE: &'static str = "such a table with something wrong in it";

    fn read(written: &Written) -> Option<Self> {
        let Written::Table(entries) = written else { return None };
        let mut kept = Retention::default();
        for (name, value) in entries {
            match name.as_str() {
                "count" => kept.count = usize::read(value).filter(|count| *count > 0)? as u64,
                "bytes" => kept.bytes = Size::read(value).filter(|size| size.0 >= 1 << 10)?.0 as u64,
                "age" => kept.age = Duration::read(value).filter(|age| age.as_secs() >= 1)?,
                _ => return None,
            }
        }
        Some(Some(History(kept)))
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(
            || ABSENT.to_owned(),
            |History(kept)| {
                let (age, bytes) = (kept.age.write(), Size(kept.bytes as usize).write());
                format!("{{ count = {}, age = {age}, bytes = {bytes} }}", kept.count)
            },
        )
    }
}

impl Kind for PerUser {
    const TAKES: &'static str = "\"many\", \"one\" or \"one-per-device\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "many" => Some(PerUser::Many),
            "one" => Some(PerUser::One),
            "one-per-device" => Some(PerUser::OnePerDevice),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            PerUser::Many => "many",
            PerUser::One => "one",
            PerUser::OnePerDevice => "one-per-device",
        })
    }
}

/// Who is a member of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Members {
    /// Connections, for as long as they live.
    #[default]
    Connected,
    /// Users, until they leave.
    Stored,
}

impl Kind for Members {
    const TAKES: &'static str = "\"connected\" or \"stored\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "connected" => Some(Members::Connected),
            "stored" => Some(Members::Stored),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            Members::Connected => "connected",
            Members::Stored => "stored",
        })
    }
}

/// What becomes of a member of a group that lags too far behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is closed, and may come back.
    #[default]
    Close,
    /// It misses messages.
    Drop,
}

impl Kind for SlowConsumer {
    const TAKES: &'static str = "\"close\" or \"drop\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "close" => Some(SlowConsumer::Close),
            "drop" => Some(SlowConsumer::Drop),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            SlowConsumer::Close => "close",
            SlowConsumer::Drop => "drop",
        })
    }
}
