//! `k2k metrics`: a fabric's counters and gauges, in the text format of Prometheus.

use super::args::MetricsArgs;
use super::errors::{self, Counted};
use super::{json, label, label_of, printable, state};
use core::error::Error;
use core::fmt::{self, Write as _};
use core::ops::RangeInclusive;
use core::time::Duration;
use k2k::fabric::{Failure, Geometry};
use k2k::inspect::{FileState, InspectError, KernelLook, Report, View, Watch};
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Instant;

const NAME: &str = "k2k metrics";

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Clients answered at the same time.
const CLIENTS: usize = 32;

const NS_PER_S: u64 = 1_000_000_000;

/// Shortest and longest limit in a histogram, ns.
const LATENCIES: RangeInclusive<u64> = 1 << 6..=1 << 33;

/// A metric of kernels' notes on failures: name, help, value in ns.
type FailureTime = (&'static str, &'static str, fn(&Failure) -> u64);

const FAILURE_TIMES: [FailureTime; 2] = [
    ("k2k_failure_first_timestamp_seconds", "When the first failure of a kind was counted.", |noted| {
        noted.first_wall_ns
    }),
    ("k2k_failure_last_timestamp_seconds", "When the last failure of a kind was counted.", |noted| noted.last_wall_ns),
];

/// Longest request, bytes.
const LONGEST: usize = 8192;

pub(crate) fn main(args: &MetricsArgs) -> ExitCode {
    super::end(NAME, run(args))
}

fn run(args: &MetricsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut watch = Watch::new(super::open(&args.file)?).patience(super::BETWEEN);
    watch.look()?;
    if let Some(address) = &args.serve {
        let listener = TcpListener::bind(address).map_err(|why| format!("cannot listen at {address}: {why}"))?;
        k2k_command::say!("http://{}/metrics", listener.local_addr()?)?;
        return serve(&listener, &args.file, Watch::new(super::open(&args.file)?));
    }
    thread::sleep(super::BETWEEN);
    k2k_command::print(look(&mut watch)?)?;
    Ok(ExitCode::SUCCESS)
}

fn look(watch: &mut Watch) -> Result<String, InspectError> {
    let report = watch.look()?;
    told(watch, &report)
}

fn told(watch: &mut Watch, report: &Report) -> Result<String, InspectError> {
    let view = watch.view();
    let failures = errors::counted(view, &report.look)?;
    Ok(text(view, report, &failures))
}

/// The metrics of a report, with names and units by the rules of Prometheus.
fn text(view: &View, report: &Report, failures: &[Counted<'_>]) -> String {
    let mut out = Metrics { text: String::new(), fabric: printable(&view.path().to_string_lossy()) };
    let Geometry { kernels, slots, payload, size } = view.geometry();
    let [kernels, slots, payload, version] = [kernels, slots, payload, view.version()].map(|n| n.to_string());
    out.family("k2k_fabric_info", "gauge", "The fabric's shape.");
    let shape: [(&str, &str); 4] =
        [("kernels", &kernels), ("slots", &slots), ("payload", &payload), ("layout_version", &version)];
    out.sample("k2k_fabric_info", &shape, 1);
    out.family("k2k_fabric_size_bytes", "gauge", "Size of the fabric.");
    out.sample("k2k_fabric_size_bytes", &[], size);
    out.family(
        "k2k_messages_unaccounted",
        "gauge",
        "Messages accepted that no kernel has counted as received or failed.",
    );
    out.sample("k2k_messages_unaccounted", &[], report.look.total().unaccounted());

    for (name, of) in json::FIELDS {
        let name = format!("k2k_messages_{name}_total");
        out.family(&name, "counter", "See k2k::Stats; of a kernel index, over all its owners.");
        out.of_kernels(&name, report, |kernel| of(&kernel.stats));
        for (index, stats) in &report.look.left {
            out.sample(&name, &[("kernel", ""), ("index", &index.to_string())], of(stats));
        }
    }
    for (name, help, of) in FAILURE_TIMES {
        out.family(name, "gauge", help);
        for failure in failures {
            let Some(noted) = &failure.noted else { continue };
            let (label, index) = (failure.kernel.map(label).unwrap_or_default(), failure.index.to_string());
            let labels: [(&str, &str); 3] = [("kernel", &label), ("index", &index), ("failure", failure.kind)];
            out.sample(name, &labels, of(noted) / NS_PER_S);
        }
    }
    out.family("k2k_kernel_heartbeats_total", "counter", "Passes of the kernel's run loop.");
    out.of_kernels("k2k_kernel_heartbeats_total", report, |kernel| kernel.heartbeat);
    if report.look.config.latency {
        latencies(&mut out, report);
    }
    out.family("k2k_messages_deferred", "gauge", "Messages deferred because the next hop has no room.");
    out.of_kernels("k2k_messages_deferred", report, KernelLook::deferred);
    out.family("k2k_messages_waiting", "gauge", "Messages in the kernel's inbox, by sender and priority.");
    for kernel in &report.look.kernels {
        let index = kernel.id.index().to_string();
        for from in &kernel.backlog {
            let (label, sender) = (label(kernel), label_of(&report.look, from.sender));
            for (priority, count) in [("normal", from.normal), ("high", from.high)] {
                let labels: [(&str, &str); 4] =
                    [("kernel", &label), ("index", &index), ("sender", &sender), ("priority", priority)];
                out.sample("k2k_messages_waiting", &labels, count);
            }
        }
    }
    out.family("k2k_kernel_condition", "gauge", "1 for what k2k top calls the kernel: dead, hung, busy, idle, ...");
    for (kernel, detail) in report.kernels() {
        let (label, index, condition) = (label(kernel), kernel.id.index().to_string(), detail.condition.to_string());
        let owner = kernel.owner.map_or("none", state);
        let labels: [(&str, &str); 4] =
            [("kernel", &label), ("index", &index), ("condition", &condition), ("owner", owner)];
        out.sample("k2k_kernel_condition", &labels, 1);
    }
    out.text
}

/// Histograms, of 1 message in 16.
fn latencies(out: &mut Metrics, report: &Report) {
    const NAME: &str = "k2k_message_latency_seconds";
    let [bucket, sum, all] = ["bucket", "sum", "count"].map(|part| format!("{NAME}_{part}"));
    let seconds = |ns: u64| ns as f64 / NS_PER_S as f64;
    out.family(NAME, "histogram", "From sending to receiving, of one received message of 16.");
    for kernel in &report.look.kernels {
        let Some(latency) = &kernel.latency else { continue };
        let (label, index) = (label(kernel), kernel.id.index().to_string());
        let labels: [(&str, &str); 2] = [("kernel", &label), ("index", &index)];
        let mut count = 0_u64;
        for (longest, more) in latency.steps() {
            count = count.saturating_add(more);
            // Of the steps, each power of two.
            let next = longest.wrapping_add(1);
            if next.is_power_of_two() && LATENCIES.contains(&next) {
                out.sample(&bucket, &[labels[0], labels[1], ("le", &seconds(next).to_string())], count);
            }
        }
        out.sample(&bucket, &[labels[0], labels[1], ("le", "+Inf")], count);
        out.sample(&sum, &labels, seconds(latency.sum_ns()));
        out.sample(&all, &labels, count);
    }
}

struct Metrics {
    text: String,
    fabric: String,
}

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let _ = write!(self.text, "{name}{{fabric=\"{}\"", Escaped(&self.fabric));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", Escaped(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    fn of_kernels(&mut self, name: &str, report: &Report, of: impl Fn(&KernelLook) -> u64) {
        for kernel in &report.look.kernels {
            let (label, index) = (label(kernel), kernel.id.index().to_string());
            self.sample(name, &[("kernel", &label), ("index", &index)], of(kernel));
        }
    }
}

/// A label's value: backslashes and quotes are escaped; control characters are gone already.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if matches!(c, '\\' | '"') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        Ok(())
    }
}

/// Answers requests for ever, each on a thread of its own, so that no client waits for a client that sends nothing. With
/// [`CLIENTS`] clients, the oldest makes room.
fn serve(listener: &TcpListener, file: &str, watch: Watch) -> Result<ExitCode, Box<dyn Error>> {
    let (file, watch) = (file.to_owned(), Arc::new(Mutex::new(watch)));
    let mut clients: VecDeque<Weak<TcpStream>> = VecDeque::new();
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(why) => {
                k2k_command::complain(NAME, format_args!("cannot accept a connection: {why}"));
                // Perhaps for want of descriptors, which come back.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let client = Arc::new(client);
        clients.retain(|client| client.strong_count() > 0);
        if clients.len() >= CLIENTS
            && let Some(oldest) = clients.pop_front().and_then(|oldest| oldest.upgrade())
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        clients.push_back(Arc::downgrade(&client));
        let (file, watch) = (file.clone(), Arc::clone(&watch));
        let answers = move || {
            // A client that goes away, or is too slow, has no answer; all remaining clients have.
            let _ = answer(&client, || scrape(&file, &mut watch.lock().unwrap_or_else(PoisonError::into_inner)));
        };
        if let Err(why) = thread::Builder::new().name("k2k-metrics".to_owned()).spawn(answers) {
            k2k_command::complain(NAME, format_args!("cannot answer a request: {why}"));
        }
    }
}

/// Looks once more; if the name belongs to another file by now, at this new file.
fn scrape(file: &str, watch: &mut Watch) -> Result<String, InspectError> {
    match watch.look() {
        Ok(report) if report.look.file != FileState::Replaced => told(watch, &report),
        _ => {
            *watch = Watch::new(View::open(file)?);
            look(watch)
        }
    }
}

fn answer(mut client: &TcpStream, scrape: impl FnOnce() -> Result<String, InspectError>) -> io::Result<()> {
    let began = Instant::now();
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = PATIENCE.saturating_sub(began.elapsed());
        if request.len() > LONGEST || left.is_zero() {
            return Ok(());
        }
        client.set_read_timeout(Some(left))?;
        let read = client.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(bytes.get(..read).unwrap_or_default());
    }
    let first = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    // The part behind a question mark has no meaning here.
    let path = words.next().and_then(|target| target.split(|byte| *byte == b'?').next());
    let (status, body) = match (method, path) {
        (b"GET" | b"HEAD", Some(b"/metrics" | b"/")) => match scrape() {
            Ok(text) => ("200 OK", text),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        (b"GET" | b"HEAD", _) => ("404 Not Found", "only /metrics is here\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET and HEAD are answered\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    if method == b"HEAD" { Ok(()) } else { client.write_all(body.as_bytes()) }
}
