//! A load as a person asks for it, run against a server, and in turns against the floor when that is wanted.
//!
//! Both sets of connections stay open through all pairs, so that opening is in no run; the server that waits is idle.
//! The floor's frames get the size that the server's deliveries had in the warm-up, and the messages to it the size of
//! those to the server. Tested by `tests/command.rs`.

use crate::args::{Connecting, Fanout, Groups, Lasting, Measuring, Unicast};
use crate::child::Server;
use crate::course::{Course, Length, Limits, Pace, Sample};
use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::error::BenchError;
use crate::fleet::Service;
use crate::floor::Mode;
use crate::plan::Plan;
use crate::process;
use crate::progress::Progress;
use crate::report::{Report, Run};
use std::time::Duration;

/// Pairs unless the command line says otherwise.
const PAIRS: u16 = 7;
/// Pairs at a rate unless the command line says otherwise.
const RATE_PAIRS: u16 = 5;
/// Messages outstanding in the warm-up of a run at a rate.
const WARM_UP_WINDOW: usize = 4;

/// A load, ready to be run.
pub(crate) struct Scenario {
    /// What it is, in words.
    pub(crate) title: String,
    /// Makes the shape of the load, once for each fleet.
    pub(crate) plan: Box<dyn Fn() -> Result<Plan, BenchError>>,
    /// When messages are sent.
    pub(crate) pace: Pace,
    /// How the floor writes.
    pub(crate) mode: Mode,
    /// Length of each run.
    pub(crate) length: Length,
    /// Length of the warm-up.
    pub(crate) warm_up: Duration,
    /// Bytes of a message's JSON data.
    pub(crate) payload: usize,
}

impl Scenario {
    /// One publisher to all others.
    pub(crate) fn fanout(options: &Fanout) -> Self {
        let subscribers = options.subscribers as usize;
        let pace = pace(&options.lasting, options.window, subscribers);
        let title = format!("fan-out 1:{subscribers}, {}", in_words(pace, subscribers));
        Self::new(title, &options.lasting, pace, Mode::Gather, move || Ok(Plan::Fanout { subscribers }))
    }

    /// Many groups.
    pub(crate) fn groups(options: &Groups) -> Self {
        let (users, groups, size) = (options.users as usize, options.groups as usize, options.size as usize);
        let pace = pace(&options.lasting, options.outstanding, size - 1);
        let title = format!("{users} users in {groups} groups of {size}, {}", in_words(pace, size - 1));
        Self::new(title, &options.lasting, pace, Mode::Gather, move || Plan::groups(users, groups, size))
    }

    /// Users to users.
    pub(crate) fn unicast(options: &Unicast) -> Self {
        let users = options.users as usize;
        let pace = pace(&options.lasting, options.outstanding, 1);
        let title = format!("unicast among {users}, {}", in_words(pace, 1));
        let across = options.connecting.other_url.is_some();
        Self::new(title, &options.lasting, pace, Mode::Direct, move || Ok(Plan::Unicast { users, across }))
    }

    /// Any of them.
    fn new(
        title: String,
        lasting: &Lasting,
        pace: Pace,
        mode: Mode,
        plan: impl Fn() -> Result<Plan, BenchError> + 'static,
    ) -> Self {
        let length = match lasting.messages {
            Some(messages) => Length::Messages(messages),
            None => Length::Time(Duration::from_secs_f64(lasting.seconds)),
        };
        let warm_up = Duration::from_secs_f64(lasting.warm_up);
        Self { title, plan: Box::new(plan), pace, mode, length, warm_up, payload: lasting.payload as usize }
    }

    /// Runs it as often as `measuring` says.
    pub(crate) fn run(
        &self,
        service: Service,
        measuring: &Measuring,
        progress: &mut Progress,
    ) -> Result<Report, BenchError> {
        let dialect = service.dialect;
        let plan = (self.plan)()?;
        if matches!(plan, Plan::Unicast { .. }) && !dialect.has_users() {
            return Err(BenchError::arguments("only tieline.v1 and socket.io have messages to users"));
        }
        if measuring.floor && measuring.pid.is_empty() && matches!(self.pace, Pace::Window(_)) {
            return Err(BenchError::arguments("--floor compares processor time: give the server's --pid"));
        }
        let limits = limits(measuring);
        progress.label(&self.title);
        let mut server = Course::open(service, plan, self.payload, measuring.pid.clone(), limits, progress)?;
        let learnt = self.warm_up(&mut server, limits, progress)?;
        let mut floor = match measuring.floor {
            false => None,
            true => {
                // Declared before the course so that the process outlives its connections.
                let process = Server::floor(learnt.frame_bytes(), self.mode, measuring.pin_server)?;
                let service = floor_service(&process)?;
                let processes = vec![process.id()];
                let message = server.message_bytes();
                let mut course = Course::open(service, (self.plan)()?, message, processes, limits, progress)?;
                self.warm_up(&mut course, limits, progress)?;
                Some((process, course))
            }
        };
        let (mut server_runs, mut floor_runs) = (Vec::new(), Vec::new());
        let runs = if floor.is_some() { pairs(measuring, self.pace) } else { 1 };
        for pair in 1..=runs {
            if let Some((_, course)) = &mut floor {
                progress.label(format!("{}, floor, {pair} of {runs}", self.title));
                floor_runs.push(Run::from(&course.run(self.pace, self.length, limits, progress)?));
            }
            progress.label(format!("{}, server, {pair} of {runs}", self.title));
            server_runs.push(Run::from(&server.run(self.pace, self.length, limits, progress)?));
        }
        progress.clear();
        server.close()?;
        let protocol = dialect.name();
        Ok(Report::new(self.title.clone(), protocol, "deliveries", server_runs, floor_runs))
    }

    /// The run that is not counted, from which the size of the server's frames is learnt.
    fn warm_up(
        &self,
        course: &mut Course,
        limits: Limits,
        progress: &mut Progress,
    ) -> Result<Sample, BenchError> {
        // A flood would leave queues behind that a run at a rate has no business with.
        let pace = match self.pace {
            Pace::Rate(_) => Pace::Window(WARM_UP_WINDOW),
            window => window,
        };
        course.run(pace, Length::Time(self.warm_up), limits, progress)
    }
}

/// The service that the command line names.
pub(crate) fn service(connecting: &Connecting, default: Dialect) -> Result<Service, BenchError> {
    Ok(Service {
        endpoint: Endpoint::parse(&connecting.url)?,
        other: connecting.other_url.as_deref().map(Endpoint::parse).transpose()?,
        dialect: connecting.protocol.unwrap_or(default),
        access_key: connecting.access_key.clone(),
    })
}

/// The service of a floor server.
pub(crate) fn floor_service(process: &Server) -> Result<Service, BenchError> {
    let endpoint = Endpoint::parse(&format!("ws://{}/", process.address))?;
    Ok(Service { endpoint, other: None, dialect: Dialect::Floor, access_key: None })
}

/// The limits that the command line sets.
pub(crate) fn limits(measuring: &Measuring) -> Limits {
    Limits {
        time: Duration::from_secs_f64(measuring.time_limit),
        stall: Duration::from_secs_f64(measuring.stall_limit),
    }
}

/// How many runs of each there are when the floor takes part.
pub(crate) fn pairs(measuring: &Measuring, pace: Pace) -> u16 {
    measuring.pairs.unwrap_or(match pace {
        Pace::Window(_) => PAIRS,
        Pace::Rate(_) => RATE_PAIRS,
    })
}

/// Pins what the command line wants pinned, and allows as many sockets as the system does.
/// A process that cannot be measured is found here, before anything is opened.
pub(crate) fn prepare(measuring: &Measuring) -> Result<u64, BenchError> {
    process::cpu_time(&measuring.pid)?;
    if let Some(cpu) = measuring.pin_server {
        measuring.pid.iter().try_for_each(|process| process::pin(*process, cpu))?;
    }
    if let Some(cpu) = measuring.pin_client {
        process::pin_this_thread(cpu)?;
    }
    process::raise_file_limit()
}

/// The pace that the command line sets; a rate is of deliveries, and each message makes `recipients` of them.
fn pace(lasting: &Lasting, window: u16, recipients: usize) -> Pace {
    match lasting.rate {
        Some(rate) => Pace::Rate(rate / recipients as f64),
        None => Pace::Window(window.into()),
    }
}

/// A pace in the title.
fn in_words(pace: Pace, recipients: usize) -> String {
    match pace {
        Pace::Window(window) => format!("{window} outstanding"),
        Pace::Rate(rate) => format!("{:.0} deliveries/s", rate * recipients as f64),
    }
}
