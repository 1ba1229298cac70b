//! Tables that may stand several times in the file, such as `[[upstream]]`: the file alone has them, neither variables nor
//! flags. Tested by `config/tests.rs`.

/// Declares one kind of table, as `section!` declares a section. A setting without a default has to be given. The type
/// gets `rows`, `read`, which gives all tables in their order, and `show`.
macro_rules! tables {
    (
        $(#[$doc:meta])* $vis:vis $table:ident $name:literal
        $($(#[doc = $text:literal])+ $field:ident: $type:ty $(= $default:expr)?, $unit:literal $(, $rule:literal $holds:expr)?;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $table {
            $($(#[doc = $text])+ $vis $field: $type,)*
        }

        impl $table {
            /// What there may be in such a table.
            pub(super) fn rows() -> Vec<$crate::config::row::Row> {
                vec![$({
                    let default: Option<$type> = $crate::config::table::rule!(None $(, Some($default))?);
                    let name = $crate::config::tables::name(stringify!($field));
                    $crate::config::row::Row {
                        section: $name,
                        name,
                        key: format!("{}.{name}", $name),
                        repeats: true,
                        variable: String::new(),
                        text: concat!($($text),+).trim().to_owned(),
                        unit: $unit,
                        takes: $crate::config::table::rule!(<$type as $crate::config::kind::Kind>::TAKES $(, $rule)?),
                        default: default.map_or_else(
                            || $crate::config::tables::REQUIRED.to_owned(),
                            |default| $crate::config::kind::Kind::write(&default),
                        ),
                        is_list: <$type as $crate::config::kind::Kind>::IS_LIST,
                        is_switch: false,
                        is_live: false,
                    }
                },)*]
            }

            /// All tables of this kind. One with a mistake is left out.
            pub(super) fn read(
                layers: &$crate::config::Layers,
                errors: &mut Vec<$crate::config::ConfigError>,
            ) -> Vec<Self> {
                let one = |(index, origin): (usize, &$crate::config::Origin)| {
                    $(let $field = {
                        let takes = $crate::config::table::rule!(<$type as $crate::config::kind::Kind>::TAKES $(, $rule)?);
                        let holds: fn(&$type) -> bool = $crate::config::table::rule!(|_| true $(, $holds)?);
                        let default: Option<$type> = $crate::config::table::rule!(None $(, Some($default))?);
                        let place = ($name, index, $crate::config::tables::name(stringify!($field)));
                        $crate::config::tables::read(layers, errors, origin, place, takes, holds, default)
                    };)*
                    Some($table { $($field: $field?,)* })
                };
                layers.tables($name).iter().enumerate().filter_map(one).collect()
            }

            /// Its settings as they would stand in the file.
            pub(super) fn show(&self) -> Vec<(&'static str, String)> {
                vec![$((
                    $crate::config::tables::name(stringify!($field)),
                    $crate::config::kind::Kind::write(&self.$field),
                ),)*]
            }
        }
    };
}

pub(super) use tables;

use super::error::{ConfigError, Origin};
use super::kind::Kind;
use super::layers::{Layers, table_key};
use super::table::check;

/// How the default of a setting is shown that has none.
pub(super) const REQUIRED: &str = "(required)";

/// The name in the file of a field, which may be a word of Rust's.
pub(super) fn name(field: &'static str) -> &'static str {
    field.trim_start_matches("r#")
}

/// One setting of one table, which begins at `table`. None, and a mistake more, when it is wrong or lacking.
pub(super) fn read<T: Kind>(
    layers: &Layers,
    errors: &mut Vec<ConfigError>,
    table: &Origin,
    (section, index, name): (&str, usize, &str),
    takes: &str,
    holds: fn(&T) -> bool,
    default: Option<T>,
) -> Option<T> {
    let key = format!("{section}.{name}");
    let value = match (layers.get(&table_key(section, index, name)), default) {
        (Some((origin, written)), _) => check(origin, written, &key, takes, holds),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(ConfigError::Missing { origin: table.clone(), key }),
    };
    value.map_err(|error| errors.push(error)).ok()
}
