//! Clusters as their users meet them: real processes on free ports of this machine, joined by mesh or by a broker of their own, and clients of each.
//!
//! Every message is counted: each test knows who has to get what, and that nobody gets anything else. Nothing sleeps: a test
//! waits for a frame, for a line of a node's log, or asks a node over HTTP until it answers as expected, all with a time limit.

// Marked as tests for the lints' sake: what a test may unwrap, its tools may too.
#[cfg(test)]
mod balancer;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod client;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod configurations;
#[cfg(test)]
mod deaths;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod directories;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod drains;
#[cfg(test)]
mod ensembles;
#[cfg(test)]
mod gateway;
#[cfg(all(test, feature = "hazelcast"))]
mod hazelcast;
#[cfg(test)]
mod joins;
#[cfg(all(test, feature = "kafka"))]
mod kafka;
#[cfg(test)]
mod keepers;
#[cfg(test)]
mod links;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod mediums;
#[cfg(test)]
mod members;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod moves;
#[cfg(all(test, feature = "nacos"))]
mod nacos;
#[cfg(test)]
mod names;
#[cfg(all(test, feature = "nats"))]
mod nats;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod processes;
#[cfg(all(test, feature = "rabbitmq"))]
mod rabbitmq;
#[cfg(test)]
mod rebalancing;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod registries;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod resumes;
#[cfg(all(test, feature = "rocketmq"))]
mod rocketmq;
#[cfg(test)]
mod standstill;
#[cfg(test)]
mod strangers;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod talkers;
#[cfg(test)]
mod torn;
