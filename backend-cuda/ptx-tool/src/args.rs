//! The command line.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// PTX of device crates: compile it, audit the order and scope of its memory accesses, and audit the audit.
#[derive(Debug, Parser)]
#[command(name = "k2k-ptx", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(BuildArgs),
    Audit(AuditArgs),
    Mutate(MutateArgs),
}

/// Compile a device crate to one PTX file.
///
/// The crate is `no_std`, has a panic handler, and its kernels are `#[unsafe(no_mangle)] pub unsafe extern "ptx-kernel"
/// fn` (with `#![feature(abi_ptx)]`). Neither CUDA nor a GPU is needed, but a compiler with the sources of `core`, see
/// below. Features of nightly work on it, whatever its channel.
///
/// The same sources, options and compiler give the same file, byte for byte, in any folder of any machine.
#[derive(Args, Debug)]
#[command(
    after_long_help = format!(
        "A compiler with the sources of `core` is what one of these brings: {}.\n\nExit status: 0 written (or, with \
         --check, the same), 1 not the same, 2 not built, or bad arguments, 141 nobody reads standard output any more.",
        k2k_ptx::build::toolchains()
    )
)]
pub(crate) struct BuildArgs {
    /// The crate's Cargo.toml.
    #[arg(long, value_name = "PATH", default_value = "Cargo.toml")]
    pub(crate) manifest_path: PathBuf,

    /// The oldest processor that the module is to run on: sm_70, or with --nvvm sm_100, if none is named. The driver
    /// compiles it for newer ones.
    #[arg(long, value_name = "SM")]
    pub(crate) arch: Option<String>,

    /// The version of PTX, such as 7.8, if inline assembly needs more than 7.0 or the lowest that the processor
    /// allows.
    #[arg(long, value_name = "VERSION")]
    pub(crate) ptx_version: Option<String>,

    /// Have NVIDIA's own optimiser, libNVVM, make the PTX of rustc's IR: for sm_100 and later, in the library's version of
    /// PTX (13.5 writes 9.5). FILE is the library, if it is none that CUDA or `pip install nvidia-nvvm` has brought.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "ptx_version")]
    pub(crate) nvvm: Option<Option<PathBuf>>,

    /// The file to write; - or nothing is the standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Write nothing, but compare with this file, and fail if it is not what would be written.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub(crate) check: Option<PathBuf>,

    /// Features of the crate to enable.
    #[arg(short = 'F', long, value_name = "FEATURES", value_delimiter = ',')]
    pub(crate) features: Vec<String>,

    /// Leave out the crate's default features.
    #[arg(long)]
    pub(crate) no_default_features: bool,

    /// The compiler to use, instead of the first that has the sources of `core`.
    #[arg(long, value_name = "PATH")]
    pub(crate) toolchain_rustc: Option<PathBuf>,

    /// Its cargo; without it, the one beside the compiler.
    #[arg(long, value_name = "PATH", requires = "toolchain_rustc")]
    pub(crate) toolchain_cargo: Option<PathBuf>,

    /// Where intermediate files go; without it, `k2k-ptx` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,

    /// Further arguments for cargo, such as --locked.
    #[arg(last = true, value_name = "CARGO_ARGS")]
    pub(crate) cargo_args: Vec<OsString>,
}

/// Audit the memory order of PTX files.
///
/// Every read-modify-write and fence must say order and scope; no access may be volatile; a word that is accessed with
/// an order is never accessed without. Which other words are control words, PTX does not say, so each file has a
/// contract beside it, FILE.audit: how many strong accesses of each kind each entry point makes. A dropped order
/// changes a number.
///
/// The contract also says which entry points are hot, that is, on the way of messages: `entry NAME hot
/// releases-per-loop=N`. These use no local memory, make no calls, cannot panic, have no fence at system scope, and
/// publish at most N times in a turn of a loop. Of other entry points, functions can be hot, which may call only what
/// is listed: `hot-function NAME calls=NAME,..`. `registers=N`, `stack-bytes=N` and `spill-bytes=N` are how much an
/// entry point may need of each.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status: 0 passed, 1 something found, 2 an error or bad arguments, 3 passed but the machine \
                             code was not looked at, because a program for that is missing, 141 nobody reads standard \
                             output any more."
)]
pub(crate) struct AuditArgs {
    /// The PTX files.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The contract, if it does not lie beside the file.
    #[arg(long, value_name = "FILE")]
    pub(crate) contract: Option<PathBuf>,

    /// Write what the files do today into their contracts; what stands behind the names of entry points stays, except,
    /// with --sass, what the assembler needs.
    #[arg(long)]
    pub(crate) bless: bool,

    /// Fail if a file has no contract.
    #[arg(long, conflicts_with = "bless")]
    pub(crate) require_contract: bool,

    /// Hold files to their contracts as PTX that another compiler made of the same source than the contract's: kinds of
    /// accesses count, and no order may be missing, but there may be more; what is hot stays hot; registers, stack and
    /// spills are not looked at.
    #[arg(long, conflicts_with = "bless")]
    pub(crate) other_compiler: bool,

    /// Treat this entry point as hot, too; with --bless, write that down.
    #[arg(long, value_name = "ENTRY")]
    pub(crate) hot: Vec<String>,

    /// Also assemble for these processors, such as sm_75,sm_90, and audit the machine code: no more registers, stack
    /// and spills than agreed, and no memory order lost. Needs ptxas and nvdisasm (pip install nvidia-cuda-nvcc
    /// nvidia-cuda-nvdisasm), but no GPU.
    #[arg(long, value_name = "SM", value_delimiter = ',')]
    pub(crate) sass: Vec<String>,

    /// The ptxas to assemble with, instead of the first that is found: such as an older one, as drivers have.
    #[arg(long, value_name = "FILE", requires = "sass")]
    pub(crate) ptxas: Option<PathBuf>,

    /// Fail if ptxas or nvdisasm is missing.
    #[arg(long, requires = "sass")]
    pub(crate) require_sass: bool,

    /// Write a table of registers, stack, barriers and strong accesses per entry point and processor, in Markdown.
    #[arg(long, value_name = "FILE", requires = "sass")]
    pub(crate) table: Option<PathBuf>,
}

/// Weaken each strong access of PTX files, one at a time, and check that the audit notices.
///
/// An order is dropped or becomes relaxed, a scope is dropped or narrowed, a fence left out. The contract is the one
/// beside the file, or, without one, what the file does today.
#[derive(Args, Debug)]
#[command(after_long_help = "Exit status: 0 all found, 1 some not found, 2 an error or bad arguments, 141 \
                                 nobody reads standard output any more.")]
pub(crate) struct MutateArgs {
    /// The PTX files.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}
