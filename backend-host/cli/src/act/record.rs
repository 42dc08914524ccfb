//! `k2k record`: the messages from one kernel to another, in a file.

use super::args::RecordArgs;
use super::between::{Between, Why};
use super::copies::{self, Copies};
use crate::fabric::{self, Failure};
use crate::{interrupt, output};
use k2k::Priority;
use k2k::recording::{Head, Record, RecordingError, Writer};
use k2k_command::complain;
use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

const NAME: &str = "k2k record";

pub(crate) fn main(args: &RecordArgs) -> ExitCode {
    fabric::main(NAME, || run(args))
}

fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.way.file)?;
    let (from, to) = args.way.find(&broker)?;
    let name = |id| broker.memory().fabric().name(id).map_or_else(String::new, |name| name.as_str().to_owned());
    let head = Head {
        capacity: broker.memory().fabric().geometry().payload,
        began_ns: copies::wall_time_ns(),
        from: name(from),
        to: name(to),
    };
    let failed = |why: RecordingError| format!("cannot write {}: {why}", args.output.display());
    let file = output::create(&args.output).map_err(|why| failed(why.into()))?;
    let writer = Writer::new(BufWriter::new(file), &head).map_err(failed)?;
    interrupt::catch_and_clean_up()?;
    let me = fabric::register(&broker, args.way.own_name.as_deref(), "record")?;
    let between = Between::new(&broker, me, from, to)?;
    fabric::has_acted();
    let began = Instant::now();
    let (mut tape, copies) = copies::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(&copies, writer, began));
        let is_over = || args.time.is_some_and(|time| began.elapsed() >= time);
        let mut recorded = 0;
        let ended = between.run(is_over, |message| {
            recorded += 1;
            tape.put(message) && args.count.is_none_or(|count| recorded < count)
        });
        let left_out = tape.left_out;
        drop(tape);
        let messages = writer.join().map_err(|_| "the thread that writes has panicked")?.map_err(failed)?;
        let ended = ended?;
        for remark in ended.remarks() {
            complain(NAME, remark);
        }
        complain(NAME, format_args!("{messages} of them are in {}", args.output.display()));
        if left_out > 0 {
            complain(NAME, format_args!("{left_out} are missing there: the file system is too slow"));
        }
        Ok(ExitCode::from(u8::from(left_out > 0 || matches!(ended.why, Why::Left(_)))))
    })
}

fn write(copies: &Copies, mut writer: Writer<BufWriter<File>>, began: Instant) -> Result<u64, RecordingError> {
    // Flushed before each wait, so that a killed recorder loses little of its recording.
    while let Some(copy) = copies.next(|| writer.flush())? {
        let header = &copy.header;
        writer.write(&Record {
            offset_ns: copy.offset_ns,
            correlation_id: header.correlation_id,
            kind: header.kind,
            priority: if header.priority == Priority::Normal as u8 { Priority::Normal } else { Priority::High },
            flags: header.flags,
            payload: copy.payload.into_vec(),
        })?;
    }
    writer.finish(began.elapsed().as_nanos() as u64)
}
