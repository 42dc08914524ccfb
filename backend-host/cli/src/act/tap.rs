//! `k2k tap`: copies of the messages from one kernel to another.

use super::args::TapArgs;
use super::between::{Between, Why};
use super::copies::{self, Copied, Copies};
use crate::fabric::{self, Failure};
use crate::interrupt;
use core::fmt::Write as _;
use k2k::message::{KernelId, Priority};
use k2k_command::{OutputError, complain};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::thread;

const NAME: &str = "k2k tap";

/// Bytes of payload shown on a line.
const SHOWN: usize = 16;

pub(crate) fn main(args: &TapArgs) -> ExitCode {
    fabric::main(NAME, || run(args))
}

fn run(args: &TapArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.way.file)?;
    let (from, to) = args.way.find(&broker)?;
    interrupt::catch_and_clean_up()?;
    let me = fabric::register(&broker, args.way.own_name.as_deref(), "tap")?;
    let names: HashMap<_, _> = broker.kernels().into_iter().map(|(id, name)| (id, name.as_str().to_owned())).collect();
    let between = Between::new(&broker, me, from, to)?;
    fabric::has_acted();
    let (mut tape, copies) = copies::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(move || print(&copies, args, &names));
        let mut shown = 0;
        let ended = between.run(
            || false,
            |message| {
                shown += 1;
                tape.put(message) && args.count.is_none_or(|count| shown < count)
            },
        );
        let left_out = tape.left_out;
        drop(tape);
        writer.join().map_err(|_| "the thread that prints has panicked")??;
        let ended = ended?;
        for remark in ended.remarks() {
            complain(NAME, remark);
        }
        if left_out > 0 {
            complain(NAME, format_args!("{left_out} messages went through and are not shown: the output is too slow"));
        }
        Ok(ExitCode::from(u8::from(matches!(ended.why, Why::Left(_)))))
    })
}

fn print(copies: &Copies, args: &TapArgs, names: &HashMap<KernelId, String>) -> Result<(), OutputError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut text = String::new();
    while let Some(copy) = copies.next(|| out.flush())? {
        text.clear();
        if args.json {
            let _ = writeln!(text, "{}", as_json(&copy, names));
        } else {
            line(&mut text, &copy, names, args.hex);
        }
        out.write_all(text.as_bytes())?;
    }
    Ok(out.flush()?)
}

/// `12:30:05.123456 a k0.1#7 normal kind 3, 5 bytes: 68 65 6c 6c 6f  hello`
fn line(text: &mut String, copy: &Copied, names: &HashMap<KernelId, String>, hex: bool) {
    let (header, payload) = (&copy.header, &copy.payload);
    let seconds = copy.wall_time_ns / 1_000_000_000 % 86_400;
    let micros = copy.wall_time_ns / 1000 % 1_000_000;
    let source = names.get(&header.source()).map_or("?", String::as_str);
    let priority = if header.priority == Priority::Normal as u8 { "normal" } else { "high" };
    let _ = write!(
        text,
        "{:02}:{:02}:{:02}.{micros:06} {} {} {priority} kind {}, {} bytes",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        source.escape_debug(),
        header.id(),
        header.kind,
        payload.len()
    );
    if !hex {
        if !payload.is_empty() {
            text.push_str(": ");
            bytes(text, &payload[..payload.len().min(SHOWN)]);
            text.push_str(if payload.len() > SHOWN { "..." } else { "" });
        }
        text.push('\n');
        return;
    }
    text.push('\n');
    for (i, row) in payload.chunks(SHOWN).enumerate() {
        let _ = write!(text, "  {:04x}  ", i * SHOWN);
        bytes(text, row);
        text.push('\n');
    }
}

/// Bytes in hexadecimal, and printable bytes as characters.
fn bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x} ");
    }
    text.push(' ');
    text.extend(bytes.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }));
}

fn as_json(copy: &Copied, names: &HashMap<KernelId, String>) -> serde_json::Value {
    let header = &copy.header;
    let mut payload = String::with_capacity(2 * copy.payload.len());
    for byte in &copy.payload {
        let _ = write!(payload, "{byte:02x}");
    }
    json!({
        "wall_time_ns": copy.wall_time_ns,
        "source": header.source().to_string(),
        "source_name": names.get(&header.source()),
        "sequence": header.sequence,
        "destination": header.destination().to_string(),
        "priority": if header.priority == Priority::Normal as u8 { "normal" } else { "high" },
        "kind": header.kind,
        "correlation_id": header.correlation_id,
        "is_reply": header.is_reply(),
        "flags": header.flags,
        "hops": header.hops,
        "length": copy.payload.len(),
        "payload": payload,
    })
}
