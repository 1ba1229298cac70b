//! Layers, mistakes and their places, and the document.

use std::fs;
use std::path::Path;

use tieline_core::PerUser;

use super::kind::Kind;
use super::layers::Written;
use super::tables::tables;
use super::*;

/// Reads a file's text, variables and flags.
fn read(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &[&str])],
) -> Result<(Settings, Layers), ConfigErrors> {
    let mut layers = Layers::default();
    let mut errors = layers.add_file(Path::new("t.toml"), file);
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    errors.extend(layers.add_variables(variables.collect()));
    let flags =
        flags.iter().map(|(key, texts)| (*key, texts.iter().map(|text| (*text).to_owned()).collect()));
    layers.add_flags(flags.collect::<Vec<_>>());
    ConfigErrors::none_or(errors)?;
    Settings::read(&layers).map(|settings| (settings, layers))
}

/// What is wrong with a file.
fn mistakes(file: &str) -> String {
    read(file, &[], &[]).unwrap_err().to_string()
}

#[test]
fn flags_override_variables_override_the_file() {
    let file = "listen = \"127.0.0.1:1\"\ncluster = \"file\"\nshards = 4\n[limits]\nmax_message = \"2KiB\"\n";
    let variables = [("TIELINE_LISTEN", "127.0.0.1:2"), ("TIELINE_CLUSTER", "variable"), ("PATH", "/bin")];
    let (settings, layers) = read(file, &variables, &[("listen", &["127.0.0.1:3"])]).unwrap();
    assert_eq!(settings.server.listen.port(), 3);
    assert_eq!(settings.server.cluster, "variable");
    assert_eq!((settings.server.shards, settings.limits.max_message), (4, Size(2048)));
    assert_eq!(settings.limits.max_frame, Limits::default().max_frame);
    let origin = |key| layers.origin(key).map(ToString::to_string);
    assert_eq!(origin("listen").as_deref(), Some("--listen"));
    assert_eq!(origin("cluster").as_deref(), Some("TIELINE_CLUSTER"));
    assert_eq!(origin("limits.max_message").as_deref(), Some("t.toml, line 5"));
    assert_eq!(origin("limits.max_frame"), None);
}

#[test]
fn each_unknown_name_is_an_error_with_the_nearest_known_one() {
    for (file, expected) in [
        ("lisen = \"x\"", "t.toml, line 1: there is no setting `lisen`; did you mean `listen`?"),
        (
            "\n\naccess-key = \"x\"",
            "t.toml, line 3: there is no setting `access-key`; did you mean `access_key`?",
        ),
        ("access_keys = []", "t.toml, line 1: there is no setting `access_keys`; did you mean `access_key`?"),
        (
            "max_message = \"1MiB\"",
            "t.toml, line 1: there is no setting `max_message`; did you mean `limits.max_message`?",
        ),
        (
            "[limits]\nmax_mesage = 1",
            "t.toml, line 2: there is no setting `limits.max_mesage`; did you mean `limits.max_message`?",
        ),
        ("[limit]\nmax_message = 1", "t.toml, line 1: there is no setting `limit`; did you mean `limits`?"),
        ("[times.x]\ny = 1", "t.toml, line 1: there is no setting `times.x`"),
        ("zzzzzzzzz = 1", "t.toml, line 1: there is no setting `zzzzzzzzz`"),
        ("limits = 7", "t.toml, line 1: `limits` takes settings of its own, not integer value"),
    ] {
        assert_eq!(mistakes(file), expected, "{file}");
    }
    let error = read("", &[("TIELINE_LISTN", "x")], &[]).unwrap_err().to_string();
    assert_eq!(error, "TIELINE_LISTN: there is no setting `TIELINE_LISTN`; did you mean `TIELINE_LISTEN`?");
    // What Kubernetes and our own tests put into the environment is not ours to judge.
    for name in [
        "TIELINE_PORT",
        "TIELINE_SERVICE_HOST",
        "TIELINE_PORT_80_TCP_ADDR",
        "TIELINE_TEST_REDIS",
        "TIELINE_CONFIG",
    ] {
        assert!(read("", &[(name, "x")], &[]).is_ok(), "{name}");
    }
}

#[test]
fn each_wrong_value_is_an_error_that_says_what_is_taken() {
    for (file, expected) in [
        ("listen = \"localhost\"", "`listen` takes an IP address and a port"),
        (
            "listen = 7800",
            "`listen` takes an IP address and a port, such as \"127.0.0.1:7800\" or \"[::]:7800\", not 7800",
        ),
        (
            "broker = \"ampq://x\"",
            "`broker` takes the address of a broker, not \"ampq://x\": known are `memory:`, `mesh://HOST:PORT,HOST:PORT`, `redis://[[USER]:PASSWORD@]HOST[:PORT]`",
        ),
        ("cluster = \"\"", "`cluster` takes a name of 1 to 64"),
        ("cluster = \"a b\"", "`cluster` takes a name of 1 to 64"),
        ("node = \"a/b\"", "`node` takes a name of 1 to 128"),
        ("shards = 256", "`shards` takes a number of threads up to 255"),
        ("shards = -1", "not -1"),
        (
            "shards = \"2\"",
            "`shards` takes a number of threads up to 255, or 0 for one per processor, not \"2\"",
        ),
        ("shards = 1.5", "not a number with a fraction"),
        ("allow_anonymous = 1", "`allow_anonymous` takes true or false, not 1"),
        ("allow_anonymous = \"true\"", "takes true or false"),
        ("demo = \"everybody\"", "`demo` takes \"local\", \"all\" or \"off\", not \"everybody\""),
        ("client_url = \"a.example.com\"", "`client_url` takes an address such as \"wss://a.example.com\""),
        ("client_url = \"wss://a.example.com/path\"", "without a path"),
        ("allow_origin = [\"example.com\"]", "takes a list of origins"),
        ("allow_origin = [\"https://example.com/path\"]", "takes a list of origins"),
        ("access_key = [\"\"]", "`access_key` takes a list of strings that are not empty"),
        ("[limits]\nmax_message = \"1 mega\"", "`limits.max_message` takes a size from"),
        ("[limits]\nmax_message = \"1mib\"", "takes a size from"),
        ("[limits]\nmax_message = \"1.5MiB\"", "takes a size from"),
        ("[limits]\nmax_message = \"99999999999GiB\"", "takes a size from"),
        ("[limits]\nmax_message = 0", "takes a size from"),
        ("[limits]\nmax_message = true", "not true"),
        ("[limits]\nconnections = []", "takes a whole number from 1, not a list"),
        ("[limits]\nfaults = 256", "takes a whole number from 1 to 255"),
        (
            "[times]\nping_interval = 25",
            "`times.ping_interval` takes a duration from \"1s\" to \"1h\", not 25",
        ),
        ("[times]\nping_interval = \"25\"", "takes a duration"),
        ("[times]\nping_interval = \"25 parsecs\"", "takes a duration"),
        ("[times]\nping_interval = \"2h\"", "takes a duration"),
        ("[times]\nidle = \"0s\"", "or \"never\""),
        ("[times]\nidle = 1979-05-27", "not a date"),
        ("[deflate]\nwindow = 8", "takes a number of bits from 9 to 15"),
        ("[log]\nfilter = \"loud,,=\"", "`log.filter` takes a level"),
        ("[log]\nformat = \"xml\"", "takes \"text\" or \"json\""),
    ] {
        let found = mistakes(file);
        assert!(found.starts_with("t.toml, line ") && found.contains(expected), "{file}: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn every_mistake_is_told_and_no_secret() {
    let all = mistakes("lisen = 1\n[limits]\nmax_mesage = 1\n");
    assert_eq!(all.lines().count(), 2, "{all}");
    let all = mistakes("shards = -1\naccess_key = [\"SECRET\", 7]\n[times]\nidle = 7\n");
    assert_eq!(all.lines().count(), 3, "{all}");
    assert!(!all.contains("SECRET"), "{all}");
    for broker in ["redis://:SECRET@a:port", "redis://:SECRET@1@a:x", ":SECRET@a", "rediss://u:SECRET#1@host"]
    {
        let told = mistakes(&format!("broker = \"{broker}\""));
        assert!(told.contains("***@") && !told.contains("SECRET"), "{told}");
    }
    let syntax = mistakes("a = \n");
    assert!(syntax.starts_with("t.toml: ") && syntax.contains("line 1"), "{syntax}");
    let twice = mistakes("shards = 1\nshards = 2\n");
    assert!(twice.contains("duplicate key"), "{twice}");
}

#[test]
fn sizes_durations_and_switches_are_read_and_written() {
    let (settings, _) = read(
        "[limits]\nmax_message = \"64 KiB\"\nmax_frame = 4096\nslow_consumer = \"2MB\"\n\
         [times]\nhandshake = \"1500ms\"\nping_interval = \"1m\"\nidle = \"2h\"\n",
        &[
            ("TIELINE_DEFLATE_ENABLED", "on"),
            ("TIELINE_LIMITS_LAG_MEMORY", "1048576"),
            ("TIELINE_TIMES_CLOSE", " 7s "),
        ],
        &[],
    )
    .unwrap();
    assert_eq!((settings.limits.max_message, settings.limits.max_frame), (Size(65536), Size(4096)));
    assert_eq!((settings.limits.slow_consumer, settings.limits.lag_memory), (Size(2_000_000), Size(1 << 20)));
    assert_eq!(settings.times.handshake, Duration::from_millis(1500));
    assert_eq!(
        (settings.times.ping_interval, settings.times.close),
        (Duration::from_secs(60), Duration::from_secs(7))
    );
    assert_eq!((settings.times.idle, settings.deflate.enabled), (Some(Duration::from_secs(7200)), true));
    let (settings, _) = read("", &[("TIELINE_TIMES_IDLE", "never")], &[]).unwrap();
    assert_eq!(settings.times.idle, None);
}

#[test]
fn lists_come_from_arrays_strings_commas_and_repeated_flags() {
    let keys =
        |settings: Settings| settings.server.access_key.into_iter().map(|key| key.0).collect::<Vec<_>>();
    let file = |text| keys(read(text, &[], &[]).unwrap().0);
    assert_eq!(file("access_key = [\"a\", \"b,c\"]"), ["a", "b,c"]);
    assert_eq!(file("access_key = \"a,b\""), ["a,b"]);
    assert_eq!(keys(read("", &[("TIELINE_ACCESS_KEY", "a, b,")], &[]).unwrap().0), ["a", "b"]);
    assert_eq!(keys(read("", &[], &[("access_key", &["a,b"])]).unwrap().0), ["a,b"]);
    assert_eq!(keys(read("", &[], &[("access_key", &["a", "b"])]).unwrap().0), ["a", "b"]);
}

#[test]
fn keys_come_from_files_too() {
    let path = std::env::temp_dir().join(format!("tieline-keys-{}", std::process::id()));
    fs::write(&path, "first\n\n  second  \r\n").unwrap();
    let mut settings = Settings::default();
    settings.server.access_key_file = vec![path.clone()];
    assert_eq!(format!("{:?}", settings.keys().unwrap()), "Keys(2)");
    fs::write(&path, "\n \n").unwrap();
    assert!(settings.keys().unwrap_err().to_string().ends_with("there is no access key in the file"));
    fs::remove_file(&path).unwrap();
    assert!(settings.keys().unwrap_err().to_string().starts_with(&path.display().to_string()));
}

#[test]
fn what_is_shown_reads_as_what_it_shows() {
    let (settings, layers) =
        read("[times]\nidle = \"90s\"\n", &[("TIELINE_ALLOW_ORIGIN", "https://a.example.com")], &[]).unwrap();
    let shown = settings.show(&layers);
    assert!(shown.contains("idle = \"90s\" # t.toml, line 2\n"), "{shown}");
    let (again, layers) = read(&shown, &[], &[]).unwrap();
    let strip = |text: String| {
        text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(strip(again.show(&layers)), strip(settings.show(&layers)));
}

tables! {
    /// A table for this test.
    Door "door"
    /// Where it leads.
    r#match: String, "name", "a name" |name| !name.is_empty();
    /// How wide it is.
    width: u32 = 3, "metres", "a whole number from 1" |width| *width > 0;
}

/// Reads a file whose only settings are those of doors.
fn doors(file: &str) -> Result<(Vec<Door>, Layers), String> {
    let mut layers = Layers::default();
    let mut errors = layers.add_text(Path::new("t.toml"), file, &Door::rows());
    let doors = Door::read(&layers, &mut errors);
    ConfigErrors::none_or(errors).map_err(|errors| errors.to_string()).map(|()| (doors, layers))
}

#[test]
fn a_table_may_stand_several_times() {
    let (found, layers) = doors("[[door]]\nmatch = \"a\"\n[[door]]\nmatch = \"b\"\nwidth = 7\n").unwrap();
    let found: Vec<_> = found.iter().map(Door::show).collect();
    let shown = |name: &str, width: &str| vec![("match", format!("{name:?}")), ("width", width.to_owned())];
    assert_eq!(found, [shown("a", "3"), shown("b", "7")]);
    assert_eq!(layers.origin("door[1].width").unwrap().to_string(), "t.toml, line 5");
    assert!(doors("").unwrap().0.is_empty());
    let rows = Door::rows();
    assert_eq!((&*rows[0].key, &*rows[0].default, &*rows[1].default), ("door.match", "(required)", "3"));
    assert_eq!(rows[1].takes, "a whole number from 1");
    assert_eq!(Door::rows()[0].takes, "a name");
    assert_eq!(<String as Kind>::TAKES, "a string");
}

#[test]
fn a_mistake_in_one_of_several_tables_is_told_with_its_line() {
    for (file, expected) in [
        ("[[door]]\nmatch = \"a\"\n[[door]]\nwidth = 1", "t.toml, line 3: `door.match` has to be given"),
        ("[[door]]\nmatch = \"\"", "t.toml, line 2: `door.match` takes a name, not \"\""),
        (
            "[[door]]\nmatch = \"a\"\nwdth = 1",
            "t.toml, line 3: there is no setting `door.wdth`; did you mean `door.width`?",
        ),
        (
            "[door]\nmatch = \"a\"",
            "t.toml, line 1: `door` takes tables, each begun by a line `[[door]]`, not table value",
        ),
        (
            "door = [7]",
            "t.toml, line 1: `door` takes tables, each begun by a line `[[door]]`, not integer value",
        ),
        ("[[dor]]\nmatch = \"a\"", "t.toml, line 1: there is no setting `dor`; did you mean `door`?"),
    ] {
        assert_eq!(doors(file).unwrap_err(), expected, "{file}");
    }
    let all = doors("[[door]]\nwidth = 0\n[[door]]\nwidth = -1").unwrap_err();
    assert_eq!(all.lines().count(), 4, "{all}");
    let all = mistakes("[[limits]]\nmax_message = 1");
    assert_eq!(all, "t.toml, line 1: `limits` takes settings of its own, not array value");
}

#[test]
fn an_endpoint_is_shown_without_its_secret_and_its_mistakes_are_told() {
    let file = "[[upstream]]\nurl = \"https://a.example.com/{hub}/{event}?code=SECRET\"\nsystem_events = [\"connect\"]\n";
    let (settings, layers) = read(file, &[], &[]).unwrap();
    let shown = settings.show(&layers);
    assert!(
        shown.contains("url = \"https://a.example.com/{hub}/{event}?***\" # t.toml, line 2\n"),
        "{shown}"
    );
    assert!(
        shown.contains("[[upstream]]\nhub = \"*\"\n") && shown.contains("system_events = [\"connect\"]"),
        "{shown}"
    );
    assert!(!shown.contains("SECRET") && !format!("{settings:?}").contains("SECRET"));
    for (line, expected) in [
        ("hub = \"chat\"", "t.toml, line 1: `upstream.url` has to be given"),
        ("url = \"ftp://h\"", "`upstream.url` takes an address such as"),
        ("url = \"https://u:SECRET@h/\"", "not \"***@h/\""),
        ("url = \"https://{hub}.h/?SECRET\"", "not \"https://{hub}.h/\""),
        ("url = \"http://h\"\nsystem_events = [\"conect\"]", "`upstream.system_events` takes a list of"),
        ("url = \"http://h\"\nhub = \"a b\"", "`upstream.hub` takes the name of a hub"),
        ("url = \"http://h\"\nurls = 1", "did you mean `upstream.url`?"),
        ("url = \"http://h\"\ntimeout = \"2m\"", "`upstream.timeout` takes a duration from"),
        ("url = \"http://h\"\norigin = \"https://h\"", "`upstream.origin` takes a host"),
    ] {
        let told = mistakes(&format!("[[upstream]]\n{line}"));
        assert!(told.contains(expected) && !told.contains("SECRET"), "{line}: {told}");
    }
}

#[test]
fn a_broker_is_shown_without_its_password() {
    let (settings, layers) = read("broker = \"rediss://us%3Aer:SECRET%2F@cache.local/3\"", &[], &[]).unwrap();
    let shown = settings.show(&layers);
    assert!(shown.contains("broker = \"rediss://us%3Aer:***@cache.local:6379/3\""), "{shown}");
    assert!(!format!("{:?}", settings.server).contains("SECRET"));
    for (written, name) in [("mesh://a:1", "mesh:"), ("redis://a", "redis:"), ("memory:", "memory:")] {
        assert_eq!(read(&format!("broker = \"{written}\""), &[], &[]).unwrap().0.server.broker.name(), name);
    }
}

#[test]
fn defaults_keep_their_own_rules() {
    // Each default, written out, must be taken when it is read.
    for row in rows().into_iter().filter(|row| row.default != kind::ABSENT && !row.repeats) {
        let value = row.default.trim_matches(|c| c == '"' || c == '[' || c == ']').to_owned();
        let mut layers = Layers::default();
        assert!(layers.add_variables(vec![(row.variable.clone(), value)]).is_empty());
        assert!(matches!(layers.get(&row.key), Some((_, Written::Loose(_)))));
        if let Err(error) = Settings::read(&layers) {
            panic!("{error}");
        }
        assert!(row.text.ends_with('.') && !row.unit.is_empty(), "{}", row.key);
    }
}

#[test]
fn the_document_is_what_the_table_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("TIELINE_WRITE_DOCS").is_some() {
        fs::write(&path, markdown()).unwrap();
    }
    let document = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        document == markdown(),
        "docs/configuration.md is not what the table prints; write it with TIELINE_WRITE_DOCS=1"
    );
}

#[test]
fn hubs_have_rules() {
    let file = "[[hub]]\nmatch = \"chat\"\nconnections_per_user = \"one\"\n\
        [[hub]]\nmatch = \"*\"\nconnections_per_user = \"one-per-device\"\n";
    let (settings, layers) = read(file, &[], &[]).unwrap();
    let rule = |pattern: &str, per_user| HubRule { pattern: pattern.into(), per_user };
    assert_eq!(settings.hub_rules(), [rule("chat", PerUser::One), rule("*", PerUser::OnePerDevice)]);
    let (again, _) = read(&settings.show(&layers), &[], &[]).unwrap();
    assert_eq!(again.hub_rules(), settings.hub_rules());
    for (file, error) in [
        ("[[hub]]\nconnections_per_user = \"one\"", "line 1: `hub.match` has to be given"),
        (
            "[[hub]]\nmatch = \"a\"\nconnections_per_user = 1",
            "`hub.connections_per_user` takes \"many\", \"one\" or \"one-per-device\", not 1",
        ),
    ] {
        let errors = read(file, &[], &[]).unwrap_err().to_string();
        assert!(errors.contains(error), "{errors}");
    }
}

#[test]
fn what_is_kept_is_read_from_tables() {
    let file = "store = \"sqlite:///a/s.db\"\n[inbox]\ncount = 5\nage = \"1h\"\n\
        [[group]]\nmatch = \"room:*\"\nhistory = { count = 10, bytes = \"1KiB\" }\n\
        [[group]]\nmatch = \"feed:*\"\nslow_consumer = \"drop\"\n\
        [[group]]\nmatch = \"club:*\"\nhistory = {}\nmembers = \"stored\"\n";
    let (settings, layers) = read(file, &[("TIELINE_INBOX_COUNT", "7")], &[]).unwrap();
    let rules = settings.log_rules();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(rules.history("room:1"), Some(Retention { count: 10, bytes: 1024, age: day }));
    assert_eq!(rules.history("feed:1"), None);
    let stores = ["room:1", "feed:1", "club:1", "other"].map(|group| rules.stores_members(group));
    assert_eq!(stores, [false, false, true, false]);
    let inbox = rules.inbox.unwrap();
    assert_eq!((inbox.count, inbox.age), (7, Duration::from_secs(3600)));
    let shown = settings.show(&layers);
    assert!(shown.contains("store = \"sqlite:///a/s.db\" # t.toml, line 1"), "{shown}");
    // What is shown is a file with the same meaning.
    let (again, _) = read(&shown, &[], &[]).unwrap();
    assert_eq!(again.log_rules(), rules);
    assert!(!Settings::default().log_rules().keep_anything());
}

#[test]
fn mistakes_in_what_is_kept_are_told_with_their_places() {
    for (file, expected) in [
        ("store = \"redis:\"", "line 1: `store` takes"),
        ("[[group]]\nhistory = { count = 1 }", "line 1: `group.match` has to be given"),
        (
            "[[group]]\nmatch = \"a\"\nhistory = { cuont = 1 }",
            "line 3: `group.history` takes a table such as",
        ),
        ("[[group]]\nmatch = \"a\"\nhistory = { count = 0 }", "with something wrong in it"),
        ("[[group]]\nmatch = \"a\"\nhistory = 5", ", not 5"),
        ("[[group]]\nmatch = \"a\"\nhistory = {}\nslow_consumer = \"drop\"", "comes back and misses nothing"),
        (
            "[[group]]\nmatch = \"a\"\nmembers = \"stored\"",
            "line 1: a group with `members = \"stored\"` needs a `history`",
        ),
        (
            "[[group]]\nmatch = \"a\"\nhistory = {}\nmembers = \"online\"",
            "line 4: `group.members` takes \"connected\" or",
        ),
        ("[inbox]\nage = \"0s\"", "line 2: `inbox.age` takes"),
    ] {
        let mistakes = mistakes(file);
        assert!(mistakes.contains(expected), "{file}\n{mistakes}");
    }
    let secret = mistakes("store = \"oracle://me:secret@host\"");
    assert!(!secret.contains("secret"), "{secret}");
}

#[test]
fn changes_are_told_with_whether_a_running_node_makes_them() {
    let settings = |file: &str| read(file, &[], &[]).unwrap().0;
    let before =
        settings("access_key = [\"one\"]\nshards = 2\n[[group]]\nmatch = \"a\"\n[times]\nidle = \"1h\"\n");
    let after = settings(
        "access_key = [\"two\"]\nshards = 2\n[[group]]\nmatch = \"b\"\n[times]\nidle = \"60m\"\n[limits]\nfaults = 1\n[log]\nformat = \"json\"\n",
    );
    let told: Vec<_> = before.changes(&after).into_iter().map(|of| (of.key, of.is_live)).collect();
    let expected = [("access_key", true), ("limits.faults", true), ("log.format", false), ("group", false)];
    assert_eq!(told, expected.map(|(key, is_live)| (key.to_owned(), is_live)));
    assert_eq!(before.changes(&before), []);
}
