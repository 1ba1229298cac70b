//! Servers in the process of the test, each on a free port and with a runtime of its own.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tieline::Failure;
use tieline::config::{Document, Given};
use tieline::echo::{self, EchoSettings};
use tieline::serve::{self, Addresses};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A running server. Dropped, it is stopped as by a signal, and must end well.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    /// Where other nodes connect.
    pub(crate) peers: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Server {
    /// `tieline serve` with a configuration file of this text.
    pub(crate) fn start(config: &str) -> Server {
        let text = format!("listen = \"127.0.0.1:0\"\nshards = 2\n{config}");
        let document = Document { name: "test.toml".into(), text };
        let given = Given::new(None, Vec::new(), Vec::new()).unwrap();
        let settings = given.read(Some(document)).unwrap().settings;
        Server::run(|ready, stop| {
            Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
                serve::serve(
                    settings,
                    None,
                    move |addresses| {
                        ready.send(addresses).unwrap();
                        Ok(())
                    },
                    async { drop(stop.await) },
                    std::future::pending(),
                ),
            )
        })
    }

    /// `tieline echo`.
    pub(crate) fn echo(deflate: bool, max_message: usize) -> Server {
        let settings = EchoSettings { listen: "127.0.0.1:0".parse().unwrap(), deflate, max_message };
        Server::run(move |ready, stop| {
            Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(echo::serve(
                settings,
                move |clients| {
                    ready.send(Addresses { clients, admin: None, peers: None }).unwrap();
                    Ok(())
                },
                async { drop(stop.await) },
            ))
        })
    }

    fn run(
        serve: impl FnOnce(mpsc::Sender<Addresses>, oneshot::Receiver<()>) -> Result<(), Failure> + Send + 'static,
    ) -> Server {
        let (ready, addresses) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || serve(ready, stopped));
        let Addresses { clients, admin, peers } = addresses.recv().expect("the server started");
        Server { address: clients, admin, peers, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            thread.join().expect("the server does not panic").expect("the server ends well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}
