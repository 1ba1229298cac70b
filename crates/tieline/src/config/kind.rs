//! The types that settings have: how each is read from what was written, and how it is written again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tieline_core::ring::Placement;
use tieline_proto::NodeName;

use super::layers::Written;
use crate::broker::BrokerUrl;

/// How a setting without a value is shown.
pub(super) const ABSENT: &str = "(none)";

/// A type that a setting may have.
pub(super) trait Kind: Sized {
    /// What is taken, as it stands behind "takes" in an error.
    const TAKES: &'static str;

    /// Whether several values are taken: the flag may be repeated, and a variable has commas between them.
    const IS_LIST: bool = false;

    /// Whether it must never be shown.
    const IS_SECRET: bool = false;

    /// Whether its flag stands without a value.
    const IS_SWITCH: bool = false;

    /// A table, as an error calls it that found one.
    const TABLE: &'static str = "a table";

    /// Reads it; none when it is not what is taken.
    fn read(written: &Written) -> Option<Self>;

    /// Writes it as TOML, secrets masked.
    fn write(&self) -> String;

    /// What was written and is not taken, as an error may repeat it.
    fn repeat(text: &str) -> String {
        format!("{text:?}")
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// Units of sizes, each with its number of bytes, the largest first.
const SIZE_UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of durations, each with its number of milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What is taken for a duration.
pub(super) const DURATION: &str =
    "a duration with its unit, such as \"500ms\", \"25s\", \"5m\", \"1h\" or \"7d\"";

/// The text of a value that is written as text wherever it stands.
pub(super) fn text(written: &Written) -> Option<&str> {
    match written {
        Written::Loose(text) | Written::Text(text) => Some(text.trim()),
        _ => None,
    }
}

/// Splits a number from the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Kind for Size {
    const TAKES: &'static str = "a size such as \"1MiB\", \"64KiB\" or \"512B\"";

    fn read(written: &Written) -> Option<Self> {
        if let Written::Integer(bytes) = written {
            return usize::try_from(*bytes).ok().map(Size);
        }
        let (number, unit) = number_and_unit(text(written)?)?;
        let bytes = match unit {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        usize::try_from(number).ok()?.checked_mul(bytes).map(Size)
    }

    fn write(&self) -> String {
        let exact = |(_, bytes): &&(&str, usize)| self.0 > 0 && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = SIZE_UNITS.iter().find(exact).unwrap_or(&("B", 1));
        format!("\"{}{unit}\"", self.0 / bytes)
    }
}

/// Reads a duration.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text.trim())?;
    let (_, milliseconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*milliseconds).map(Duration::from_millis)
}

impl Kind for Duration {
    const TAKES: &'static str = DURATION;

    fn read(written: &Written) -> Option<Self> {
        duration(text(written)?)
    }

    fn write(&self) -> String {
        let milliseconds = self.as_millis() as u64;
        let exact = |(_, unit): &&(&str, u64)| milliseconds > 0 && milliseconds.is_multiple_of(*unit);
        let (name, unit) = DURATION_UNITS.iter().find(exact).unwrap_or(&("s", 1000));
        format!("\"{}{name}\"", milliseconds / unit)
    }
}

impl Kind for Option<Duration> {
    const TAKES: &'static str = "a duration with its unit, such as \"25s\" or \"5m\", or \"never\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written) {
            Some("never") => Some(None),
            _ => Duration::read(written).map(Some),
        }
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| quote("never"), Kind::write)
    }
}

impl Kind for bool {
    const TAKES: &'static str = "true or false";
    const IS_SWITCH: bool = true;

    fn read(written: &Written) -> Option<Self> {
        match written {
            Written::Boolean(boolean) => Some(*boolean),
            Written::Loose(text) => match text.trim() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer {
    ($($type:ty, $takes:literal;)*) => {
        $(impl Kind for $type {
            const TAKES: &'static str = $takes;

            fn read(written: &Written) -> Option<Self> {
                match written {
                    Written::Integer(integer) => <$type>::try_from(*integer).ok(),
                    Written::Loose(text) => text.trim().parse().ok(),
                    _ => None,
                }
            }

            fn write(&self) -> String {
                self.to_string()
            }
        })*
    };
}

integer! {
    u8, "a whole number up to 255";
    u32, "a whole number up to 4294967295";
    usize, "a whole number";
}

impl Kind for String {
    const TAKES: &'static str = "a string";

    fn read(written: &Written) -> Option<Self> {
        text(written).map(str::to_owned)
    }

    fn write(&self) -> String {
        quote(self)
    }
}

impl Kind for Option<String> {
    const TAKES: &'static str = String::TAKES;

    fn read(written: &Written) -> Option<Self> {
        String::read(written).map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| ABSENT.to_owned(), Kind::write)
    }
}

impl Kind for SocketAddr {
    const TAKES: &'static str = "an IP address and a port, such as \"127.0.0.1:7800\" or \"[::]:7800\"";

    fn read(written: &Written) -> Option<Self> {
        text(written)?.parse().ok()
    }

    fn write(&self) -> String {
        quote(&self.to_string())
    }
}

impl Kind for Option<SocketAddr> {
    const TAKES: &'static str = SocketAddr::TAKES;

    fn read(written: &Written) -> Option<Self> {
        SocketAddr::read(written).map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| ABSENT.to_owned(), Kind::write)
    }
}

impl Kind for NodeName {
    const TAKES: &'static str = "a name of 1 to 128 ASCII letters, digits and . _ - : @ [ ]";

    fn read(written: &Written) -> Option<Self> {
        NodeName::new(text(written)?).ok()
    }

    fn write(&self) -> String {
        quote(self.as_str())
    }
}

impl Kind for Option<NodeName> {
    const TAKES: &'static str = NodeName::TAKES;

    fn read(written: &Written) -> Option<Self> {
        NodeName::read(written).map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| ABSENT.to_owned(), Kind::write)
    }
}

/// Reads a list: an array, a repeated flag, one string, or the text of a variable with commas between.
pub(super) fn list<T>(written: &Written, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let strings: Vec<&str> = match written {
        Written::List(values) => values.iter().map(text).collect::<Option<_>>()?,
        Written::Loose(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
        Written::Text(text) => vec![text],
        _ => return None,
    };
    strings.into_iter().map(read).collect()
}

pub(super) fn write_list(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

impl Kind for Vec<PathBuf> {
    const TAKES: &'static str = "a list of file names";
    const IS_LIST: bool = true;

    fn read(written: &Written) -> Option<Self> {
        list(written, |text| (!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(&self) -> String {
        write_list(self.iter().map(|path| quote(&path.to_string_lossy())))
    }
}

impl Kind for Vec<String> {
    const TAKES: &'static str = "a list of strings";
    const IS_LIST: bool = true;

    fn read(written: &Written) -> Option<Self> {
        list(written, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    fn write(&self) -> String {
        write_list(self.iter().map(|text| quote(text)))
    }
}

/// A secret: it shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked(pub String);

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl Kind for Vec<Masked> {
    const TAKES: &'static str = "a list of strings that are not empty";
    const IS_LIST: bool = true;
    const IS_SECRET: bool = true;

    fn read(written: &Written) -> Option<Self> {
        list(written, |text| (!text.is_empty()).then(|| Masked(text.to_owned())))
    }

    fn write(&self) -> String {
        write_list(self.iter().map(|secret| format!("{secret:?}")))
    }
}

impl Kind for Option<Masked> {
    const TAKES: &'static str = "a string that is not empty";
    const IS_SECRET: bool = true;

    fn read(written: &Written) -> Option<Self> {
        text(written).filter(|text| !text.is_empty()).map(|text| Some(Masked(text.to_owned())))
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| ABSENT.to_owned(), |secret| format!("{secret:?}"))
    }
}

impl Kind for BrokerUrl {
    const TAKES: &'static str = BrokerUrl::TAKES;

    fn read(written: &Written) -> Option<Self> {
        text(written)?.parse().ok()
    }

    fn write(&self) -> String {
        quote(&self.to_string())
    }

    fn repeat(text: &str) -> String {
        let why = text.trim().parse::<BrokerUrl>().err().map(|error| format!(": {error}"));
        format!("{}{}", without_password(text), why.unwrap_or_default())
    }
}

/// An address without what stands before the last `@`: it may be a password.
pub(super) fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (_, None) => format!("{text:?}"),
        (Some((scheme, rest)), Some((_, host))) if rest.contains('@') => {
            format!("{:?}", format!("{scheme}://***@{host}"))
        }
        (_, Some((_, host))) => format!("{:?}", format!("***@{host}")),
    }
}

/// Who is shown the demo page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demo {
    /// Browsers of this machine, by the rule for clients without a token.
    #[default]
    Local,
    /// Everybody.
    All,
    /// Nobody.
    Off,
}

impl Kind for Demo {
    const TAKES: &'static str = "\"local\", \"all\" or \"off\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "local" => Some(Demo::Local),
            "all" => Some(Demo::All),
            "off" => Some(Demo::Off),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            Demo::Local => "local",
            Demo::All => "all",
            Demo::Off => "off",
        })
    }
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Kind for LogFormat {
    const TAKES: &'static str = "\"text\" or \"json\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// How messages go to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// To those that hold recipients.
    #[default]
    Directed,
    /// To all.
    Broadcast,
}

impl Kind for Routing {
    const TAKES: &'static str = "\"directed\" or \"broadcast\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "directed" => Some(Routing::Directed),
            "broadcast" => Some(Routing::Broadcast),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            Routing::Directed => "directed",
            Routing::Broadcast => "broadcast",
        })
    }
}

impl Kind for Placement {
    const TAKES: &'static str = "\"none\", \"ring\", \"ring:md5\" or \"ring:fnv\"";

    fn read(written: &Written) -> Option<Self> {
        text(written)?.parse().ok()
    }

    fn write(&self) -> String {
        quote(self.name())
    }
}

/// Whether connections are sent to where they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebalance {
    /// A few at a time, when their owner has changed.
    #[default]
    Gradually,
    /// Only new ones go there.
    Never,
}

impl Kind for Rebalance {
    const TAKES: &'static str = "\"gradually\" or \"never\"";

    fn read(written: &Written) -> Option<Self> {
        match text(written)? {
            "gradually" => Some(Rebalance::Gradually),
            "never" => Some(Rebalance::Never),
            _ => None,
        }
    }

    fn write(&self) -> String {
        quote(match self {
            Rebalance::Gradually => "gradually",
            Rebalance::Never => "never",
        })
    }
}

impl From<Routing> for tieline_core::Routing {
    fn from(routing: Routing) -> Self {
        match routing {
            Routing::Directed => tieline_core::Routing::Directed,
            Routing::Broadcast => tieline_core::Routing::Broadcast,
        }
    }
}
