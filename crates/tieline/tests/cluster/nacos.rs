//! What there is on a real Nacos beside nodes that find each other (`ensembles.rs`): a configuration, and a gateway's nodes. One
//! server is started for both, because it takes so long.

use xtask::{Engine, left_out};

use crate::{configurations, gateway};

#[test]
fn a_configuration_and_a_gateway_follow_nacos_and_outlive_it() {
    let what = "a configuration and a gateway by Nacos";
    if std::env::var_os("TIELINE_TEST_NACOS").is_some() {
        return left_out(what, "TIELINE_TEST_NACOS names a server that was not started here");
    }
    let mut server = Engine::nacos().start().unwrap();
    configurations::follow(&mut server);
    gateway::follow(&mut server);
}
