//! `k2k ls`: the fabrics on this machine, or the kernels of a fabric.

use super::args::LsArgs;
use super::table::Table;
use super::{BETWEEN, file_state, json, label, lower, owner, printable, shape};
use crate::text::{bytes, grouped, time_ns};
use core::error::Error;
use k2k::fabric::AttachError;
use k2k::inspect::{self, InspectError, KernelLook, View, Watch};
use k2k::owner::OwnerState;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

const NAME: &str = "k2k ls";

pub(crate) fn main(args: &LsArgs) -> ExitCode {
    let result = match &args.file {
        Some(file) => one(file, args.json),
        None => all(args.json),
    };
    super::end(NAME, result)
}

/// The fabrics on this machine.
fn all(as_json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let found = inspect::find();
    let mut table = Table::new(1, ["FABRIC", "KERNELS", "SLOTS", "PAYLOAD", "SIZE", "IN USE", "DEAD", ""]);
    let mut listed = Vec::new();
    for path in &found.fabrics {
        let file = short(path);
        let looked = View::open(&path.to_string_lossy()).and_then(|mut view| view.look().map(|look| (view, look)));
        match looked {
            Ok((view, look)) => {
                let dead = |kernel: &&KernelLook| kernel.owner.is_some_and(|owner| owner.state == OwnerState::Dead);
                let (used, dead) = (look.kernels.len(), look.kernels.iter().filter(dead).count());
                let geometry = view.geometry();
                let remark = match (view.is_copy(), view.is_on_this_clock()) {
                    (true, _) => "a copy of other memory",
                    (false, true) => "",
                    (false, false) => "of an earlier boot, or another namespace",
                };
                table.row([
                    printable(&file),
                    geometry.kernels.to_string(),
                    geometry.slots.to_string(),
                    format!("{} B", geometry.payload),
                    bytes(geometry.size),
                    used.to_string(),
                    dead.to_string(),
                    remark.to_owned(),
                ]);
                let mut entry = json::fabric(&view, &look);
                entry.insert("in_use".to_owned(), json!(used));
                entry.insert("dead".to_owned(), json!(dead));
                listed.push(Value::Object(entry));
            }
            // Removed since the search.
            Err(InspectError::NotFound { .. }) => {}
            Err(why) => {
                let dash = || "-".to_owned();
                // Without the path, which stands at the line's beginning.
                let text = match &why {
                    InspectError::Attach { why: AttachError::Shape { .. } | AttachError::Geometry { .. }, .. } => {
                        "damaged: no fabric has such a shape".to_owned()
                    }
                    InspectError::Attach { why, .. } => why.to_string(),
                    other => other.to_string(),
                };
                table.row([printable(&file), dash(), dash(), dash(), dash(), dash(), dash(), printable(&text)]);
                listed.push(json!({ "file": path.to_string_lossy(), "error": why.to_string() }));
            }
        }
    }
    if as_json {
        let unreadable: Vec<_> = found.unreadable.iter().map(|path| path.to_string_lossy()).collect();
        k2k_command::say!("{:#}", json!({ "fabrics": listed, "unreadable": unreadable }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        k2k_command::say!("no fabric in /dev/shm, and none that a process of this user shares")?;
    } else {
        k2k_command::print(table.render())?;
    }
    if !found.unreadable.is_empty() {
        let count = found.unreadable.len();
        k2k_command::note(format_args!("{NAME}: {count} files in /dev/shm may not be read by this user"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The name as a user would type it: files in /dev/shm have a name without a path.
fn short(path: &Path) -> String {
    let name = path.strip_prefix("/dev/shm").ok().filter(|name| name.components().count() == 1);
    name.unwrap_or(path).to_string_lossy().into_owned()
}

/// The kernels of a fabric.
fn one(file: &str, as_json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut watch = Watch::new(super::open(file)?).patience(BETWEEN);
    watch.look()?;
    std::thread::sleep(BETWEEN);
    let report = watch.look()?;
    let view = watch.view();
    if as_json {
        k2k_command::say!("{:#}", json::report(view, &report))?;
        return Ok(ExitCode::SUCCESS);
    }
    k2k_command::say!(
        "{}: {}, tracing {}{}",
        printable(&view.path().to_string_lossy()),
        shape(view.geometry()),
        if report.look.config.tracing { "on" } else { "off" },
        file_state(report.look.file)
    )?;
    if report.look.kernels.is_empty() {
        k2k_command::say!("no kernels")?;
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["KERNEL", "ADDRESS", "OWNER", "STATE", "PHASE", "COMMAND", "HEARTBEAT", "WAITING", "CONDITION"];
    let mut table = Table::new(6, heading);
    for (kernel, detail) in report.kernels() {
        let heartbeat = match kernel.heartbeat {
            0 => "-".to_owned(),
            _ if detail.still.is_zero() => "moves".to_owned(),
            // The command has looked for so long.
            _ => format!("still at least {}", time_ns(detail.still.as_nanos() as f64)),
        };
        table.row([
            label(kernel),
            kernel.id.to_string(),
            owner(kernel.owner),
            kernel.status.map_or_else(|| "?".to_owned(), lower),
            lower(kernel.phase),
            lower(kernel.command),
            heartbeat,
            grouped(kernel.waiting()),
            detail.condition.to_string(),
        ]);
    }
    k2k_command::print(table.render())?;
    Ok(ExitCode::SUCCESS)
}
