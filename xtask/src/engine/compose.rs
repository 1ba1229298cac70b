//! `engines/compose.yaml` beside the keeper's table: every kind is there, under its name, with its variable and scheme, at the port that
//! its address says. The file is for people with Docker; nothing here starts it.

use super::KINDS;
use crate::workspace::root;

/// A service, as far as it is checked.
#[derive(Default)]
struct Service<'a> {
    name: &'a str,
    image: &'a str,
    ports: Vec<&'a str>,
    variable: &'a str,
    url: &'a str,
    uses_hosts_network: bool,
}

/// Reads the services by the lines that are checked; the file keeps each on a line of its own.
fn services(text: &str) -> Vec<Service<'_>> {
    let mut services = Vec::new();
    let lines = text.lines().skip_while(|line| *line != "services:").skip(1);
    for line in lines.filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) =
            line.strip_prefix("  ").filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            let name = name.split(':').next().unwrap_or_default();
            services.push(Service { name, ..Service::default() });
        }
        let Some(service) = services.last_mut() else { continue };
        let Some((key, value)) = line.trim().split_once(": ") else { continue };
        match key {
            "image" => service.image = value,
            "ports" => service.ports = value.split('"').filter(|part| part.contains(':')).collect(),
            "network_mode" => service.uses_hosts_network = value == "host",
            "tieline.variable" => service.variable = value,
            "tieline.url" => service.url = value,
            _ => {}
        }
    }
    services
}

#[test]
fn every_kind_is_in_the_compose_file_and_where_it_says() {
    let text = std::fs::read_to_string(root().join("engines/compose.yaml")).unwrap();
    let services = services(&text);
    for kind in KINDS {
        let found = services.iter().find(|service| service.name == kind.name());
        let service = found.unwrap_or_else(|| panic!("engines/compose.yaml has no {}", kind.name()));
        assert_eq!(service.variable, kind.variable(), "{}", kind.name());
        let scheme = |url: &str| url.split(':').next().unwrap_or_default().to_owned();
        assert_eq!(scheme(service.url), scheme(&kind.url(1)), "{}", kind.name());
    }
    for service in &services {
        for port in &service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{} is open to others: {port}", service.name);
        }
        if !service.url.is_empty() && !service.uses_hosts_network {
            let place = service.url.rsplit(['/', '@']).find(|part| part.starts_with("127.0.0.1:"));
            let place = place.and_then(|place| place.split('?').next()).expect("an address has a port");
            let is_published = service.ports.iter().any(|port| port.starts_with(&format!("{place}:")));
            assert!(is_published, "{} is not at {place}", service.name);
        }
        let version = service.image.rsplit_once(':').map(|(_, version)| version);
        let is_pinned = version.is_some_and(|version| version.contains(|c: char| c.is_ascii_digit()));
        assert!(is_pinned || service.image.is_empty(), "{}: {}", service.name, service.image);
    }
}
