//! The command `k2k-ptx`: compiles device crates to PTX and audits it.

#![allow(clippy::std_instead_of_core, reason = "a tool for hosts")]

mod args;

use args::{AuditArgs, BuildArgs, Cli, Command, MutateArgs};
use k2k_command::{note, say};
use k2k_ptx::audit::{self, Contract};
use k2k_ptx::build::{self, BuildError, BuildOptions, Nvvm, Toolchain};
use k2k_ptx::mutate::mutate;
use k2k_ptx::ptx::Module;
use k2k_ptx::sass::{self, EntryCode, SassError, Tools};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    if let Some(code) = build::rustc_wrapper() {
        return code;
    }
    let done = match k2k_command::parse::<Cli>("error").map(|cli| cli.command) {
        Ok(Command::Build(args)) => build(args),
        Ok(Command::Audit(args)) => audit(&args),
        Ok(Command::Mutate(args)) => mutations(&args),
        Err(status) => return status,
    };
    // As cargo and rustc begin their lines.
    k2k_command::end("error", ERROR, done)
}

/// Exit status of a command that could not do its work; [`ExitCode::FAILURE`] is for what it found.
const ERROR: u8 = 2;

fn build(mut args: BuildArgs) -> Result<ExitCode, Box<dyn Error>> {
    // Now rather than after the compilation.
    args.out.take_if(|file| file.as_os_str() == "-");
    if let Some(file) = &args.out {
        can_be_written(file)?;
    }
    build::manifest(&args.manifest_path)?;
    let nvvm = args.nvvm.map(|library| Nvvm::find(library.as_deref())).transpose().map_err(BuildError::Nvvm)?;
    let default_arch = if nvvm.is_some() { build::NVVM_ARCH } else { build::DEFAULT_ARCH };
    let folder = args.manifest_path.parent().unwrap_or(Path::new("."));
    let toolchain = Toolchain::find(folder, args.toolchain_rustc.as_deref(), args.toolchain_cargo.as_deref())?;
    let options = BuildOptions {
        manifest_path: args.manifest_path,
        arch: args.arch.unwrap_or_else(|| default_arch.to_owned()),
        ptx_version: args.ptx_version,
        features: args.features,
        no_default_features: args.no_default_features,
        cargo_args: args.cargo_args,
        wrapper: std::env::current_exe()?,
        target_dir: args.target_dir,
    };
    let build = || match &nvvm {
        Some(nvvm) => build::build_with_nvvm(&options, &toolchain, nvvm),
        None => build::build(&options, &toolchain),
    };
    if let Some(file) = &args.check {
        let old = read(file)?;
        return Ok(compare(file, &old, &build()?));
    }
    let ptx = build()?;
    match &args.out {
        Some(file) => {
            fs::write(file, &ptx).map_err(|why| format!("cannot write {}: {why}", file.display()))?;
            let entries = ptx.lines().filter(|line| line.contains(".entry ")).count();
            note(format_args!("{}: {entries} entry points, {} lines", file.display(), ptx.lines().count()));
        }
        None => k2k_command::print(ptx)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there is a folder for the file, and no folder of its name.
fn can_be_written(file: &Path) -> Result<(), String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = match () {
        () if file.is_dir() => "this is a folder".to_owned(),
        () if !folder.is_dir() => format!("{} is no folder", folder.display()),
        () => return Ok(()),
    };
    Err(format!("cannot write {}: {why}", file.display()))
}

/// Says whether the file is what was just built, and if not, where it differs first.
fn compare(file: &Path, old: &str, new: &str) -> ExitCode {
    if old == new {
        note(format_args!("{}: up to date", file.display()));
        return ExitCode::SUCCESS;
    }
    let (mut old_lines, mut new_lines) = (old.lines(), new.lines());
    let (first_old, first_new) = (old_lines.next().unwrap_or(""), new_lines.next().unwrap_or(""));
    if first_old != first_new {
        note(format_args!(
            "error: {} was made from something else:\n  file: {first_old}\n  now:  {first_new}",
            file.display()
        ));
        return ExitCode::FAILURE;
    }
    // The second line is the hash, which differs anyway.
    let differing = old_lines.zip(new_lines).enumerate().skip(1).find(|(_, (old, new))| old != new);
    match differing {
        Some((index, (old, new))) => note(format_args!(
            "error: {} is out of date, from line {} on:\n  file: {old}\n  now:  {new}",
            file.display(),
            index + 2
        )),
        None => note(format_args!("error: {} is out of date: one is longer", file.display())),
    }
    note(format_args!("write it anew with `k2k-ptx build --out {}` and the same options", file.display()));
    ExitCode::FAILURE
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|why| format!("cannot read {}: {why}", file.display()))
}

fn audit(args: &AuditArgs) -> Result<ExitCode, Box<dyn Error>> {
    if args.contract.is_some() && args.files.len() > 1 {
        return Err("--contract is for one file; several have theirs beside them".into());
    }
    let tools = if args.sass.is_empty() { None } else { Some(Tools::find_with(args.ptxas.as_deref())) };
    if let Some(Err(why)) = &tools
        && (args.require_sass || args.ptxas.is_some())
    {
        return Err(why.to_string().into());
    }
    let mut found = 0;
    let mut tables = String::new();
    for file in &args.files {
        let text = read(file)?;
        let module = parse(file, &text)?;
        let path = args.contract.clone().unwrap_or_else(|| contract_path(file));
        let mut contract = read_contract(&path)?;
        if args.require_contract && contract.is_none() {
            return Err(format!("{} has no contract: write {} with --bless", file.display(), path.display()).into());
        }
        if args.other_compiler {
            contract = contract.map(|contract| contract.for_another_compiler(&module));
        }
        mark_hot(&mut contract, &module, &args.hot).map_err(|name| no_entry(file, &module, &name))?;
        let codes = match &tools {
            Some(Ok(tools)) => assemble(tools, file, &args.sass)?,
            _ => Vec::new(),
        };
        if args.bless {
            let mut blessed = Contract::of(&module, contract.as_ref());
            if !codes.is_empty() {
                sass::allow(&mut blessed, &codes);
            }
            fs::write(&path, blessed.to_string()).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
            note(format_args!("{}: written", path.display()));
            contract = Some(blessed);
        }
        let mut findings = audit::audit(&module, contract.as_ref());
        findings.extend(audit::edited(&text));
        for (arch, entries) in &codes {
            findings.extend(sass::check(&module, contract.as_ref(), arch, entries));
        }
        if !codes.is_empty() {
            let name = file.file_name().unwrap_or_default().display();
            tables.push_str(&format!("\n## {name}\n\n{}", sass::table(&codes)));
        }
        for finding in &findings {
            say!("{}:{finding}", file.display())?;
        }
        if contract.is_none() {
            note(format_args!(
                "{}: no contract, so lost orders show only where the text itself tells: --bless",
                file.display()
            ));
        }
        let strong: usize = module.functions.iter().flat_map(|it| &it.instructions).filter(|it| is_strong(it)).count();
        let entries = module.entries().count();
        note(format_args!(
            "{}: {entries} entry points, {strong} strong accesses, {} findings",
            file.display(),
            findings.len()
        ));
        found += findings.len();
    }
    if let Some(Err(why)) = &tools {
        note(format_args!("machine code not looked at: {why}"));
    } else if let (Some(table), Some(Ok(tools))) = (&args.table, &tools) {
        let head = format!(
            "# Machine code of the PTX\n\n\
             Of each entry point with all that it calls, by NVIDIA's assembler, ptxas {}.\n\
             Processors: {}. Where they differ, a cell has a value for each, in this order.\n\n\
             *Spilled* are bytes of loads and stores for want of registers, saves around calls included; *barriers* are `MEMBAR`,\n\
             *invalidations* `CCTL.IVALL`. Static counts: nothing here was run or timed. Written by `k2k-ptx audit --table`.\n",
            tools.version,
            args.sass.join(" / "),
        );
        fs::write(table, head + &tables).map_err(|why| format!("cannot write {}: {why}", table.display()))?;
    }
    Ok(match tools {
        _ if found > 0 => ExitCode::FAILURE,
        Some(Err(_)) => ExitCode::from(SKIPPED),
        _ => ExitCode::SUCCESS,
    })
}

/// Exit status of an audit that found nothing, but could not look at the machine code.
const SKIPPED: u8 = 3;

fn assemble(tools: &Tools, file: &Path, archs: &[String]) -> Result<Vec<(String, Vec<EntryCode>)>, SassError> {
    // The assembler uses one processor and takes seconds.
    let all: Vec<_> = thread::scope(|scope| {
        let each: Vec<_> = archs.iter().map(|arch| scope.spawn(|| tools.assemble(file, arch))).collect();
        each.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let all = all.into_iter().map(|code| code.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    archs.iter().zip(all).map(|(arch, code)| Ok((arch.clone(), code?))).collect()
}

fn is_strong(instruction: &k2k_ptx::ptx::Instruction) -> bool {
    instruction.access().is_some_and(|access| access.is_strong())
}

/// Marks entry points as hot; gives back the first name that is none.
fn mark_hot(contract: &mut Option<Contract>, module: &Module, hot: &[String]) -> Result<(), String> {
    for name in hot {
        if !module.entries().any(|entry| entry.name == *name) {
            return Err(name.clone());
        }
        let contract = contract.get_or_insert_with(|| Contract::of(module, None));
        contract.entries.entry(name.clone()).or_default().hot = true;
    }
    Ok(())
}

fn no_entry(file: &Path, module: &Module, name: &str) -> String {
    let names: Vec<&str> = module.entries().map(|entry| entry.name.as_str()).collect();
    format!("{} has no entry point {name}; it has {}", file.display(), names.join(", "))
}

fn mutations(args: &MutateArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut missed = 0;
    for file in &args.files {
        let module = parse(file, &read(file)?)?;
        let contract = read_contract(&contract_path(file))?.unwrap_or_else(|| Contract::of(&module, None));
        let all = mutate(&module, &contract);
        for mutation in all.iter().filter(|mutation| !mutation.found) {
            say!("{}:{}: not found: {} for {}", file.display(), mutation.line, mutation.after, mutation.before)?;
            missed += 1;
        }
        let found = all.iter().filter(|mutation| mutation.found).count();
        let alone = all.iter().filter(|mutation| mutation.found_without_contract).count();
        let (name, all) = (file.display(), all.len());
        say!("{name}: {found} of {all} mutations found, {alone} of them also without the contract")?;
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `FILE.audit` beside `FILE.ptx`.
fn contract_path(file: &Path) -> PathBuf {
    file.with_extension("audit")
}

fn read_contract(path: &Path) -> Result<Option<Contract>, String> {
    if !path.exists() {
        return Ok(None);
    }
    Contract::parse(&read(path)?).map(Some).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(file: &Path, text: &str) -> Result<Module, String> {
    Module::parse(text).map_err(|why| format!("{}: {why}", file.display()))
}
