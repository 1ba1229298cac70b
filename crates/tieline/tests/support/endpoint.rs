//! An application's endpoint as tests want it: what it was sent is kept, and what it answers, well or badly, the test says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By name in lower case.
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Post {
    /// A header, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn event(&self) -> &str {
        self.header("ce-eventname")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What an endpoint does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A proper answer: status, headers each with its line end, body.
    Answer(u16, String, Vec<u8>),
    /// These bytes, and then nothing more comes; the socket stays open.
    Bytes(Vec<u8>),
    /// The socket is closed.
    Close,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Answer(status, String::new(), Vec::new())
    }

    pub(crate) fn text(status: u16, text: &str) -> Reply {
        Reply::Answer(status, "Content-Type: text/plain\r\n".into(), text.into())
    }

    pub(crate) fn json(json: &serde_json::Value) -> Reply {
        Reply::Answer(
            200,
            "Content-Type: application/json; charset=utf-8\r\n".into(),
            json.to_string().into(),
        )
    }

    pub(crate) fn state(self, state: &str) -> Reply {
        match self {
            Reply::Answer(status, headers, body) => {
                Reply::Answer(status, format!("{headers}ce-connectionState: {state}\r\n"), body)
            }
            other => other,
        }
    }

    /// The answer by which an endpoint takes events.
    pub(crate) fn allow(origin: &str) -> Reply {
        Reply::Answer(200, format!("WebHook-Allowed-Origin: {origin}\r\n"), Vec::new())
    }
}

type Answerer = dyn Fn(&Post) -> Reply + Send + Sync;

/// An address at which nobody listens yet, and nobody else can: connections are refused until it is opened.
pub(crate) struct Closed {
    socket: Socket,
    pub(crate) address: SocketAddr,
}

impl Closed {
    pub(crate) fn new() -> Closed {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().expect("it is bound to one");
        Closed { socket, address }
    }

    /// Listens from now on.
    pub(crate) fn open(self) -> TcpListener {
        self.socket.listen(64).unwrap();
        self.socket.into()
    }
}

/// A running endpoint; its threads end with the test's process.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    posts: Receiver<Post>,
    answer: Arc<Mutex<Arc<Answerer>>>,
}

impl Endpoint {
    /// One that takes events of everybody, and answers them so.
    pub(crate) fn start(answer: impl Fn(&Post) -> Reply + Send + Sync + 'static) -> Endpoint {
        Endpoint::on(TcpListener::bind("127.0.0.1:0").unwrap(), move |post| match &*post.method {
            "OPTIONS" => Reply::allow("*"),
            _ => answer(post),
        })
    }

    /// One that answers all requests so, those that ask whether it takes events among them.
    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Post) -> Reply + Send + Sync + 'static,
    ) -> Endpoint {
        let (sender, posts) = channel();
        let answer: Arc<Mutex<Arc<Answerer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, answer) = (sender.clone(), Arc::clone(&shared));
                thread::spawn(move || converse(stream, &sender, &answer));
            }
        });
        Endpoint { address, posts, answer }
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, answer: impl Fn(&Post) -> Reply + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(move |post| match &*post.method {
            "OPTIONS" => Reply::allow("*"),
            _ => answer(post),
        });
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/app/{{hub}}/{{event}}?code=SECRET", self.address)
    }

    /// The next request but those that ask for permission.
    pub(crate) fn next(&self) -> Post {
        self.next_within(PATIENCE)
    }

    /// The same with more patience.
    pub(crate) fn next_within(&self, limit: Duration) -> Post {
        loop {
            let post = self.posts.recv_timeout(limit).expect("the endpoint is sent nothing");
            if post.method != "OPTIONS" {
                return post;
            }
        }
    }

    /// The next request that comes before a moment.
    pub(crate) fn next_until(&self, until: Instant) -> Option<Post> {
        self.posts.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }

    /// The next event of this name; others are passed over.
    pub(crate) fn next_of(&self, event: &str) -> Post {
        loop {
            let post = self.next();
            if post.event() == event {
                return post;
            }
        }
    }

    /// Everything that has come by now.
    pub(crate) fn so_far(&self) -> Vec<Post> {
        self.posts.try_iter().collect()
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_quiet(&self, time: Duration) -> bool {
        self.posts.recv_timeout(time).is_err()
    }
}

/// Answers the requests on one socket.
fn converse(stream: TcpStream, posts: &Sender<Post>, answer: &Mutex<Arc<Answerer>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(post) = read(&mut reader) {
        let _ = posts.send(post.clone());
        let answer = Arc::clone(&answer.lock().unwrap());
        match answer(&post) {
            Reply::Answer(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
                if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                    return;
                }
            }
            Reply::Bytes(bytes) => {
                let _ = stream.write_all(&bytes);
                // Until the other side gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Close => return,
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Post> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let twice = headers.insert(name.to_lowercase(), value.to_owned());
        assert!(twice.is_none(), "{name} is there twice");
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Post { method, path, headers, body })
}
